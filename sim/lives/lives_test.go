package lives

import (
	"testing"
	"time"
)

// The suite's share of seeds: enough to notice what broke; the long runs are
// `go run ./cmd/sim -seeds 100000`.
const (
	seedsInSuite  = 400
	seedsInShort  = 40
	secondsPerJob = 20
	seedsPerFault = 500
)

func TestSeeds(t *testing.T) {
	for _, w := range Workloads() {
		t.Run(w, func(t *testing.T) {
			seeds := uint64(seedsInSuite)
			if testing.Short() {
				seeds = seedsInShort
			}
			begin := time.Now()
			for seed := uint64(1); seed <= seeds; seed++ {
				r := Run{Seed: seed}
				if res := r.Do(w); res.Err != nil {
					t.Fatalf("seed %d: %v\nreplay: %s", seed, res.Err, r.Replay(w))
				}
				if time.Since(begin) > secondsPerJob*time.Second {
					t.Logf("stopped after %d of %d seeds: %v", seed, seeds, time.Since(begin))
					return
				}
			}
			t.Logf("%d seeds in %v", seeds, time.Since(begin))
		})
	}
}

func TestOneSeedIsOneBehaviour(t *testing.T) {
	for _, w := range Workloads() {
		for seed := uint64(1); seed <= 5; seed++ {
			a, b := Run{Seed: seed}.Do(w), Run{Seed: seed}.Do(w)
			if a.Hash != b.Hash || a.Steps != b.Steps || a.Appends != b.Appends {
				t.Fatalf("%s seed %d: %d events and %d appends, then %d and %d: something is not drawn from the seed", w, seed, a.Steps, a.Appends, b.Steps, b.Appends)
			}
		}
	}
}

// A checker that has never found anything is not believed: each planted bug
// has to be found.
func TestPlantedBugsAreFound(t *testing.T) {
	for _, f := range faults {
		t.Run(f.name, func(t *testing.T) {
			begin := time.Now()
			seeds := uint64(seedsPerFault)
			for seed := uint64(1); seed <= seeds; seed++ {
				r := Run{Seed: seed}
				if err := r.Plant(f.name); err != nil {
					t.Fatal(err)
				}
				if res := r.Do(f.work); res.Err != nil {
					t.Logf("found by seed %d in %v: %.300v", seed, time.Since(begin), res.Err)
					return
				}
			}
			t.Fatalf("%d seeds found nothing", seeds)
		})
	}
}

// write.caching is an exchange: a crash takes the last of what was acknowledged
// from memory. The oracle allows that of its topics alone, and only behind what
// an earlier crash or a clean stop left; here it is seen to happen.
func TestWriteCachingLosesItsTail(t *testing.T) {
	for seed := uint64(1); seed <= seedsInSuite; seed++ {
		r := Run{Seed: seed}
		res := r.Do("broker")
		if res.Err != nil {
			t.Fatalf("seed %d: %v\nreplay: %s", seed, res.Err, r.Replay("broker"))
		}
		if res.LostCached > 0 {
			t.Logf("seed %d: a crash took %d records", seed, res.LostCached)
			return
		}
	}
	t.Fatalf("in %d seeds no crash took anything that was acknowledged from memory", seedsInSuite)
}
