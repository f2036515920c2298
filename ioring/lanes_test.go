package ioring_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/tailbound/tailbound/ioring"
	"github.com/tailbound/tailbound/mem"
	"github.com/tailbound/tailbound/sim"
)

// lanesOn makes lanes on a ring of the simulator.
func lanesOn(t *testing.T, w *sim.World, disk *sim.Disk, n int, options sim.RingOptions) (*ioring.Lanes, []*ioring.Blocking) {
	t.Helper()
	arena, err := mem.Map(8<<20, mem.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { arena.Unmap() })
	block := func(bytes int) mem.Block {
		b, err := arena.Allocate("test", bytes, mem.BlockBytes)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	options.Files = 8 + 2*n
	first := ioring.NewBlocking(sim.NewRing(w, disk, arena, options), block(64<<10), block(4096), 0x2a, 0)
	all := []*ioring.Blocking{first}
	for k := 1; k < n; k++ {
		all = append(all, first.Beside(block(64<<10), block(4096), uint32(2*k)))
	}
	return ioring.NewLanes(all), all
}

// TestLanes: tasks begin in order, as many as there are lanes are under way, each does what
// it would do alone, and the same world gives the same order.
func TestLanes(t *testing.T) {
	once := func(n int) (order []string, took ioring.Instant, disk *sim.Disk) {
		w := sim.NewWorld(7)
		disk = sim.NewDisk(0)
		began := w.Now
		lanes, all := lanesOn(t, w, disk, n, sim.RingOptions{Depth: 2, ShortWrites: 3, ShortReads: 3, Again: 5})
		err := lanes.Each(20, func(lane, task int) error {
			b := all[lane]
			slot, path := b.First+4, fmt.Sprintf("f%02d", task)
			order = append(order, "begin "+path)
			if _, err := b.Open(slot, path, ioring.OpenCreate); err != nil {
				return err
			}
			defer b.Close(slot)
			for i := range b.Buffer()[:16<<10] {
				b.Buffer()[i] = byte(task + i/4096)
			}
			if err := b.WriteBuffer(slot, 4096, 16<<10); err != nil {
				return err
			}
			if err := b.Sync(slot); err != nil {
				return err
			}
			read, err := b.Read(slot, 4096, 16<<10)
			if err != nil || len(read) != 16<<10 || read[0] != byte(task) || read[12<<10] != byte(task+3) {
				return fmt.Errorf("%s: %d bytes, %v", path, len(read), err)
			}
			order = append(order, "end "+path)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return order, w.Now - began, disk
	}
	order, many, disk := once(5)
	if again, _, _ := once(5); !slices.Equal(order, again) {
		t.Errorf("the same world gave\n%v and\n%v", order, again)
	}
	if _, one, _ := once(1); one < 2*many {
		t.Errorf("20 tasks took %d ns in five lanes, %d in one", many, one)
	}
	var begun []string
	for _, what := range order {
		if path, is := strings.CutPrefix(what, "begin "); is {
			begun = append(begun, path)
		}
	}
	if !slices.IsSorted(begun) || len(begun) != 20 || len(disk.Paths()) != 20 {
		t.Errorf("begun: %v; files: %v", begun, disk.Paths())
	}
	if order[4] != "begin f04" {
		t.Errorf("five did not begin at once: %v", order[:5])
	}
}

// TestLanesEnd: after an error no task begins, those that have begun come to their ends, and
// the first task's error is returned. A panic, which is how the simulator kills a process,
// leaves none running.
func TestLanesEnd(t *testing.T) {
	w, disk := sim.NewWorld(8), sim.NewDisk(0)
	lanes, all := lanesOn(t, w, disk, 3, sim.RingOptions{})
	begun, ended := 0, 0
	task := func(fails int) func(lane, task int) error {
		return func(lane, task int) error {
			begun++
			defer func() { ended++ }()
			b := all[lane]
			for range 4 {
				if _, err := b.Open(b.First+4, fmt.Sprintf("f%d", task), ioring.OpenCreate); err != nil {
					return err
				}
				b.Close(b.First + 4)
			}
			if task >= fails {
				return fmt.Errorf("task %d", task)
			}
			return nil
		}
	}
	if err := lanes.Each(100, task(10)); err == nil || err.Error() != "task 10" {
		t.Errorf("error %v", err)
	}
	if begun != ended || begun < 11 || begun > 13 {
		t.Errorf("%d tasks began, %d ended", begun, ended)
	}
	begun, ended = 0, 0
	w.CrashIn = 20
	func() {
		defer func() {
			if _, crashed := recover().(sim.Crash); !crashed {
				t.Error("no crash")
			}
		}()
		_ = lanes.Each(100, task(100))
	}()
	if begun != ended || begun == 0 {
		t.Errorf("%d tasks began before a crash, %d ended", begun, ended)
	}
	if err := all[0].Sync(4); !errors.As(err, new(*ioring.OpError)) {
		t.Errorf("a Blocking that a crash has left goes on: %v", err)
	}
}
