package main

import (
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/tailbound/tailbound/bench/load"
	"github.com/tailbound/tailbound/bench/trial"
)

// hog takes a core, as one who computes does, for ever. It is a little less
// urgent than the generator, which may have no other core: without that the
// figures would be the generator's.
func hog() {
	_ = unix.Setpriority(unix.PRIO_PROCESS, 0, 10)
	for n := uint64(1); ; n = n*6364136223846793005 + 1 {
		if n == 0 {
			return
		}
	}
}

// startHog starts one on the core that the system has not.
func (o *options) startHog() (stop func(), err error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	h, err := trial.Spawn([]int{o.loadCPU}, []string{"GOMAXPROCS=1"}, self, "child-hog")
	if err != nil {
		return nil, err
	}
	return h.Kill, nil
}

// disturbances says what was beside each system did to it: ratios to the same
// rate undisturbed, formed inside a round.
func (r *report) disturbances(w io.Writer, phases []phase, systems []string) {
	said := false
	for _, p := range phases {
		if p.disturbed == "" {
			continue
		}
		if !said {
			fmt.Fprintf(w, "\nWhat was beside a system did to it (disturbed / undisturbed, median of the rounds, least..greatest):\n")
			said = true
		}
		quiet, _, _ := strings.Cut(p.Name, " beside ")
		for _, s := range systems {
			line := ""
			for _, f := range []struct {
				name string
				of   func(*load.Result) float64
			}{
				{"p50", func(r *load.Result) float64 { return float64(r.Latency.P50) }},
				{"p99", func(r *load.Result) float64 { return float64(r.Latency.P99) }},
				{"p99.9", func(r *load.Result) float64 { return float64(r.Latency.P999) }},
			} {
				line += ratioLine(f.name, r.of(p.Name, s), r.of(quiet, s), f.of)
			}
			if line == "" {
				line = "  could not carry the rate in both"
			}
			fmt.Fprintf(w, "  %s, %s:%s\n", s, p.Name, line)
		}
	}
}
