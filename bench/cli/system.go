package cli

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tailbound/tailbound/bench/trial"
)

// A Kind is a way to get a system that can be measured.
type Kind struct {
	Name      string
	Promise   string // what its acknowledgement means, briefly, and behind a colon how
	ReadsBack bool   // what was produced can be read from it
	Wide      bool   // there is NAME-wide too: the same on all cores
	Always    bool   // versus measures it where no systems are named

	// Start gives the command that starts it, and more of its environment. nil: it
	// runs already, and its name has the address behind an @.
	Start func(p Place) (command, env []string, err error)
	// Tailbound's own: its name may have another binary behind an @ and more
	// arguments of serve behind a colon; it can be restarted and profiled.
	Tailbound bool

	// Where it does not speak Kafka's protocol: the command of a process that
	// drives it (trial.Generate), and what says whether it serves. nil: it does.
	Generator func() []string
	Ready     func(address string) error

	Warmup time.Duration // at least; a just-in-time compiler's
	// Beside starts what goes on beside the load; nil: nothing does.
	Beside func(ctx context.Context, address, dir string) (trial.Ending, error)
}

// A Place is where a system is started.
type Place struct {
	Address string
	Dir     string   // its data directory, which it makes
	Cores   []int    // those of the system
	Wide    bool     // the process may use all cores: what must not move has to see to that itself
	Binary  string   // Tailbound's
	Args    []string // Tailbound's, more of serve
}

// A System is one of a kind, as it is named on a command line.
type System struct {
	*Kind
	Name    string // as it was given; where it was given before, with its number: "tailbound #2"
	Binary  string // "": the one that --binary names
	Address string // of one that runs already
	Args    []string
	wide    bool
}

// tailbound is the broker, as a binary.
func tailbound() Kind {
	return Kind{
		Name: "tailbound", Promise: "on disk: written and synced", ReadsBack: true, Wide: true, Tailbound: true, Start: StartTailbound,
	}
}

// StartTailbound is a Kind's Start.
func StartTailbound(p Place) (command, env []string, err error) {
	command = []string{p.Binary, "serve", "--data-dir", p.Dir, "--listen", p.Address, "--shards", strconv.Itoa(len(p.Cores))}
	if p.Wide {
		// The process is not pinned: its shards are, and what is no shard goes where
		// it likes, as in production. On one core both would fight for it.
		command = append(command, "--cpus", joined(p.Cores))
	}
	return append(command, p.Args...), nil, nil
}

// running is a broker that runs already.
func running() Kind {
	return Kind{Name: "broker", Promise: "as it is set", ReadsBack: true}
}

func joined(cores []int) string {
	var words []string
	for _, core := range cores {
		words = append(words, strconv.Itoa(core))
	}
	return strings.Join(words, ",")
}

// Names are the systems that there are, for people.
func (h *Host) Names() string {
	var names []string
	for i := range h.Kinds {
		k := &h.Kinds[i]
		if k.Start == nil {
			names = append(names, k.Name+"@HOST:PORT")
			continue
		}
		if names = append(names, k.Name); k.Wide {
			names = append(names, k.Name+"-wide")
		}
	}
	return strings.Join(names, ", ")
}

// Systems reads a list of systems, separated by commas. One that is named again
// is another system, started of the same binary with the same arguments: what the
// two differ by is chance.
func (h *Host) Systems(list string) (all []System, err error) {
	seen := map[string]int{}
	for _, name := range strings.Split(list, ",") {
		s, err := h.system(name)
		if err != nil {
			return nil, err
		}
		if seen[name]++; seen[name] > 1 {
			s.Name = fmt.Sprintf("%s #%d", name, seen[name])
		}
		all = append(all, s)
	}
	return all, nil
}

