package cli

import (
	"context"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/tailbound/tailbound/bench/trial"
)

// touch has as much memory backed by the host as a phase may write through the
// page cache, and 512 MiB for the rest.
func (m *measuring) touch(ctx context.Context, p *trial.Plan) error {
	bytesPerSecond := p.Rate * float64(p.Records*(p.RecordBytes+100))
	if p.Saturate {
		bytesPerSecond = 1.5e9 // more than the systems beside Tailbound were seen to do
	}
	mib := min(m.touchMiB, 512+int(bytesPerSecond*(p.Warmup+p.Duration).Seconds())>>20)
	if mib = min(mib, availableMiB()-2048); mib <= 0 {
		return nil
	}
	child, err := m.spawn(nil, "touch", strconv.Itoa(mib))
	if err != nil {
		return err
	}
	defer child.Kill()
	return child.Await(ctx, time.Minute)
}

// touchCommand takes memory, writes to all of it and ends. A virtual machine's
// first touch of a page costs a fault in the host (two thirds of the plain
// server's time at saturation, half of its throughput, in November 2026), and a
// machine that reports free pages gives them back when they lie idle. Without this
// a system that writes through the page cache would be measured paying the host;
// one that takes its memory at its start would not.
func touchCommand() *cobra.Command {
	return &cobra.Command{
		Use: "touch MIB", Hidden: true, Args: cobra.ExactArgs(1), Short: "What bench starts to have memory backed by the host",
		RunE: func(_ *cobra.Command, args []string) error {
			mib, err := strconv.Atoi(args[0])
			if err != nil {
				return err
			}
			b, err := unix.Mmap(-1, 0, mib<<20, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
			if err != nil {
				return err
			}
			_ = unix.Madvise(b, unix.MADV_HUGEPAGE) // only to be quicker
			return unix.Madvise(b, unix.MADV_POPULATE_WRITE)
		},
	}
}

// startHog starts one on the generator's core, which no system has.
func (m *measuring) startHog() (end func(), err error) {
	child, err := m.spawn([]string{"GOMAXPROCS=1"}, "hog")
	if err != nil {
		return nil, err
	}
	return child.Kill, nil
}

// hogCommand takes a core for ever, as something that computes does. It is a
// little less urgent than the generator, which may have no other core: without
// that the figures would be the generator's.
func hogCommand() *cobra.Command {
	return &cobra.Command{
		Use: "hog", Hidden: true, Args: cobra.NoArgs, Short: "What bench starts to take a core",
		Run: func(*cobra.Command, []string) {
			_ = unix.Setpriority(unix.PRIO_PROCESS, 0, 10) // less urgent is always allowed
			for n := uint64(1); ; n = n*6364136223846793005 + 1 {
				if n == 0 {
					return
				}
			}
		},
	}
}

// spawn starts a helper of this program on the generator's cores.
func (m *measuring) spawn(env []string, helper ...string) (*trial.Process, error) {
	command, err := self(m.cmd, helper...)
	if err != nil {
		return nil, err
	}
	return trial.Spawn(m.LoadCPUs, env, command[0], command[1:]...)
}

// availableMiB reads how much memory can be taken without hurting anything.
func availableMiB() int {
	b, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0
	}
	_, after, _ := strings.Cut(string(b), "MemAvailable:")
	fields := strings.Fields(after)
	if len(fields) == 0 {
		return 0
	}
	kib, _ := strconv.Atoi(fields[0])
	return kib / 1024
}
