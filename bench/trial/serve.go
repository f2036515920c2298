package trial

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/tailbound/tailbound/bench/load"
)

// A Launch says how a system is started that serves Address and keeps its data
// in Dir.
type Launch struct {
	Name    string // in messages
	Address string
	Dir     string   // removed when the server ends
	CPUs    []int    // that it may use; none: all
	Env     []string // NAME=VALUE, beside what this process has
	Command []string
	Ready   func(address string) error // whether it serves; nil: load.Ready
}

// A Server is a system that was started for a measurement.
type Server struct {
	Launch
	ReadySeconds float64 // from the last start of the process to its first answer
	process      *Process
}

// Serve starts a system and waits until it serves.
func Serve(ctx context.Context, l Launch) (*Server, error) {
	s := &Server{Launch: l}
	if err := s.start(ctx); err != nil {
		s.End()
		return nil, err
	}
	return s, nil
}

func (s *Server) start(ctx context.Context) (err error) {
	began := time.Now()
	if s.process, err = Spawn(s.CPUs, s.Env, s.Command[0], s.Command[1:]...); err != nil {
		return err
	}
	err = AwaitReady(ctx, s.Address, s.Ready, s.process)
	s.ReadySeconds = time.Since(began).Seconds()
	if err != nil {
		return fmt.Errorf("%s: %w", s.Name, err)
	}
	return nil
}

// Restart kills the system as kill -9 does, so that what was acknowledged has to
// be in its directory, and starts it again. It gives the new process id.
func (s *Server) Restart(ctx context.Context) (pid int, err error) {
	s.process.Kill()
	err = s.start(ctx)
	return s.process.PID(), err
}

// PID is the process id of the last start.
func (s *Server) PID() int { return s.process.PID() }

// End ends the system and removes its directory.
func (s *Server) End() {
	if s.process != nil {
		s.process.Stop()
	}
	if err := os.RemoveAll(s.Dir); err != nil {
		fmt.Fprintf(os.Stderr, "bench: %v\n", err)
	}
}

// AwaitReady waits until ready (nil: load.Ready) says that address serves. A
// process that has ended never will; nil is one that was not started here.
func AwaitReady(ctx context.Context, address string, ready func(string) error, process *Process) error {
	if ready == nil {
		ready = load.Ready
	}
	for start := time.Now(); ; {
		err := ready(address)
		switch {
		case err == nil:
			return nil
		case process.Exited():
			return fmt.Errorf("it ended: %s", process.LastWords())
		case time.Since(start) > time.Minute:
			return fmt.Errorf("%s does not serve after a minute: %w", address, err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(5 * time.Millisecond):
		}
	}
}
