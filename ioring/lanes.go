package ioring

import "iter"

// Lanes are lines of blocking calls side by side on one ring. While the operation of one is
// under way the others go on, so that many logs are read, written and synced in the time
// of a few, by code that reads as if there were one:
//
//	for every task { await a free lane; begin it there: open(); await; read(); await; ... }
//
// The lanes take turns on the calling thread. Which goes on depends on the order of completions
// alone, so that the same completions give the same operations.
//
// Invariant: a lane has one operation in flight at most.
type Lanes struct {
	ring    Ring
	kind    uint8 // of tokens; the slot is the lane's number
	all     []lane
	ready   []uint32 // lanes that go on now, in this order
	starved []uint32 // those for whose operation the ring had no room
	left    bool     // Each was left, by an end or a panic: no task begins
}

// lane is one line.
type lane struct {
	blocking *Blocking
	pause    func(struct{}) bool // gives the thread to Each; false: Each was left
	resume   func() (struct{}, bool)
	stop     func()
	result   int32 // of its operation
}

// NewLanes makes lanes of Blockings that are on the same ring and have file slots and buffers of
// their own. Outside of Each they are as they were.
func NewLanes(all []*Blocking) *Lanes {
	l := &Lanes{ring: all[0].ring, kind: all[0].kind, all: make([]lane, len(all))}
	for k, blocking := range all {
		l.all[k].blocking = blocking
	}
	return l
}

// Each calls do for the tasks 0 to n - 1, which begin in this order, each in a lane. After an
// error no task begins any more. It returns the error of the first task that has one,
// when all that have begun are at their ends.
func (l *Lanes) Each(n int, do func(lane, task int) error) error {
	next, failed, first := 0, n, error(nil)
	l.left = false
	l.ready, l.starved = l.ready[:0], l.starved[:0]
	defer l.leave()
	for k := range l.all {
		lane := &l.all[k]
		lane.blocking.lanes, lane.blocking.lane = l, uint32(k)
		lane.resume, lane.stop = iter.Pull(func(yield func(struct{}) bool) {
			lane.pause = yield
			for next < n && failed == n && !l.left {
				task := next
				next++
				if err := do(k, task); err != nil && task < failed {
					failed, first = task, err
				}
			}
		})
		l.ready = append(l.ready, uint32(k))
	}
	for running := len(l.all); ; l.await() {
		for _, k := range l.ready {
			if _, more := l.all[k].resume(); !more {
				running--
			}
		}
		l.ready = l.ready[:0]
		if running == 0 {
			return first
		}
	}
}

// await waits until a lane can go on.
func (l *Lanes) await() {
	for len(l.ready) == 0 {
		var out [64]Completion
		n := l.ring.Reap(out[:])
		for i := range out[:n] {
			if out[i].Token.Kind() != l.kind {
				panic("ioring: something else is in flight while the directory is opened")
			}
			k := out[i].Token.Slot()
			l.all[k].result = out[i].Result
			l.ready = append(l.ready, k)
		}
		switch {
		case n > 0:
		case len(l.starved) > 0:
			l.ring.Wait(0)
			l.ready, l.starved = l.starved, l.ready
		default:
			l.ring.Wait(Never)
		}
	}
}

// leave ends all lanes. Those that are in the middle of a task, which a panic has ended, run to
// the end of it: each of their operations fails.
func (l *Lanes) leave() {
	l.left = true
	for k := range l.all {
		if stop := l.all[k].stop; stop != nil {
			stop()
		}
		l.all[k].blocking.lanes, l.all[k].blocking.lane = nil, 0
	}
}

// do executes an operation of a lane, while others go on. ok is false if Each was left.
func (l *Lanes) do(k uint32, op Op) (result int32, ok bool) {
	lane := &l.all[k]
	for !l.ring.Push(op) {
		l.starved = append(l.starved, k)
		if !lane.pause(struct{}{}) {
			return 0, false
		}
	}
	if !lane.pause(struct{}{}) {
		return 0, false
	}
	return lane.result, true
}
