package engine

import (
	"tailbound/ioring"
	"tailbound/mem"
)

// prepares writes zeroes over the segments that logs in direct mode will come
// to. A sync of blocks that were allocated and never written is a commit of the
// file system's own journal: about twice as long, and it waits for whatever else
// that journal does. One write at a time, in a file that nothing else is
// written to yet:
//
//	until prepared { open(); await write(zeroes) }; await sync(); prepared
type prepares struct {
	zeroes   mem.Block
	wanting  [directLogsMax]want // logs with large batches; what they come to is prepared
	wantings int
	prep     prepare
}

// want is a log that had a large batch at at, the last time.
type want struct {
	log Slot
	id  uint64
	at  ioring.Instant
}

// prepare is the write or sync under way.
type prepare struct {
	active  bool
	opened  bool
	pushed  bool
	syncing bool
	segment int32
	n       int
}

const (
	zeroBytes   = 256 << 10
	zeroSync    = 16 << 20 // zeroes are synced after so many bytes
	wantForNS   = 10e9
	wantsLookNS = 100e6
)

func (e *Engine) carvePrepares(a *mem.Arena) (err error) {
	if e.o.PrepareBytes < 0 || e.o.DirectBytes < 0 {
		return nil
	}
	e.zeroes, err = a.Carve("zeroes", zeroBytes, blockBytes)
	clear(e.zeroes.Bytes())
	return err
}

// wants notes that log s has large batches. False: too many others have.
func (e *Engine) wants(s Slot, l *log) bool {
	free := none
	for i := range e.wantings {
		w := &e.wanting[i]
		if w.log == s && w.id == l.id {
			w.at = e.now
			return true
		}
		if w.at+wantForNS < e.now {
			free = int32(i)
		}
	}
	if free == none {
		if e.wantings == len(e.wanting) {
			return false
		}
		free = int32(e.wantings)
		e.wantings++
	} else if w := &e.wanting[free]; e.logs[w.log].id == w.id {
		e.logs[w.log].wanting = false
	}
	e.wanting[free] = want{s, l.id, e.now}
	l.wanting = true
	return true
}

// toPrepare is the segment to write zeroes to next; none. The first PrepareBytes
// are written as fast as one write at a time goes, the rest twice as fast as
// the log fills what it has.
func (e *Engine) toPrepare(sleep *ioring.Instant) int32 {
	for i := 0; i < e.wantings; i++ {
		w := &e.wanting[i]
		l := &e.logs[w.log]
		if l.id != w.id || l.state != logOpen || w.at+wantForNS < e.now {
			l.wanting = l.wanting && l.id != w.id
			e.wantings--
			e.wanting[i] = e.wanting[e.wantings]
			i--
			continue
		}
		if l.filling == none {
			continue
		}
		q := &e.all[l.filling]
		if q.next == none {
			if q.next0 >= q.prepared/4 && !l.working {
				e.wantSegment(w.log, 0)
				earlier(sleep, e.now+wantsLookNS)
			}
			continue
		}
		if x := &e.all[q.next]; x.ready && !x.broken && x.prepared < x.bytes && x.zeroed <= int64(e.o.PrepareBytes)+2*q.next0 {
			return q.next
		}
	}
	return none
}

func (e *Engine) stepPrepares(sleep *ioring.Instant) {
	p := &e.prep
	if !p.active {
		if e.wantings == 0 || e.failed != 0 || e.stopping {
			return
		}
		g := e.toPrepare(sleep)
		if g == none {
			return
		}
		*p = prepare{active: true, segment: g}
		e.all[g].readers++ // it is not removed under us
	}
	if p.pushed {
		return
	}
	q := &e.all[p.segment]
	if !p.opened {
		_, pending, errno := e.acquire(p.segment, false)
		if errno != 0 {
			q.broken = true
			q.readers--
			p.active = false
			return
		}
		if pending {
			if e.ring.Room() < 1 {
				earlier(sleep, e.now)
			}
			return
		}
		p.opened = true
		p.n = int(min(zeroBytes, q.bytes-q.zeroed))
		p.syncing = p.n == 0 || q.zeroed-q.prepared >= zeroSync || q.prepared < int64(e.o.PrepareBytes) && q.zeroed >= int64(e.o.PrepareBytes)
	}
	op := ioring.Op{Code: ioring.Write, File: e.open0 + uint32(q.file), Offset: uint64(q.zeroed), Token: ioring.MakeToken(kindPrepare, 0, 0)}
	if p.syncing {
		op.Code, op.Offset = ioring.Sync, 0
	} else {
		op.Buf = e.zeroes.Slice(0, p.n)
	}
	if p.pushed = e.ring.Push(op); !p.pushed {
		earlier(sleep, e.now)
	}
}

// prepareCompleted: a file that takes no zeroes is not used; its log is given
// another one.
func (e *Engine) prepareCompleted(c ioring.Completion) {
	p := &e.prep
	q := &e.all[p.segment]
	p.pushed = false
	switch {
	case again(c.Result):
		return
	case c.Result < 0:
		q.broken = true
	case p.syncing:
		q.prepared = q.zeroed
		e.changes++
	default:
		q.zeroed += int64(c.Result) &^ (blockBytes - 1)
		e.stats.ZeroBytes += uint64(c.Result)
	}
	e.letGo(p.segment)
	q.readers--
	p.active = false
}

// zeroing says that zeroes are on their way to where the next n bytes of
// segment g would go.
func (e *Engine) zeroing(g int32, n int) bool {
	return e.prep.active && e.prep.pushed && !e.prep.syncing && e.prep.segment == g && e.all[g].next0+int64(n) > e.all[g].zeroed
}

// preparedFor says that the next n bytes of entries of q go where something was
// written before.
func (q *segment) preparedFor(n int) bool {
	return q.next0+(q.pending-q.sent)+q.extra+int64(n)+2*runOverhead <= q.prepared
}
