package lives

import (
	"fmt"
	"io"
	"runtime/debug"

	"github.com/tailbound/tailbound/cluster/groups"
	"github.com/tailbound/tailbound/engine"
	"github.com/tailbound/tailbound/shard"
	"github.com/tailbound/tailbound/sim"
)

// Run describes one simulation.
type Run struct {
	Seed   uint64
	Trace  io.Writer     // one line an event; nil: none
	Faults engine.Faults // planted bugs
	// ShardFaults are planted bugs of the shard.
	ShardFaults shard.Faults
	GroupFaults groups.Faults
	fault       string // their name
}

// Result says what a run did. Err is nil if no check failed.
type Result struct {
	Err     error
	Hash    uint64 // of the trace: the same seed gives the same
	Lives   int
	Appends int
	Reads   int
	Steps   int
	// LostCached counts records that were acknowledged from memory (write.caching) and
	// lost by crashes.
	LostCached int
}

// Add adds the numbers of another run.
func (r *Result) Add(x Result) {
	r.Lives += x.Lives
	r.Appends += x.Appends
	r.Reads += x.Reads
	r.Steps += x.Steps
	r.LostCached += x.LostCached
}

// workload is one way to use the system under test.
type workload struct {
	name string
	run  func(Run) Result
}

// Workloads returns the names that Do accepts.
func Workloads() []string {
	var names []string
	for _, w := range workloads {
		names = append(names, w.name)
	}
	return names
}

// Do runs a workload.
func (r Run) Do(name string) Result {
	for _, w := range workloads {
		if w.name == name {
			return w.run(r)
		}
	}
	return Result{Err: fmt.Errorf("no workload %q; there are %v", name, Workloads())}
}

// FaultNames returns the names of the bugs that can be planted.
func FaultNames() []string {
	var names []string
	for _, f := range faults {
		names = append(names, f.name)
	}
	return names
}

// Plant plants the bug of a name; "" plants none.
func (r *Run) Plant(name string) error {
	if name == "" {
		return nil
	}
	for _, f := range faults {
		if f.name == name {
			r.fault = name
			f.plant(r)
			return nil
		}
	}
	return fmt.Errorf("no fault %q; there are %v", name, FaultNames())
}

// Replay returns the command that repeats the run.
func (r Run) Replay(work string) string {
	fault := ""
	if r.fault != "" {
		fault = " -fault " + r.fault
	}
	return fmt.Sprintf("go run ./cmd/sim -work %s -seed %d%s -v", work, r.Seed, fault)
}

// explain turns a panic into an error.
func explain(p any) error {
	switch x := p.(type) {
	case sim.Abuse:
		return fmt.Errorf("%w\n%s", x, debug.Stack())
	case sim.Stuck:
		return fmt.Errorf("%w\n%s", x, debug.Stack())
	case sim.Crash:
		return fmt.Errorf("a crash that nobody asked for\n%s", debug.Stack())
	}
	return fmt.Errorf("panic: %v\n%s", p, debug.Stack())
}
