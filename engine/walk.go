package engine

import (
	"slices"

	"github.com/tailbound/tailbound/ioring"
)

// walk takes the runs that the old life wrote past its checkpoint: while epoch,
// chain and base offset continue, in this segment or at the beginning of a later
// one. The first that does not was not acknowledged, unless something says so:
// what follows it is asked.
func (r *recovery) walk(l *found) error {
	defer r.leave()
	k := 0
	for i := range l.segments {
		if l.segments[i].position > 0 {
			k = i
		}
	}
	heads, any := make([]*runHeader, len(l.segments)), l.direct // of first runs
	for k < len(l.segments) {
		// where the writer went on to a later segment it did not come back: it may have left one after a failure
		next := k
		for i := len(l.segments) - 1; i > k && next == k; i-- {
			if heads[i] == nil {
				h, err := r.head(l, &l.segments[i], 0)
				if err != nil {
					return err
				}
				heads[i] = &h
			}
			if r.continues(l, heads[i]) || heads[i].batches > 0 && heads[i].base > l.end && heads[i].base <= l.start {
				next = i
			}
		}
		q := &l.segments[next]
		h, err := r.head(l, q, q.position)
		if err != nil {
			return err
		}
		if next == k && !r.continues(l, &h) {
			break
		}
		there, err := r.visit(q)
		if err != nil || !there {
			return err
		}
		p, err := r.read(r.files+4, q.position, h.bytes())
		if err != nil {
			return err
		}
		if len(p) < h.bytes() || !h.whole(p[pieceHeader:pieceHeader+int(h.bodyBytes)]) && !r.o.Faults.has(StaleRunAccepted) {
			if next == k {
				break
			}
			heads[next] = &runHeader{} // torn
			continue
		}
		k, any = next, true
		r.taken(l, q, &h, p[pieceHeader:pieceHeader+int(h.bodyBytes)])
	}
	for i := k; i < len(l.segments); i++ {
		if err := r.lookOn(l, &l.segments[i], any); err != nil {
			return err
		}
	}
	return nil
}

// continues says that h is the head of the run that follows what l has.
func (r *recovery) continues(l *found, h *runHeader) bool {
	return h.batches > 0 && h.base == l.end && (h.previous == l.chain || r.o.Faults.has(StaleRunAccepted))
}

// taken: the run h lies whole at q's position.
func (r *recovery) taken(l *found, q *segRecord, h *runHeader, body []byte) {
	if q.position == 0 {
		q.base = h.base
	}
	q.position += int64(h.bytes())
	q.end, q.chain, q.bytes = h.end, h.crc, max(q.bytes, r.segBytes&^(blockBytes-1))
	q.maxTime = max(q.maxTime, h.maxTime)
	r.began(l, h.base)
	l.noted = max(l.noted, h.durable)
	l.chain, l.end = h.crc, h.end
	if h.maxTime > l.maxTime || l.maxTimeBase == noOffset {
		l.maxTime, l.maxTimeBase = h.maxTime, h.maxTimeBase
	}
	for len(body) > 0 {
		var x entry
		if !x.get(body) || x.bytes() > len(body) {
			return // StaleRunAccepted
		}
		l.keep(&x, body)
		body = body[x.bytes():]
	}
}

// lookOn notes what runs of the old life behind q's position say was durable.
// As many as may have been in flight can be broken, each as large as it may be.
// A log that wrote no direct run (any is false) and has nothing there is left
// alone: the journal has all of it.
func (r *recovery) lookOn(l *found, q *segRecord, any bool) error {
	if there, err := r.visit(q); err != nil || !there {
		return err
	}
	if p, err := r.read(r.files+4, q.position, blockBytes); err != nil || !any && !slices.ContainsFunc(p, func(b byte) bool { return b != 0 }) {
		return err
	}
	step := int64(r.buf.Len())
	for at, until := q.position, q.position+int64(r.o.InflightMax*r.o.runBufferBytes()); at < min(until, r.segBytes); at += step {
		p, err := r.read(r.files+4, at, int(min(step, until-at)))
		if err != nil {
			return err
		}
		for k := 0; k+blockBytes <= len(p); k += blockBytes {
			var h runHeader
			if h.get(p[k:]) && r.ours(l, q, &h) {
				l.noted = max(l.noted, h.durable)
				until = max(until, at+int64(k+h.bytes()+r.o.InflightMax*r.o.runBufferBytes()))
			}
		}
	}
	return nil
}

// head reads the head of the run at position at of q; no batches: there is none
// of the old life.
func (r *recovery) head(l *found, q *segRecord, at int64) (h runHeader, err error) {
	there, err := r.visit(q)
	if err != nil || !there {
		return runHeader{}, err
	}
	p, err := r.read(r.files+4, at, blockBytes)
	if err != nil {
		return runHeader{}, err
	}
	if len(p) < blockBytes || !h.get(p) || !r.ours(l, q, &h) || at+int64(h.bytes()) > r.segBytes {
		return runHeader{}, nil
	}
	return h, nil
}

func (r *recovery) ours(l *found, q *segRecord, h *runHeader) bool {
	return h.directory == r.old.directory && h.generation == q.generation && h.log == l.id &&
		(h.epoch == r.old.epoch || r.o.Faults.has(StaleRunAccepted))
}

// visit opens q's file, and syncs it at the first time: what can be read of it
// need not be durable. False: it was removed.
func (r *recovery) visit(q *segRecord) (there bool, err error) {
	if r.visited != nil && r.visited.generation == q.generation {
		return true, nil
	}
	r.leave()
	slot, path, bits := r.files+4, segmentPath(q.generation), uint64(0)
	if r.readOnly {
		bits = ioring.OpenReadOnly
	}
	if there, err = r.open(slot, path, bits); err != nil || !there {
		return false, err
	}
	r.visited = q
	if !r.synced[q.generation] && !r.o.Faults.has(NoSyncAtOpen) {
		if err := r.sync(slot, path); err != nil {
			return false, err
		}
		r.synced[q.generation] = true
	}
	r.segBytes, err = r.size(slot)
	return true, err
}

func (r *recovery) leave() {
	if r.visited != nil {
		r.close(r.files + 4)
		r.visited = nil
	}
}
