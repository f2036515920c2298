package datadir

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/tailbound/tailbound/broker"
	"github.com/tailbound/tailbound/cmd/tailbound/term"
	"github.com/tailbound/tailbound/engine/format"
	"github.com/tailbound/tailbound/engine/recovery"
	"github.com/tailbound/tailbound/ioring"
	"github.com/tailbound/tailbound/mem"
	"github.com/tailbound/tailbound/shard/control"
)

// notLookedAt is the end of check and repair if nothing can be said of the directory.
func notLookedAt(err error) error {
	fmt.Fprintln(os.Stderr, "tailbound: "+err.Error())
	return term.ExitStatus(2)
}

// offline is a data directory that no broker serves, held by this process, with what
// the engine needs to read it. Its methods run on the thread that opened it.
type offline struct {
	dir    string
	held   *held
	root   int
	arena  *mem.Arena
	ring   *ioring.Kernel
	topics *control.Catalog // the names of logs; complete after check
}

func openOffline(dir string) (*offline, error) {
	if _, err := os.Stat(filepath.Join(dir, "superblock")); err != nil {
		return nil, fmt.Errorf("%s is no data directory of Tailbound; give the --data-dir that the broker is served with (%w)", dir, err)
	}
	held, _, err := lock(dir) // a note is for who serves
	if err != nil {
		return nil, err
	}
	d := &offline{dir: dir, held: held, root: -1, topics: control.NewCatalog()}
	if d.root, err = unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err != nil {
		d.close()
		return nil, err
	}
	_, direct := ioring.DirectIO(d.root)
	runtime.LockOSThread()
	if d.arena, err = mem.Map(broker.CheckArenaBytes, mem.Options{}); err == nil {
		d.ring, err = ioring.NewKernel(ioring.KernelOptions{Entries: 64, CQEntries: 256, Files: broker.CheckFiles, Sockets: 1, RootFD: d.root, Features: ioring.AllFeatures, Buffered: direct != nil})
	}
	if err != nil {
		d.close()
		return nil, err
	}
	return d, nil
}

func (d *offline) close() {
	if d.ring != nil {
		d.ring.Close()
	}
	if d.arena != nil {
		d.arena.Unmap()
	}
	if d.root >= 0 {
		unix.Close(d.root)
	}
	d.held.Close()
}

// check reads and verifies everything.
func (d *offline) check() (*recovery.CheckReport, error) {
	options := broker.CheckOptions()
	bar := term.NewProgress(os.Stderr, "reading")
	defer bar.End()
	options.Each, options.Sound, options.Progress = d.topics.Take, control.SoundBatch, bar.At
	return recovery.Check(d.ring, d.arena, options)
}

// name is the name of a log for people: TOPIC/PARTITION, or log:ID without a topic.
func (d *offline) name(log uint64) string {
	if log == format.ControlLogID {
		return "(control)"
	}
	if topic, partition, ok := d.topics.Owner(log); ok {
		return fmt.Sprintf("%s/%d", topic, partition)
	}
	return fmt.Sprintf("log:%d", log)
}
