package engine

import (
	"github.com/tailbound/tailbound/engine/format"
	"github.com/tailbound/tailbound/ioring"
	"github.com/tailbound/tailbound/mem"
)

// writeSync writes a buffer and syncs its file, as two linked operations. Where the
// write is short, the rest is written and synced again. The function it stands for:
//
//	until all is written { await write(rest) linked to sync() }
//
// The buffer belongs to the caller, and is lent to the ring until both have completed.
type writeSync struct {
	file    uint32
	offset  uint64
	buf     mem.Block
	done    int            // bytes written
	writing bool           // the write is in flight
	syncing bool           // the sync is
	pushed  bool           // both were pushed, and what they leave undone is not known
	synced  bool           // the sync succeeded
	short   bool           // a write wrote nothing and gave no error
	errno   int            // of the first operation that failed; 0: none
	failed  ioring.Code    // that operation
	written ioring.Instant // when the last write was reaped
}

// begin is a new write of a buffer at an offset. file may be set later, before push.
func (w *writeSync) begin(file uint32, offset int64, buf mem.Block) {
	*w = writeSync{file: file, offset: uint64(offset), buf: buf}
}

// push starts what is left. False: the ring has no room now.
func (w *writeSync) push(ring ioring.Ring, kind uint8, slot uint32) bool {
	if w.pushed {
		return true
	}
	if ring.Room() < 2 {
		return false
	}
	if w.done < w.buf.Len() {
		ring.Push(ioring.Op{Code: ioring.Write, Flags: ioring.FlagLink, File: w.file, Offset: w.offset + uint64(w.done),
			Buf: w.buf.Slice(w.done, w.buf.Len()-w.done), Token: ioring.MakeToken(kind, 0, slot<<1)})
		w.writing = true
	}
	ring.Push(ioring.Op{Code: ioring.Sync, File: w.file, Token: ioring.MakeToken(kind, 0, slot<<1|1)})
	w.syncing, w.pushed, w.synced = true, true, false
	return true
}

// complete takes one of the two completions. over: all is written and synced, or errno
// is set. Otherwise, if pushed is false, push has to be called again.
func (w *writeSync) complete(sync bool, result int32, now ioring.Instant) (over bool) {
	if !sync {
		w.written = now
		w.writing = false
		switch {
		case result > 0:
			w.done += int(result)
			if w.done < w.buf.Len() {
				w.done &^= format.BlockBytes - 1
			}
		case again(ioring.Write, result):
		case w.errno == 0:
			w.errno, w.failed = int(-result), ioring.Write
			if result == 0 {
				w.errno, w.short = int(ioring.EIO), true
			}
		}
	} else {
		w.syncing = false
		switch {
		case result == 0:
			w.synced = true
		case again(ioring.Sync, result) || ioring.Judge(ioring.Sync, result) == ioring.Cancelled:
		case w.errno == 0:
			w.errno, w.failed = int(-result), ioring.Sync
		}
	}
	if w.writing || w.syncing {
		return false
	}
	if w.errno != 0 || w.done == w.buf.Len() && w.synced {
		return true
	}
	w.pushed = false
	return false
}

// failure is the operation that set errno. A failed sync names the whole range that it
// was to make durable.
func (w *writeSync) failure(file FailedFile) Failure {
	f := Failure{Op: w.failed, File: file, Offset: int64(w.offset), Length: int64(w.buf.Len()), Errno: ioring.Errno(w.errno)}
	if w.failed == ioring.Write {
		f.Offset, f.Length = f.Offset+int64(w.done), f.Length-int64(w.done)
	}
	if w.short {
		f.Errno = 0
	}
	return f
}

// header is what the headers of frames and runs have in common, for one with this body
// behind one whose header's CRC is previous.
func (v *env) header(body []byte, previous uint32) format.Header {
	return format.Header{Directory: v.dir, Epoch: v.epoch, BodyBytes: uint32(len(body)), BodyCRC: format.CRC(body), Previous: previous}
}
