package ioring

import (
	"fmt"
	"hash/maphash"
	"slices"

	"github.com/tailbound/tailbound/mem"
)

// AuditOptions are what an Audit checks.
type AuditOptions struct {
	Arena        *mem.Arena        // where every Buf must lie; nil: anywhere
	Alignment    int               // of memory, offset and length of Read and Write, in bytes; 0: any
	UniqueTokens bool              // a token must not be pushed again while it is in flight
	OnSend       func(op Op)       // called for each Send that was pushed; may be nil
	Fail         func(what string) // called at each finding; nil: panic
}

// Audit is a Ring for tests: it passes operations on to another Ring, and checks that the
// caller keeps the rules. It allocates, and hashes all lent memory.
//
// Without UniqueTokens, operations that share a token are expected to complete in the order
// in which they were pushed.
type Audit struct {
	ring     Ring
	o        AuditOptions
	seed     maphash.Seed
	inFlight map[Token][]lentOp
	files    map[uint32][]*written
	last     *written // the write whose link waits for the next op
}

// lentOp is an operation in flight, with the hash of the memory that it lends.
type lentOp struct {
	op     Op
	hash   uint64
	write  *written   // of a Write
	covers []*written // of a Sync: what it makes durable when it succeeds
	linked *written   // of a Sync: the write before it in its link
}

// written is the range [off, end) of a file, which is not known to be durable.
type written struct {
	off, end uint64
	done     bool // its write has completed; false for what a short write left out
}

// NewAudit wraps ring.
func NewAudit(ring Ring, options AuditOptions) *Audit {
	return &Audit{ring: ring, o: options, seed: maphash.MakeSeed(), inFlight: map[Token][]lentOp{}, files: map[uint32][]*written{}}
}

// Push checks an operation and pushes it.
func (a *Audit) Push(op Op) bool {
	a.check(op)
	lent := lentOp{op: op, hash: a.hash(op)}
	if !a.ring.Push(op) {
		return false
	}
	linked := a.last
	a.last = nil
	switch op.Code {
	case Provide:
		return true
	case Write:
		lent.write = &written{off: op.Offset, end: op.Offset + uint64(op.Buf.Len())}
		a.files[op.File] = slices.DeleteFunc(a.files[op.File], func(write *written) bool {
			return write.off >= lent.write.off && write.end <= lent.write.end
		})
		a.files[op.File] = append(a.files[op.File], lent.write)
		if op.Flags&FlagLink != 0 {
			a.last = lent.write
		}
	case Sync:
		lent.linked = linked
		for _, write := range a.files[op.File] {
			if write.done {
				lent.covers = append(lent.covers, write)
			}
		}
	case Send:
		if a.o.OnSend != nil {
			a.o.OnSend(op)
		}
	}
	a.inFlight[op.Token] = append(a.inFlight[op.Token], lent)
	return true
}

// Room is that of the ring.
func (a *Audit) Room() int { return a.ring.Room() }

// Wait is that of the ring.
func (a *Audit) Wait(until Instant) { a.ring.Wait(until) }

// Reap reaps completions and checks them.
func (a *Audit) Reap(out []Completion) int {
	n := a.ring.Reap(out)
	for _, completion := range out[:n] {
		a.complete(completion)
	}
	return n
}

// Unsynced reports whether any of so many bytes from off on, of the file in a slot, was written
// and is not made durable by a successful Sync that was pushed after the write completed or
// was linked to it.
func (a *Audit) Unsynced(file uint32, off, bytes uint64) bool {
	return slices.ContainsFunc(a.files[file], func(write *written) bool { return write.off < off+bytes && off < write.end })
}

// check is the checks at a push.
func (a *Audit) check(op Op) {
	if a.o.UniqueTokens && op.Code != Provide && len(a.inFlight[op.Token]) > 0 {
		a.fail("token %x is pushed again while in flight", uint64(op.Token))
	}
	if op.Buf.IsZero() {
		if op.Code == Read || op.Code == Write || op.Code == Send || op.Code == Provide {
			a.fail("op of code %d without memory", op.Code)
		}
	} else if a.o.Arena != nil && !a.o.Arena.Contains(op.Buf) {
		a.fail("op of code %d with memory that is not the arena's", op.Code)
	}
	if bytes := uint64(a.o.Alignment); bytes > 0 && (op.Code == Read || op.Code == Write) {
		if op.Offset%bytes != 0 || op.Buf.Addr()%bytes != 0 || uint64(op.Buf.Len())%bytes != 0 {
			a.fail("op of code %d: offset %d, memory %x, %d bytes are not aligned to %d", op.Code, op.Offset, op.Buf.Addr(), op.Buf.Len(), bytes)
		}
	}
	if a.last != nil && op.Code != Sync {
		a.fail("op of code %d follows a linked write; only a Sync may", op.Code)
	}
}

// complete is the checks at a completion.
func (a *Audit) complete(completion Completion) {
	fs := a.inFlight[completion.Token]
	if len(fs) == 0 {
		a.fail("a completion of token %x, which is not in flight", uint64(completion.Token))
		return
	}
	lent := fs[0]
	if completion.Flags&FlagMore != 0 {
		return
	}
	if a.inFlight[completion.Token] = fs[1:]; len(fs) == 1 {
		delete(a.inFlight, completion.Token)
	}
	if a.hash(lent.op) != lent.hash {
		a.fail("token %x: lent memory changed before its operation completed", uint64(completion.Token))
	}
	file := lent.op.File
	switch lent.op.Code {
	case Write:
		write := lent.write
		put := write.off + uint64(max(completion.Result, 0))
		if put < write.end { // what was not written is not durable until it is written again
			a.files[file] = append(a.files[file], &written{off: put, end: write.end})
			write.end = put
		}
		write.done = true
	case Sync:
		if completion.Result != 0 {
			return
		}
		if lent.linked != nil {
			lent.covers = append(lent.covers, lent.linked)
		}
		a.files[file] = slices.DeleteFunc(a.files[file], func(write *written) bool { return slices.Contains(lent.covers, write) })
	case Open:
		if completion.Result == 0 {
			delete(a.files, file)
		}
	}
}

// hash is the hash of memory that the ring reads: a Write's bytes, a Send's pieces.
func (a *Audit) hash(op Op) uint64 {
	switch op.Code {
	case Write:
		return maphash.Bytes(a.seed, op.Buf.Bytes())
	case Send:
		var hash maphash.Hash
		hash.SetSeed(a.seed)
		hash.Write(op.Buf.Bytes()[VectorHeaderBytes:VectorBytes(int(op.Arg))])
		for i := range int(op.Arg) {
			hash.Write(Piece(op.Buf, i))
		}
		return hash.Sum64()
	}
	return 0
}

func (a *Audit) fail(format string, args ...any) {
	what := "ioring audit: " + fmt.Sprintf(format, args...)
	if a.o.Fail == nil {
		panic(what)
	}
	a.o.Fail(what)
}
