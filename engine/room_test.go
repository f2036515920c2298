package engine_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tailbound/tailbound/engine"
	"github.com/tailbound/tailbound/ioring"
)

// A directory is opened on a disk that was filled to the last byte and the last file, wherever a crash
// left it: what was acknowledged had its room from the beginning. Nothing of it is lost.
func TestOpensOnAFullDisk(t *testing.T) {
	first, last := uint64(40), uint64(47) // 43 finds a start that fills no segment to its end
	if os.Getenv("TAILBOUND_TESTS") == "long" {
		first, last = 1, 100
	}
	for seed := first; seed <= last; seed++ {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { fillAndCrash(t, seed) })
	}
}

func fillAndCrash(t *testing.T, seed uint64) {
	h := newHost(t, seed)
	r := rand.New(rand.NewPCG(seed, 7))
	if r.IntN(2) == 0 {
		h.o.DirectBytes = 64 << 10
	}
	h.o.SegmentBytes = 1 << 20 << r.IntN(2)
	h.o.JournalBytes, h.o.LogMemoryBytes = 16<<20, 16<<20
	if err := h.open(); err != nil {
		t.Fatal(err)
	}
	logs := []uint64{2, 3, 4}
	for _, id := range logs {
		if err := h.openLog(id); err != nil {
			t.Fatal(err)
		}
	}
	for life := range 3 {
		h.disk.Capacity = h.disk.Used() + r.Int64N(12<<20)
		h.disk.Inodes = h.disk.Files() + r.IntN(12)
		// In half of the lives one log is written to at once, so that its newest records are in
		// the room of one segment and of the next, and in neither file.
		burst, left := h.o.DirectBytes < 0 && r.IntN(2) == 0, 1<<20+r.IntN(5<<20)
		h.disk.Fail = func(code ioring.Code, path string, _ uint64, _ int) int32 {
			if burst && code == ioring.Write && strings.HasPrefix(path, "segments/") {
				return -int32(unix.EAGAIN)
			}
			return 0
		}
		for refused := 0; refused < 3 && left > 0; {
			id := logs[r.IntN(len(logs))]
			if burst {
				id = logs[0]
			}
			size := 100 + r.IntN(2000)
			if burst || r.IntN(3) == 0 {
				size = 100 + r.IntN(256<<10-100)
			}
			n := 1 + r.IntN(40)
			for range n {
				st, err := h.append(id, size, 1+uint32(r.IntN(20)))
				if burst && st == engine.WaitRoom {
					left = 0 // the next segment is full too
					break
				}
				if err != nil {
					t.Fatal(err)
				}
				if burst {
					left -= size
				}
				if st == engine.NoSpace || left <= 0 {
					refused++
					break
				}
				if st != engine.OK {
					t.Fatal(name(st))
				}
			}
			switch r.IntN(30) {
			case 0:
				h.rest(int64(r.IntN(2e9)))
			case 1:
				n, s, _ := h.slot(id)
				n.engine.TruncateBefore(s, n.engine.Start(s)+r.Int64N(n.engine.Durable(s)-n.engine.Start(s)+1), 0)
			}
		}
		if r.IntN(2) == 0 {
			h.rest(int64(r.IntN(50e6)))
		}
		durable := map[uint64]int64{}
		for _, id := range logs {
			n, s, _ := h.slot(id)
			durable[id] = n.engine.Durable(s)
		}
		h.end()
		h.disk.Fail = nil
		switch r.IntN(3) {
		case 0:
			h.disk.Kill(r)
		case 1:
			h.disk.PowerCut(mood("some", seed))
		case 2:
			h.disk.PowerCut(mood("none", seed))
		}
		h.disk.Capacity, h.disk.Inodes = max(h.disk.Used(), 1), h.disk.Files()
		if err := h.open(); err != nil {
			t.Fatalf("life %d: opening on a full disk: %v", life, err)
		}
		for _, id := range logs {
			n, s, err := h.slot(id)
			if err != nil {
				t.Fatal(err)
			}
			if n.engine.End(s) < durable[id] {
				t.Fatalf("log %d ends at %d, and %d was acknowledged", id, n.engine.End(s), durable[id])
			}
			if _, to, _, why := h.readAll(id); why != "" || to < durable[id] {
				t.Fatalf("log %d: read to %d of %d: %s", id, to, durable[id], why)
			}
		}
	}
}
