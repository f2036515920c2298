package main

import (
	"math"
	"runtime"
	"runtime/debug"
	rtm "runtime/metrics"
)

// heapRoomMin is how far Go's heap grows above what is live before it is collected, at
// least; otherwise by as much as is live. Less would be collected more often, and each
// collection stops the data shards' threads twice, for some ten microseconds.
const heapRoomMin = 64 << 20

// followHeap has Go's heap collected by a memory limit that follows what is live: the limit
// is set anew at the end of each collection, as the function
//
//	for { await a collection's end; limit = what is not heap + live + max(heapRoomMin, live) }
//
// A limit that stays where it was set at the start is either far above what the
// broker needs or, once that much is live, reached all the time. GOGC alone has no least
// room: a small heap would be collected again and again. Data shards make no garbage.
func followHeap() {
	debug.SetGCPercent(-1)
	setHeapLimit()
	awaitCollection()
}

// collected is garbage at once. Its finalizer runs at the end of the next collection.
type collected struct{ _ [16]byte } // not so small that it shares its memory with what is live

func awaitCollection() {
	runtime.SetFinalizer(new(collected), func(*collected) {
		setHeapLimit()
		awaitCollection()
	})
}

// heapLimitStep is the least change of the limit that is made.
const heapLimitStep = 1 << 20

func setHeapLimit() {
	limit := heapLimit(readHeap())
	if now := debug.SetMemoryLimit(-1); limit-now >= heapLimitStep || now-limit >= heapLimitStep {
		debug.SetMemoryLimit(limit)
	}
}

// heapUse is what Go's runtime has mapped, in bytes.
type heapUse struct {
	all      uint64
	released uint64 // of it, given back to the system
	free     uint64 // of the heap, not given back
	objects  uint64 // of the heap, live or not yet swept
	live     uint64 // what the last collection found to be live
}

func readHeap() (u heapUse) {
	samples := []rtm.Sample{{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"}, {Name: "/memory/classes/heap/free:bytes"},
		{Name: "/memory/classes/heap/objects:bytes"}, {Name: "/gc/heap/live:bytes"}}
	rtm.Read(samples)
	for i, to := range []*uint64{&u.all, &u.released, &u.free, &u.objects, &u.live} {
		*to = samples[i].Value.Uint64()
	}
	return u
}

// heapLimit is the limit for what is used. The runtime counts against it all that it has
// mapped and not given back, so what is not heap, and holes in the heap, come on top.
func heapLimit(u heapUse) int64 {
	besides := u.all - min(u.all, u.released+u.free+u.objects)
	return int64(min(besides+u.live+max(heapRoomMin, u.live), math.MaxInt64))
}
