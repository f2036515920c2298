package lives

import (
	"os"
	"testing"
	"time"
)

// The suite's share of seeds is enough to notice what broke. TAILBOUND_TESTS=long,
// which `make test-long` sets before a release, has all whose traces are committed.
// Beyond that there is `go run ./cmd/sim -seeds 100000`.
var seedsInSuite = map[string]uint64{"engine": 130, "rot": 40, "net": 400, "broker": 50, "full": 25}

const (
	seedsInLong  = 400
	seedsInShort = 40
	// Where a planted bug is searched for, and acknowledged records that a crash takes from memory.
	seedsSearched = 500
)

func long() bool { return os.Getenv("TAILBOUND_TESTS") == "long" }

func TestSeeds(t *testing.T) {
	for _, w := range Workloads() {
		t.Run(w, func(t *testing.T) {
			t.Parallel()
			seeds, ok := seedsInSuite[w]
			switch {
			case !ok:
				t.Fatal("seedsInSuite does not say how many seeds this workload has in the suite")
			case long():
				seeds = seedsInLong
			case testing.Short():
				seeds = min(seeds, seedsInShort)
			}
			begin := time.Now()
			for seed := uint64(1); seed <= seeds; seed++ {
				r := Run{Seed: seed}
				if res := r.Do(w); res.Err != nil {
					t.Fatalf("seed %d: %v\nreplay: %s", seed, res.Err, r.Replay(w))
				}
			}
			t.Logf("%d seeds in %v", seeds, time.Since(begin))
		})
	}
}

func TestOneSeedIsOneBehaviour(t *testing.T) {
	for _, w := range Workloads() {
		t.Run(w, func(t *testing.T) {
			t.Parallel()
			for seed := uint64(1); seed <= 5; seed++ {
				a, b := Run{Seed: seed}.Do(w), Run{Seed: seed}.Do(w)
				if a.Hash != b.Hash || a.Steps != b.Steps || a.Appends != b.Appends {
					t.Fatalf("seed %d: %d events and %d appends, then %d and %d: something is not drawn from the seed", seed, a.Steps, a.Appends, b.Steps, b.Appends)
				}
			}
		})
	}
}

// A checker that has never found anything is not believed: each planted bug has to be found, by the seed that the table of faults names. The long suite
// searches from the first seed on, and the table's has to be the first that finds it.
func TestPlantedBugsAreFound(t *testing.T) {
	for _, f := range faults {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			begin := time.Now()
			finds := func(seed uint64) error {
				r := Run{Seed: seed}
				if err := r.Plant(f.name); err != nil {
					t.Fatal(err)
				}
				return r.Do(f.work).Err
			}
			if !long() {
				if err := finds(f.seed); err != nil {
					t.Logf("found by seed %d in %v: %.300v", f.seed, time.Since(begin), err)
					return
				}
			}
			for seed := uint64(1); seed <= seedsSearched; seed++ {
				err := finds(seed)
				if err == nil {
					continue
				}
				if seed != f.seed {
					t.Fatalf("found by seed %d first, and the table of faults says %d; write the first there: %.300v", seed, f.seed, err)
				}
				t.Logf("found by seed %d first, in %v: %.300v", seed, time.Since(begin), err)
				return
			}
			t.Fatalf("%d seeds found nothing", seedsSearched)
		})
	}
}

// losesCached is the first seed of workload broker in whose life a crash takes records that were acknowledged from memory.
const losesCached = 3

// write.caching is an exchange: a crash takes the last of what was acknowledged
// from memory. The oracle allows that of its topics alone, and only behind what
// an earlier crash or a clean stop left; here it is seen to happen.
func TestWriteCachingLosesItsTail(t *testing.T) {
	t.Parallel()
	lost := func(seed uint64) int {
		r := Run{Seed: seed}
		res := r.Do("broker")
		if res.Err != nil {
			t.Fatalf("seed %d: %v\nreplay: %s", seed, res.Err, r.Replay("broker"))
		}
		return res.LostCached
	}
	if !long() {
		if n := lost(losesCached); n > 0 {
			t.Logf("seed %d: a crash took %d records", losesCached, n)
			return
		}
	}
	for seed := uint64(1); seed <= seedsSearched; seed++ {
		n := lost(seed)
		if n == 0 {
			continue
		}
		if seed != losesCached {
			t.Fatalf("a crash took %d records with seed %d first, and losesCached is %d; write the first there", n, seed, losesCached)
		}
		t.Logf("seed %d: a crash took %d records", seed, n)
		return
	}
	t.Fatalf("in %d seeds no crash took anything that was acknowledged from memory", seedsSearched)
}
