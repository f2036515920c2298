package trial

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/tailbound/tailbound/bench/load"
)

// message is a line that a generating process says.
type message struct {
	Ready    bool           `json:",omitempty"`
	Interval *load.Interval `json:",omitempty"`
	Result   *load.Result   `json:",omitempty"`
}

// A Drive puts a load on a system: load.Run, or what speaks another protocol.
type Drive func(load.Options, load.Hooks) (*load.Result, error)

// Generate is a generating process: it reads its load as a line of JSON, says
// when it is ready, reads the instant to begin at, and says what it saw.
func Generate(in io.Reader, out io.Writer, drive Drive) error {
	lines := bufio.NewReader(in)
	first, err := lines.ReadBytes('\n')
	if err != nil {
		return fmt.Errorf("reading the load: %w", err)
	}
	var o load.Options
	if err := json.Unmarshal(first, &o); err != nil {
		return err
	}
	say := json.NewEncoder(out)
	r, err := drive(o, load.Hooks{
		Ready: func() (int64, error) {
			if err := say.Encode(message{Ready: true}); err != nil {
				return 0, err
			}
			line, err := lines.ReadString('\n')
			if err != nil {
				return 0, fmt.Errorf("waiting for the start: %w", err)
			}
			return strconv.ParseInt(strings.TrimSpace(line), 10, 64)
		},
		// An error here is a reader that has gone: the result meets it too.
		Interval: func(i load.Interval) { _ = say.Encode(message{Interval: &i}) },
	})
	if err != nil {
		return err
	}
	return say.Encode(message{Result: r})
}

// said is a message of process number from, or its end.
type said struct {
	from int
	message
	err error
}

// generators are the processes that make one load.
type generators struct {
	all   []*Process
	lines chan said
	open  sync.WaitGroup // the listeners that send to lines
}

// startGenerators starts the processes and has them connect.
func startGenerators(ctx context.Context, command []string, cpus []int, loads []load.Options) (*generators, error) {
	c := &generators{lines: make(chan said, 64)}
	for i, o := range loads {
		text, err := json.Marshal(o)
		if err != nil {
			return nil, err
		}
		var where []int
		if len(cpus) > 0 {
			where = cpus[i%len(cpus) : i%len(cpus)+1]
		}
		p, err := spawn(where, true, []string{"GOMAXPROCS=2"}, command[0], command[1:]...)
		if err != nil {
			c.kill()
			return nil, err
		}
		c.all = append(c.all, p)
		if _, err := p.In.Write(append(text, '\n')); err != nil {
			c.kill()
			return nil, err
		}
		c.open.Go(func() { c.listen(i, p) })
	}
	for ready := 0; ready < len(c.all); {
		select {
		case s := <-c.lines:
			if s.err != nil || !s.Ready {
				c.kill()
				return nil, fmt.Errorf("the load generator: %w", s.err)
			}
			ready++
		case <-ctx.Done():
			c.kill()
			return nil, ctx.Err()
		case <-time.After(60 * time.Second):
			c.kill()
			return nil, errors.New("the load generator has not connected within a minute")
		}
	}
	return c, nil
}

// listen passes on what a process says; the last is its end.
func (c *generators) listen(i int, p *Process) {
	dec := json.NewDecoder(bufio.NewReaderSize(p.Out, 1<<20))
	for {
		s := said{from: i}
		if s.err = dec.Decode(&s.message); s.err != nil {
			p.wait()
			if p.err != nil {
				s.err = fmt.Errorf("%w: %s", p.err, p.LastWords())
			}
			c.lines <- s
			return
		}
		c.lines <- s
	}
}

// begin tells all when to begin.
func (c *generators) begin(at int64) error {
	for _, p := range c.all {
		if _, err := fmt.Fprintln(p.In, at); err != nil {
			return err
		}
	}
	return nil
}

func (c *generators) kill() {
	for _, p := range c.all {
		_ = p.cmd.Process.Kill()
	}
	go func() {
		c.open.Wait()
		close(c.lines)
	}()
	go func() {
		for range c.lines { // what is still said is dropped
		}
	}()
}
