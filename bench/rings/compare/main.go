package main

import (
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"runtime"
	"slices"
	"text/tabwriter"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tailbound/tailbound/bench/record"
)

// An engine does one operation at a time on its locked thread. Each has a file
// that was written before, opened for direct I/O, and a connection.
type engine interface {
	nop() error
	write(bytes int, offset int64) error
	writeSync(bytes int, offset int64) error // and fdatasync
	echo() error                             // receives a message and sends it back
	calls() uint64                           // system calls so far
	close()
}

var errCannot = errors.New("it cannot")

const (
	fileBytes    = 16 << 20
	writeMax     = 128 << 10
	messageBytes = 64
)

type operation struct {
	name  string
	do    func(e engine, i int) error
	count int
}

var operations = []operation{
	{"NOP", func(e engine, _ int) error { return e.nop() }, 50_000},
	{"4k direct write", func(e engine, i int) error { return e.write(4096, int64(i)*4096%fileBytes) }, 4000},
	{"128k direct write", func(e engine, i int) error { return e.write(writeMax, int64(i)*writeMax%fileBytes) }, 1000},
	{"4k write + fdatasync", func(e engine, i int) error { return e.writeSync(4096, int64(i)*4096%fileBytes) }, 2000},
	{"echo of 64 B", func(e engine, _ int) error { return e.echo() }, 20_000},
}

// A maker makes an engine over a file in dir, and over what it accepts.
type maker struct {
	name string
	make func(dir string, listener *net.TCPListener) (engine, error)
}

// row is what an engine did of one operation, pooled over the rounds.
type row struct {
	took                     *record.Histogram
	n                        int
	allocs, calls, voluntary float64
	failed                   error
}

func main() {
	rounds := flag.Int("rounds", 3, "rounds; the order of the engines turns")
	share := flag.Float64("share", 1, "of each operation's count")
	dir := flag.String("dir", "tmp", "a directory on a real disk")
	flag.Parse()
	if err := run(*dir, *rounds, *share); err != nil {
		fmt.Fprintln(os.Stderr, "rings:", err)
		os.Exit(1)
	}
}

func run(dir string, rounds int, share float64) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	dir, err := os.MkdirTemp(dir, "rings-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	fmt.Println(record.Describe(dir).Lines())
	rows := map[string]*row{}
	for round := range rounds {
		order := slices.Clone(makers)
		if round%2 == 1 {
			slices.Reverse(order)
		}
		for _, m := range order {
			// A thread of its own, which ends with the engine and its affinity.
			done := make(chan error)
			go func() {
				runtime.LockOSThread()
				done <- measure(m, dir, share, rows)
			}()
			if err := <-done; err != nil {
				return fmt.Errorf("%s: %w", m.name, err)
			}
		}
	}
	t := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "\t\tp50 us\tp99 us\tallocations\tsystem calls\tswitches\t")
	for _, o := range operations {
		for _, m := range makers {
			r := rows[o.name+m.name]
			if r.failed != nil {
				fmt.Fprintf(t, "%s\t%s\t%v\t\t\t\t\t\n", o.name, m.name, r.failed)
				continue
			}
			n := float64(r.n)
			fmt.Fprintf(t, "%s\t%s\t%.2f\t%.2f\t%.2f\t%.2f\t%.3f\t\n", o.name, m.name, float64(r.took.At(50))/1e3, float64(r.took.At(99))/1e3, r.allocs/n, r.calls/n, r.voluntary/n)
		}
	}
	return t.Flush()
}

func measure(m maker, dir string, share float64, rows map[string]*row) error {
	pin(0)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer ln.Close()
	stop, err := client(ln.Addr().(*net.TCPAddr))
	if err != nil {
		return err
	}
	e, err := m.make(dir, ln.(*net.TCPListener))
	if err != nil {
		stop()
		return err
	}
	defer e.close()
	defer stop()
	for _, o := range operations {
		r := rows[o.name+m.name]
		if r == nil {
			r = &row{took: record.NewHistogram()}
			rows[o.name+m.name] = r
		}
		if r.failed = one(e, o, max(int(float64(o.count)*share), 10), r); r.failed != nil && !errors.Is(r.failed, errCannot) {
			return fmt.Errorf("%s: %w", o.name, r.failed)
		}
	}
	return nil
}

func one(e engine, o operation, n int, r *row) error {
	for i := range max(n/20, 5) {
		if err := o.do(e, i); err != nil {
			return err
		}
	}
	var before, after runtime.MemStats
	var used, now unix.Rusage
	runtime.ReadMemStats(&before)
	_ = unix.Getrusage(unix.RUSAGE_THREAD, &used)
	calls := e.calls()
	origin := time.Now()
	last := time.Duration(0)
	for i := range n {
		if err := o.do(e, i); err != nil {
			return err
		}
		at := time.Since(origin)
		r.took.Record(int64(at - last))
		last = at
	}
	r.calls += float64(e.calls() - calls)
	_ = unix.Getrusage(unix.RUSAGE_THREAD, &now)
	runtime.ReadMemStats(&after)
	r.n += n
	r.allocs += float64(after.Mallocs - before.Mallocs)
	r.voluntary += float64(now.Nvcsw + now.Nivcsw - used.Nvcsw - used.Nivcsw)
	return nil
}

// client sends a message and waits for it to come back, for ever, on the last
// core. stop has it end.
func client(addr *net.TCPAddr) (stop func(), err error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	if err := unix.Connect(fd, &unix.SockaddrInet4{Port: addr.Port, Addr: [4]byte(addr.IP.To4())}); err != nil {
		return nil, err
	}
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		runtime.LockOSThread()
		pin(runtime.NumCPU() - 1)
		b := make([]byte, messageBytes)
		for {
			if _, err := unix.Write(fd, b); err != nil {
				return
			}
			for got := 0; got < len(b); {
				n, err := unix.Read(fd, b[got:])
				if n <= 0 || err != nil {
					return
				}
				got += n
			}
		}
	}()
	return func() {
		_ = unix.Shutdown(fd, unix.SHUT_RDWR)
		<-ended
		_ = unix.Close(fd)
	}, nil
}

func pin(cpu int) {
	var one unix.CPUSet
	one.Set(cpu)
	_ = unix.SchedSetaffinity(0, &one) // where it may not, it runs anywhere
}

// openFile makes the file and writes all of it, so that no later write changes
// anything but data.
func openFile(path string) (int, error) {
	fd, err := unix.Open(path, unix.O_CREAT|unix.O_RDWR|unix.O_DIRECT|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return 0, err
	}
	b, err := pages(1 << 20)
	if err != nil {
		return 0, err
	}
	defer unix.Munmap(b)
	for at := 0; at < fileBytes; at += len(b) {
		if _, err := unix.Pwrite(fd, b, int64(at)); err != nil {
			return 0, err
		}
	}
	return fd, unix.Fdatasync(fd)
}

func pages(n int) ([]byte, error) {
	return unix.Mmap(-1, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
}

// accept is the blocking call, for rings without an accept of their own.
func accept(ln *net.TCPListener) (int, error) {
	c, err := ln.Accept()
	if err != nil {
		return 0, err
	}
	defer c.Close()
	f, err := c.(*net.TCPConn).File()
	if err != nil {
		return 0, err
	}
	defer f.Close()
	fd, err := unix.Dup(int(f.Fd())) // blocking from here on
	if err != nil {
		return 0, err
	}
	return fd, unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
}

var errWhole = errors.New("it did not do all of it")
