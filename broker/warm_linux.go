package broker

import "github.com/tailbound/tailbound/mem"

// warmer makes a data shard's memory resident ahead of its use. Populating a huge page takes
// a data shard's thread a hundred microseconds and more; the warmer's goroutine spends them
// instead, on another thread. Where it comes too late, as on a machine that gives it no CPU,
// the shard's thread takes the fault itself, one page at a time.
type warmer struct {
	arena *mem.Arena
	due   chan struct{} // nil: nothing is warmed
}

// newWarmer populates what a shard begins with, and starts the goroutine that populates the
// rest as it is asked for.
func newWarmer(arena *mem.Arena, data bool) *warmer {
	w := &warmer{arena: arena}
	if !data {
		return w
	}
	arena.Warming()
	w.due = make(chan struct{}, 1)
	go func() {
		arena.Populate()
		for range w.due {
			arena.Warm()
		}
	}()
	return w
}

// look has what was asked for in the last turn warmed. The shard's thread calls it.
func (w *warmer) look() {
	if !w.arena.Asked() || w.due == nil {
		return
	}
	select {
	case w.due <- struct{}{}:
	default: // it is awake and has not looked yet, or looks again
	}
}

// close ends the goroutine.
func (w *warmer) close() {
	if w.due != nil {
		close(w.due)
	}
}
