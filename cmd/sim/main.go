// Command sim runs seeded simulations of Tailbound: a lying disk, a lying
// network and a lying clock under the real code. The same seed does the same,
// always; a failure prints the line that repeats it.
//
//	sim -seed 7 -v           one seed, with its trace
//	sim -start 1 -seeds 500  a range
//	sim -fault NoSync        with a planted bug: it should be found
//	sim -seeds 400 -hashes sim/lives/testdata/hashes
//	                         each seed's trace against the one that is written
//	                         there: a change of structure changes none of them
package main

import (
	"bufio"
	"bytes"
	"cmp"
	"flag"
	"fmt"
	"maps"
	"os"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/tailbound/tailbound/sim/lives"
)

func main() {
	seed := flag.Uint64("seed", 0, "run this one seed")
	start := flag.Uint64("start", 1, "first seed of a range")
	seeds := flag.Uint64("seeds", 100, "how many seeds to run, when -seed is not given")
	verbose := flag.Bool("v", false, "print the trace (one seed at a time)")
	fault := flag.String("fault", "", fmt.Sprintf("plant a bug: one of %v", lives.FaultNames()))
	work := flag.String("work", "all", fmt.Sprintf("what to simulate: all, or one of %v", lives.Workloads()))
	keep := flag.Bool("k", false, "go on after a failure")
	hashes := flag.String("hashes", "", "compare the hashes of the traces with those in this file")
	rewrite := flag.Bool("rewrite", false, "with -hashes: write the file instead")
	jobs := flag.Int("j", 1, "seeds at once (each is one goroutine; the order of lines varies)")
	flag.Parse()
	runtime.GOMAXPROCS(max(2, *jobs))

	one := false
	flag.Visit(func(f *flag.Flag) { one = one || f.Name == "seed" })
	if one {
		*start, *seeds = *seed, 1
	}
	works := lives.Workloads()
	if *work != "all" {
		works = []string{*work}
	}
	golden := goldenHashes{}
	if *hashes != "" && !*rewrite {
		if err := golden.read(*hashes); err != nil {
			fmt.Fprintln(os.Stderr, "sim:", err)
			os.Exit(2)
		}
	}
	out := bufio.NewWriterSize(os.Stdout, 1<<20)
	defer out.Flush()

	var (
		mu      sync.Mutex
		next    = *start
		failed  int
		total   lives.Result
		stopped bool
		group   sync.WaitGroup
	)
	begin := time.Now()
	for range *jobs {
		group.Add(1)
		go func() {
			defer group.Done()
			for {
				mu.Lock()
				n := next
				next++
				done := stopped || n >= *start+*seeds
				mu.Unlock()
				if done {
					return
				}
				for _, name := range works {
					run := lives.Run{Seed: n}
					if *verbose {
						run.Trace = out
					}
					if err := run.Plant(*fault); err != nil {
						fmt.Fprintln(os.Stderr, "sim:", err)
						os.Exit(2)
					}
					res := run.Do(name)
					mu.Lock()
					total.Add(res)
					if one {
						fmt.Fprintf(out, "seed %d %s: %d lives, %d appends, %d reads, %d events, hash %016x\n", n, name, res.Lives, res.Appends, res.Reads, res.Steps, res.Hash)
					}
					switch key := (trace{name, n}); {
					case *rewrite:
						golden[key] = res.Hash
					case *hashes != "" && golden[key] != res.Hash:
						failed++
						fmt.Fprintf(out, "CHANGED %s seed %d: its trace has hash %016x, %s has %016x\n", name, n, res.Hash, *hashes, golden[key])
					}
					if res.Err != nil {
						failed++
						stopped = !*keep
						fmt.Fprintf(out, "FAILED %s seed %d: %v\nreplay: %s\n", name, n, res.Err, run.Replay(name))
						out.Flush()
					}
					mu.Unlock()
				}
			}
		}()
	}
	group.Wait()
	ran := min(next, *start+*seeds) - *start
	wall := time.Since(begin).Seconds()
	fmt.Fprintf(out, "%d seeds from %d in %.1f s: %.1f seeds/s; %d lives, %d appends, %d reads, %d events; %d failed\n",
		ran, *start, wall, float64(ran)/wall, total.Lives, total.Appends, total.Reads, total.Steps, failed)
	if failed > 0 {
		out.Flush()
		os.Exit(1)
	}
	if *rewrite {
		if err := golden.write(*hashes); err != nil {
			fmt.Fprintln(os.Stderr, "sim:", err)
			os.Exit(1)
		}
	}
}

// trace names one run: a workload under a seed.
type trace struct {
	work string
	seed uint64
}

// goldenHashes are the trace hashes of a file: a line for each run, with
// workload, seed and hash.
type goldenHashes map[trace]uint64

func (g goldenHashes) read(file string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for n := 1; lines.Scan(); n++ {
		var key trace
		var hash uint64
		if _, err := fmt.Sscanf(lines.Text(), "%s %d %x", &key.work, &key.seed, &hash); err != nil {
			return fmt.Errorf("%s:%d: %w", file, n, err)
		}
		g[key] = hash
	}
	return lines.Err()
}

func (g goldenHashes) write(file string) error {
	var b bytes.Buffer
	for _, key := range slices.SortedFunc(maps.Keys(g), func(a, b trace) int {
		return cmp.Or(cmp.Compare(a.work, b.work), cmp.Compare(a.seed, b.seed))
	}) {
		fmt.Fprintf(&b, "%s %d %016x\n", key.work, key.seed, g[key])
	}
	return os.WriteFile(file, b.Bytes(), 0o644)
}
