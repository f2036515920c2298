package recovery

import (
	"slices"

	"github.com/tailbound/tailbound/engine"
	"github.com/tailbound/tailbound/engine/format"
	"github.com/tailbound/tailbound/ioring"
)

// walk takes the runs that the old life wrote past its checkpoint: while epoch,
// chain and base offset continue, in this segment or at the beginning of a later
// one. The first that does not was not acknowledged, unless something says so:
// what follows it is asked.
func (r *recovery) walk(l *found) error {
	defer r.leave()
	k := 0
	for i := range l.Segments {
		if l.Segments[i].Position > 0 {
			k = i
		}
	}
	heads, any := make([]*format.RunHeader, len(l.Segments)), l.Direct // of first runs
	for k < len(l.Segments) {
		// where the writer went on to a later segment it did not come back: it may have left one after a failure
		next := k
		for i := len(l.Segments) - 1; i > k && next == k; i-- {
			if heads[i] == nil {
				h, err := r.head(l, &l.Segments[i], 0)
				if err != nil {
					return err
				}
				heads[i] = &h
			}
			if r.continues(l, heads[i]) || heads[i].Batches > 0 && heads[i].Base > l.End && heads[i].Base <= l.Start {
				next = i
			}
		}
		q := &l.Segments[next]
		h, err := r.head(l, q, q.Position)
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
		p, err := r.Read(r.First+4, q.Position, h.Bytes())
		if err != nil {
			return err
		}
		if len(p) == h.Bytes() {
			if what := h.NewerIn(p[format.HeaderBytes : format.HeaderBytes+int(h.BodyBytes)]); what != "" {
				return newer(r.PathOf(r.First+4), q.Position, what)
			}
		}
		if len(p) < h.Bytes() || !h.Whole(p[format.HeaderBytes:format.HeaderBytes+int(h.BodyBytes)]) && !r.o.Faults.Has(engine.StaleRunAccepted) {
			if next == k {
				break
			}
			heads[next] = &format.RunHeader{} // torn
			continue
		}
		k, any = next, true
		r.taken(l, q, &h, p[format.HeaderBytes:format.HeaderBytes+int(h.BodyBytes)])
	}
	for i := k; i < len(l.Segments); i++ {
		if err := r.lookOn(l, &l.Segments[i], any); err != nil {
			return err
		}
	}
	return nil
}

// continues says that h is the head of the run that follows what l has.
func (r *recovery) continues(l *found, h *format.RunHeader) bool {
	return h.Batches > 0 && h.Base == l.End && (h.Previous == l.Chain || r.o.Faults.Has(engine.StaleRunAccepted))
}

// taken: the run h lies whole at q's position.
func (r *recovery) taken(l *found, q *format.SegmentRecord, h *format.RunHeader, body []byte) {
	if q.Position == 0 {
		q.Base = h.Base
	}
	q.Position += int64(h.Bytes())
	q.End, q.Chain, q.Bytes = h.End, h.CRC, max(q.Bytes, r.segBytes&^(format.BlockBytes-1))
	q.MaxTime = max(q.MaxTime, h.MaxTime)
	r.began(l, h.Base)
	l.noted = max(l.noted, h.Durable)
	l.Chain, l.End = h.CRC, h.End
	if h.MaxTime > l.MaxTime || l.MaxTimeBase == format.NoOffset {
		l.MaxTime, l.MaxTimeBase = h.MaxTime, h.MaxTimeBase
	}
	for len(body) > 0 {
		var x format.Entry
		if !x.Get(body) || x.Bytes() > len(body) {
			return // StaleRunAccepted
		}
		l.keep(&x, body)
		body = body[x.Bytes():]
	}
}

// lookOn notes what runs of the old life behind q's position say was durable.
// As many as may have been in flight can be broken, each as large as it may be.
// A log that wrote no direct run (any is false) and has nothing there is left
// alone: the journal has all of it.
func (r *recovery) lookOn(l *found, q *format.SegmentRecord, any bool) error {
	if there, err := r.visit(q); err != nil || !there {
		return err
	}
	if p, err := r.Read(r.First+4, q.Position, format.BlockBytes); err != nil || !any && !slices.ContainsFunc(p, func(b byte) bool { return b != 0 }) {
		return err
	}
	const step = bufferBytes
	for at, until := q.Position, q.Position+int64(r.o.InflightMax*r.o.RunBufferBytes()); at < min(until, r.segBytes); at += step {
		p, err := r.Read(r.First+4, at, int(min(step, until-at)))
		if err != nil {
			return err
		}
		for k := 0; k+format.BlockBytes <= len(p); k += format.BlockBytes {
			var h format.RunHeader
			if what, ok := h.Parse(p[k:]); ok && r.ours(l, q, &h) {
				if what != "" {
					return newer(r.PathOf(r.First+4), at+int64(k), what)
				}
				l.noted = max(l.noted, h.Durable)
				until = max(until, at+int64(k+h.Bytes()+r.o.InflightMax*r.o.RunBufferBytes()))
			}
		}
	}
	return nil
}

// head reads the head of the run at position at of q; no batches: there is none
// of the old life. One of the old life that needs what is not served is refused.
func (r *recovery) head(l *found, q *format.SegmentRecord, at int64) (h format.RunHeader, err error) {
	there, err := r.visit(q)
	if err != nil || !there {
		return format.RunHeader{}, err
	}
	p, err := r.Read(r.First+4, at, format.BlockBytes)
	if err != nil {
		return format.RunHeader{}, err
	}
	if len(p) < format.BlockBytes {
		return format.RunHeader{}, nil
	}
	what, ok := h.Parse(p)
	if !ok || !r.ours(l, q, &h) {
		return format.RunHeader{}, nil
	}
	if what != "" {
		return h, newer(r.PathOf(r.First+4), at, what)
	}
	if at+int64(h.Bytes()) > r.segBytes {
		return format.RunHeader{}, nil
	}
	return h, nil
}

func (r *recovery) ours(l *found, q *format.SegmentRecord, h *format.RunHeader) bool {
	return h.Directory == r.old.Directory && h.Generation == q.Generation && h.Log == l.ID &&
		(h.Epoch == r.old.Epoch || r.o.Faults.Has(engine.StaleRunAccepted))
}

// visit opens q's file, and syncs it at the first time: what can be read of it
// need not be durable. False: it was removed.
func (r *recovery) visit(q *format.SegmentRecord) (there bool, err error) {
	if r.visited != nil && r.visited.Generation == q.Generation {
		return true, nil
	}
	r.leave()
	slot, path, bits := r.First+4, format.SegmentPath(q.Generation), uint64(0)
	if r.readOnly {
		bits = ioring.OpenReadOnly
	}
	if there, err = r.Open(slot, path, bits); err != nil || !there {
		return false, err
	}
	r.visited = q
	if !r.synced[q.Generation] && !r.o.Faults.Has(engine.NoSyncAtOpen) {
		if err := r.Sync(slot); err != nil {
			return false, err
		}
		r.synced[q.Generation] = true
	}
	r.segBytes, err = r.Size(slot)
	return true, err
}

func (r *recovery) leave() {
	if r.visited != nil {
		r.Close(r.First + 4)
		r.visited = nil
	}
}
