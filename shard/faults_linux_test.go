package shard

import (
	"encoding/binary"
	"runtime"
	"runtime/debug"
	"testing"

	"golang.org/x/sys/unix"
)

// A data shard's memory becomes resident ahead of its use, on another thread: its own takes
// next to no page faults, neither while it uses memory for the first time nor later.
func TestServingTakesNoPageFaults(t *testing.T) {
	const warmUp, requests = 2_000, 20_000
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	h := newHotShard(t, hotArenaBytes, 64)
	h.arena.Warming()
	asks, done := make(chan bool), make(chan bool)
	defer close(asks)
	go func() {
		h.arena.Populate()
		for range asks {
			h.arena.Warm()
			done <- true
		}
	}()
	warmed := 0
	turn := func() {
		h.turn()
		if h.arena.Asked() {
			warmed++
			asks <- true
			<-done
		}
	}
	produce := produceFrame(8, -1, make([]byte, 1000))
	fetch, at := fetchFrame(11, 500, 1)
	one := func(offset int) {
		for i, frame := range [...][]byte{produce, fetch} {
			h.ring.sent = h.ring.sent[:0]
			binary.BigEndian.PutUint64(fetch[at:], uint64(offset))
			before := h.ring.replies
			h.ring.say(frame)
			for range 200 {
				if turn(); h.ring.replies > before {
					break
				}
			}
			if h.ring.replies != before+1 || i == 1 && len(h.ring.sent) < 1000 {
				t.Fatalf("request %d of offset %d: %d replies, %d bytes", i, offset, h.ring.replies-before, len(h.ring.sent))
			}
		}
	}
	faults := func() int64 {
		var usage unix.Rusage
		if err := unix.Getrusage(unix.RUSAGE_THREAD, &usage); err != nil {
			t.Fatal(err)
		}
		return usage.Minflt
	}
	for i := range warmUp {
		one(i)
	}
	before, warmedBefore, slabs := faults(), warmed, h.s.engine.Stats().Evictions
	for i := range requests {
		one(warmUp + i)
	}
	n := faults() - before
	t.Logf("%d page faults in %d requests; %d times memory was made resident meanwhile", n, 2*requests, warmed-warmedBefore)
	if n > requests/1000 {
		t.Errorf("%d page faults in %d requests", n, 2*requests)
	}
	if warmed == warmedBefore || h.s.engine.Stats().Evictions == slabs {
		t.Errorf("the run did not use memory for the first time (%d), or not all of it (%d slabs evicted)", warmed-warmedBefore, h.s.engine.Stats().Evictions-slabs)
	}
}
