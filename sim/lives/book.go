package lives

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"sort"

	"github.com/tailbound/tailbound/engine/format"
)

// headBytes is the length of a batch's header, which identifies the batch. The engine
// returns it at recovery. (The header of a record batch has the same length.)
const headBytes = 61

// batch is an appended batch. All of its bytes follow from these fields.
type batch struct {
	log    uint64
	base   int64
	count  uint32
	n      int   // bytes, at least headBytes
	time   int64 // milliseconds
	serial uint64
}

func (b *batch) end() int64 { return b.base + int64(b.count) }

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// head writes the first headBytes of a batch, in the layout of a record batch, so that
// the engine cannot distinguish it from one.
func (b *batch) head(p []byte) {
	clear(p[:headBytes])
	binary.BigEndian.PutUint64(p, uint64(b.base))
	binary.BigEndian.PutUint32(p[8:], uint32(b.n-12))
	p[16] = 2
	binary.BigEndian.PutUint32(p[23:], b.count-1)
	binary.BigEndian.PutUint64(p[27:], uint64(b.time))
	binary.BigEndian.PutUint64(p[35:], uint64(b.time))
	binary.BigEndian.PutUint64(p[43:], b.serial) // in place of the producer id
	binary.BigEndian.PutUint32(p[53:], uint32(b.log))
	binary.BigEndian.PutUint32(p[57:], b.count)
}

// fill writes the batch and returns its checksum.
func (b *batch) fill(p []byte) (crc uint32) {
	b.head(p)
	x := b.serial*0x9e3779b97f4a7c15 ^ b.log
	body := p[headBytes:b.n]
	for len(body) >= 8 {
		x = x*6364136223846793005 + 1442695040888963407
		binary.LittleEndian.PutUint64(body, x)
		body = body[8:]
	}
	for i := range body {
		body[i] = byte(x >> (8 * i))
	}
	crc = crc32.Checksum(p[21:b.n], castagnoli)
	binary.BigEndian.PutUint32(p[17:], crc)
	return crc
}

// book is what the oracle knows of one log.
//
// Invariants: batches are in order and without gaps; seen <= the end of the last one;
// offsets below seen were acknowledged or read, and may never change or be lost.
type book struct {
	id      uint64
	fate    fate
	start   int64 // the last log start that was reported as durable
	startTo int64 // the last log start that was asked for
	startAt int64 // the durable log start when the life ended
	batches []batch
	epochs  epochList // of all batches, those before the log's start included
	seen    int64
	shard   int
}

// began records the leader epoch of an appended batch.
func (b *book) began(epoch int32, base int64) {
	if n := len(b.epochs); n == 0 || b.epochs[n-1].Epoch != epoch {
		b.epochs = append(b.epochs, format.EpochStart{Epoch: epoch, Start: base})
	}
}

// epochList is the leader epochs of a log, in order.
type epochList []format.EpochStart

// end is the answer of OffsetForLeaderEpoch by the steps of Kafka's LeaderEpochFileCache: of the epochs with records the last kept ones are known, the
// present one is added when the broker starts, and those before the log's start are removed.
func (l epochList) end(asked, present int32, start, logEnd, readable int64, kept int) format.EpochStart {
	known := append(epochList(nil), l[max(0, len(l)-kept):]...)
	if n := len(known); n == 0 || known[n-1].Epoch != present {
		known = append(known, format.EpochStart{Epoch: present, Start: logEnd}) // assign
	}
	first := 0 // truncateFromStart
	for first+1 < len(known) && known[first+1].Start <= start {
		first++
	}
	known = known[first:]
	known[0].Start = max(known[0].Start, start)
	undefined := format.EpochStart{Epoch: -1, Start: -1}
	switch { // endOffsetFor
	case asked == -1:
		return undefined
	case asked == present:
		return format.EpochStart{Epoch: asked, Start: readable}
	}
	floor := asked
	for _, epoch := range known {
		if epoch.Epoch > asked {
			return format.EpochStart{Epoch: floor, Start: epoch.Start}
		}
		floor = epoch.Epoch
	}
	return undefined
}

// fate is the state of a log or a topic. States that end in "ing" were asked for and not
// answered: after a crash they may have happened or not.
type fate uint8

const (
	absent fate = iota
	opening
	open
	deleting
	gone
)

func (b *book) end() int64 {
	if n := len(b.batches); n > 0 {
		return b.batches[n-1].end()
	}
	return b.start
}

// at returns the index of the batch that contains offset, len(batches) at the end.
func (b *book) at(offset int64) int {
	return sort.Search(len(b.batches), func(i int) bool { return b.batches[i].end() > offset })
}

func (b *book) see(offset int64) { b.seen = max(b.seen, offset) }

// truncate forgets batches at or after end, which a crash lost. It is an error to lose
// what was seen.
func (b *book) truncate(end int64) error {
	if end < b.seen {
		return fmt.Errorf("LOST: log %d ends at %d, but everything below %d was acknowledged or read", b.id, end, b.seen)
	}
	if end > b.end() {
		return fmt.Errorf("INVENTED: log %d ends at %d, but only %d was ever appended", b.id, end, b.end())
	}
	i := b.at(end)
	if i < len(b.batches) && b.batches[i].base != end {
		return fmt.Errorf("CUT: log %d ends at %d, inside the batch %d..%d", b.id, end, b.batches[i].base, b.batches[i].end())
	}
	b.batches = b.batches[:i]
	for n := len(b.epochs); n > 0 && b.epochs[n-1].Start >= end; n = len(b.epochs) {
		b.epochs = b.epochs[:n-1]
	}
	return nil
}

// forget drops batches that are wholly below start.
func (b *book) forget(start int64) {
	b.start = max(b.start, start)
	b.startTo = max(b.startTo, b.start)
	b.seen = max(b.seen, b.start)
	i := b.at(b.start)
	if i == len(b.batches) && i > 0 {
		// keep one batch, so that the end is known
		i--
	}
	b.batches = append(b.batches[:0], b.batches[i:]...)
}

// verify compares bytes that were read, whole batches beginning with the one that contains
// from, with what was appended. It returns the offset at which the bytes end.
func (b *book) verify(p []byte, from int64, scratch []byte) (int64, error) {
	i := b.at(from)
	end := from
	for len(p) > 0 {
		if i == len(b.batches) {
			return 0, fmt.Errorf("INVENTED: log %d: %d bytes past offset %d, where nothing was ever appended", b.id, len(p), end)
		}
		t := &b.batches[i]
		if len(p) < t.n {
			return 0, fmt.Errorf("CUT: log %d: a read ends inside the batch %d..%d: %d of %d bytes", b.id, t.base, t.end(), len(p), t.n)
		}
		want := scratch[:t.n]
		t.fill(want)
		if string(want) != string(p[:t.n]) {
			return 0, fmt.Errorf("CHANGED: log %d: batch %d..%d (%d bytes, serial %d) %s", b.id, t.base, t.end(), t.n, t.serial, difference(want, p))
		}
		p, end = p[t.n:], t.end()
		i++
	}
	return end, nil
}

func difference(want, got []byte) string {
	for i := range want {
		if want[i] != got[i] {
			return fmt.Sprintf("differs at byte %d: %x, want %x; the head is base %d, serial %d", i, got[i:min(i+8, len(want))], want[i:min(i+8, len(want))],
				binary.BigEndian.Uint64(got), binary.BigEndian.Uint64(got[43:]))
		}
	}
	return "is the same"
}