// system reads KIND[-wide][@BINARY][:ARGUMENTS], or KIND@HOST:PORT of one that
// runs already.
func (h *Host) system(name string) (s System, err error) {
	s.Name = name
	kindName, rest, _ := strings.Cut(name, "@")
	if s.Kind = h.kind(kindName); s.Kind != nil && s.Kind.Start == nil {
		if s.Address = rest; rest == "" {
			return s, fmt.Errorf("system %q: it is %s@HOST:PORT", name, kindName)
		}
		return s, nil
	}
	kindName, rest, hasArgs := strings.Cut(name, ":")
	kindName, binary, isAt := strings.Cut(kindName, "@")
	s.Binary = binary
	s.Args = strings.Fields(rest)
	if s.Kind = h.kind(kindName); s.Kind == nil {
		narrow, isWide := strings.CutSuffix(kindName, "-wide")
		if s.Kind = h.kind(narrow); s.Kind == nil || !isWide || !s.Wide {
			return s, fmt.Errorf("no system %q: there are %s", name, h.Names())
		}
		s.wide = true
	}
	switch {
	case !s.Tailbound && (isAt || hasArgs):
		return s, fmt.Errorf("system %q: only the broker comes with another binary or more arguments", name)
	case isAt && s.Binary == "":
		return s, fmt.Errorf("system %q: no binary is behind the @", name)
	}
	return s, nil
}

func (h *Host) kind(name string) *Kind {
	i := slices.IndexFunc(h.Kinds, func(k Kind) bool { return k.Name == name })
	if i < 0 {
		return nil
	}
	return &h.Kinds[i]
}

// A Running system is one that serves, with what ends it.
type Running struct {
	trial.System
	Server *trial.Server // nil: it was there before
}

// End ends a system that was started, and removes its directory.
func (r *Running) End() {
	if r.Server != nil {
		r.Server.End()
	}
}

// Start has a system serve, in a new directory below dir, which is removed when
// it ends. env is more of its environment.
func (o *Options) Start(ctx context.Context, s System, dir string, env []string) (*Running, error) {
	r := &Running{System: trial.System{Address: s.Address, Promise: s.Promise}}
	if s.Generator != nil {
		r.Command = s.Generator()
	}
	if s.Kind.Start == nil {
		if err := trial.AwaitReady(ctx, s.Address, s.Ready, nil); err != nil {
			return nil, err
		}
	} else if err := o.launch(ctx, s, dir, env, r); err != nil {
		return nil, err
	}
	if s.Beside != nil {
		r.Beside = func(ctx context.Context) (trial.Ending, error) { return s.Beside(ctx, r.Address, dir) }
	}
	return r, nil
}

// launch starts a system's process.
func (o *Options) launch(ctx context.Context, s System, dir string, env []string, r *Running) error {
	port, err := trial.FreePorts(8)
	if err != nil {
		return err
	}
	if dir, err = os.MkdirTemp(dir, "bench-"); err != nil {
		return err
	}
	data := filepath.Join(dir, "data")
	r.Address = fmt.Sprintf("127.0.0.1:%d", port)
	place := Place{Address: r.Address, Dir: data, Cores: o.ServerCPUs, Wide: s.wide || o.unpinned}
	if s.Tailbound {
		place.Args = append(strings.Fields(o.ServeArgs), s.Args...)
		if place.Binary, err = o.binary(s); err != nil {
			return err
		}
		r.Versions = map[string]string{"broker": versionOf(ctx, place.Binary)}
	}
	command, more, err := s.Kind.Start(place)
	if err != nil {
		return err
	}
	l := trial.Launch{Name: s.Name, Address: r.Address, Dir: dir, CPUs: o.ServerCPUs, Env: append(more, env...), Command: command, Ready: s.Ready}
	if place.Wide {
		l.CPUs = nil
	}
	if r.Server, err = trial.Serve(ctx, l); err != nil {
		return err
	}
	r.PID, r.CPUs, r.ReadySeconds = r.Server.PID(), o.ServerCPUs, r.Server.ReadySeconds
	if s.Tailbound {
		r.Restart = r.Server.Restart
		if o.host.Profile != nil {
			r.Profile = o.host.Profile(data)
		}
	}
	return nil
}

// binary is the file of a broker.
func (o *Options) binary(s System) (path string, err error) {
	if path = cmp.Or(s.Binary, o.Binary); path == "" {
		return os.Executable()
	}
	if _, err := os.Stat(path); err != nil {
		return "", fmt.Errorf("%w: build it first (make build)", err)
	}
	return filepath.Abs(path)
}

// versionOf is what a binary says of itself.
func versionOf(ctx context.Context, binary string) string {
	out, err := exec.CommandContext(ctx, binary, "--version").Output()
	if err != nil {
		return "unknown: " + err.Error()
	}
	return strings.TrimSpace(string(out))
}
