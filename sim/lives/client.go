package lives

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"slices"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tailbound/tailbound/ioring"
	"github.com/tailbound/tailbound/sim"
)

// conn is a connection of a simulated client to a node. Requests are pipelined, and
// responses come in their order.
type conn struct {
	c    *sim.Client
	node int
	next int32
	owed []owed
	read func(k owed, resp kmsg.Response) error
	now  func() ioring.Instant

	private  bool // of one client only, because its requests may wait for other clients
	trickles bool // it receives a few bytes of its answers now and then
}

// owed is a request that has not been answered.
type owed struct {
	correlation int32
	req         kmsg.Request
	sent        []sentBatch    // of a Produce, in the order of its partitions
	start       int64          // of a Fetch: the partition's known start
	at          ioring.Instant // when it was sent
	note        any
}

var formatter = kmsg.NewRequestFormatter(kmsg.FormatterClientID("sim"))

func (c *conn) ask(req kmsg.Request, k owed) {
	c.next++
	k.correlation, k.req, k.at = c.next, req, c.now()
	c.owed = append(c.owed, k)
	c.c.Send(formatter.AppendRequest(nil, req, c.next))
}

// poll removes whole responses from the received bytes.
func (c *conn) poll() error {
	for len(c.c.Received) >= 4 {
		n := int(int32(binary.BigEndian.Uint32(c.c.Received)))
		if n < 4 || n > 64<<20 {
			return fmt.Errorf("node %d: a response of %d bytes", c.node, n)
		}
		if len(c.c.Received) < 4+n {
			return nil
		}
		p := c.c.Take(4 + n)[4:]
		if len(c.owed) == 0 {
			return fmt.Errorf("node %d: a response of %d bytes to no request", c.node, n)
		}
		k := c.owed[0]
		c.owed = c.owed[1:]
		if got := int32(binary.BigEndian.Uint32(p)); got != k.correlation {
			return fmt.Errorf("node %d: correlation id %d, want %d, of a request with key %d; %d more are owed", c.node, got, k.correlation, k.req.Key(), len(c.owed))
		}
		p = p[4:]
		resp := k.req.ResponseKind()
		resp.SetVersion(k.req.GetVersion())
		if resp.IsFlexible() && resp.Key() != 18 {
			if len(p) == 0 || p[0] != 0 {
				return fmt.Errorf("node %d: key %d v%d: no tags in the response's header", c.node, resp.Key(), resp.GetVersion())
			}
			p = p[1:]
		}
		if err := resp.ReadFrom(p); err != nil {
			return fmt.Errorf("node %d: key %d v%d: a response that cannot be read: %w", c.node, resp.Key(), resp.GetVersion(), err)
		}
		if err := c.read(k, resp); err != nil {
			return fmt.Errorf("node %d: key %d v%d: %w", c.node, resp.Key(), resp.GetVersion(), err)
		}
	}
	return nil
}

// sentBatch is a record batch as a client sent it. Its first record has its serial for a
// key, by which it is recognised anywhere.
type sentBatch struct {
	part   *partBook
	serial uint64
	bytes  []byte  // as sent
	stored []byte  // as the broker stores it, with the largest timestamp that it has
	times  []int64 // timestamps of its records
	count  int
	pid    int64
	seq    int32
	owner  *producer
}

const serialBase = 1_700_000_000_000

// timesOf returns timestamps for the records of a batch. In a batch, and from batch to
// batch, they go up and down.
func timesOf(serial uint64, count int) []int64 {
	times := make([]int64, count)
	for i := range times {
		x := (serial<<16 + uint64(i)) * 0x9e3779b97f4a7c15
		times[i] = serialBase + int64(serial) + int64(x>>40)%60 - 30
	}
	return times
}

// makeBatch returns a record batch v2 of count records, with values of about size bytes in
// total.
func makeBatch(serial uint64, count, size int, pid int64, epoch int16, seq int32) []byte {
	return timedBatch(serial, timesOf(serial, count), size, pid, epoch, seq)
}

// timedBatch is makeBatch with a record for each of the timestamps.
func timedBatch(serial uint64, times []int64, size int, pid int64, epoch int16, seq int32) []byte {
	count := len(times)
	b := make([]byte, headBytes, headBytes+size+count*32)
	b[16] = 2
	binary.BigEndian.PutUint32(b[23:], uint32(count-1))
	binary.BigEndian.PutUint64(b[27:], uint64(times[0]))
	binary.BigEndian.PutUint64(b[43:], uint64(pid))
	binary.BigEndian.PutUint16(b[51:], uint16(epoch))
	binary.BigEndian.PutUint32(b[53:], uint32(seq))
	binary.BigEndian.PutUint32(b[57:], uint32(count))
	x := serial * 0x9e3779b97f4a7c15
	var r []byte
	for i := range count {
		r = append(r[:0], 0)                          // attributes
		r = binary.AppendVarint(r, times[i]-times[0]) // timestamp delta
		r = binary.AppendVarint(r, int64(i))          // offset delta
		if i == 0 {
			r = binary.AppendVarint(r, 8)
			r = binary.BigEndian.AppendUint64(r, serial)
		} else {
			r = binary.AppendVarint(r, -1) // no key
		}
		value := size / count
		r = binary.AppendVarint(r, int64(value)) // value
		for range value {
			x = x*6364136223846793005 + 1442695040888963407
			r = append(r, byte(x>>56))
		}
		r = binary.AppendVarint(r, 0) // headers
		b = binary.AppendVarint(b, int64(len(r)))
		b = append(b, r...)
	}
	binary.BigEndian.PutUint32(b[8:], uint32(len(b)-12))
	binary.BigEndian.PutUint32(b[12:], ^uint32(0))
	return claiming(b, slices.Max(times))
}

// claiming returns a batch whose header says that this is the largest timestamp.
func claiming(b []byte, largest int64) []byte {
	b = slices.Clone(b)
	binary.BigEndian.PutUint64(b[35:], uint64(largest))
	binary.BigEndian.PutUint32(b[17:], crc32.Checksum(b[21:], castagnoli))
	return b
}

// serialOf returns the serial of a batch, 0 if it has none.
func serialOf(b []byte) uint64 {
	b = b[headBytes:]
	for i := range 5 { // length, attributes, timestamp delta, offset delta, length of the key
		n := 1
		if i != 1 {
			_, n = binary.Varint(b)
		}
		if n <= 0 || n > len(b) {
			return 0
		}
		b = b[n:]
	}
	if len(b) < 8 {
		return 0
	}
	return binary.BigEndian.Uint64(b)
}

// partBook is what the oracle knows of one partition of one topic id.
//
// Invariant: at[o] is the serial of the batch that was acknowledged or read at offset o, 0
// if it is not known yet. What is known may never change.
type partBook struct {
	topic *topicBook
	index int32
	node  int // the leader
	at    []uint64
	next  int64 // the reader's next offset
	high  int64 // the highest high watermark that a client got

	passed bool // a fetch was answered that the partition starts behind what it asked for

	startEpoch int32     // leader epoch of the first record by the last ListOffsets; -2: not answered
	epochs     epochList // leader epochs of the batches that were read in this life, without a gap
	epochsTo   int64     // one past the last of these
	lifeFrom   int64     // the first offset that this life appends

	sure    int64 // of a topic with write.caching: offsets below it were there after a crash or at a clean stop, and may not be lost
	start   int64 // of the last answered DeleteRecords: the partition starts here or later
	startTo int64 // of the last requested DeleteRecords: the partition starts here or earlier
	base    map[uint64]int64
}

// topicBook is what the oracle knows of one topic id.
type topicBook struct {
	name   string
	ages   bool // records of it may be old or without timestamps, and their producers claim anything
	cached bool // write.caching: a crash may lose the last acknowledged records
	id     [16]byte
	fate   fate
	goneAt ioring.Instant
	parts  []*partBook

	// The largest reported number of partitions, and since when.
	counted   int
	countedAt ioring.Instant
}

// known returns the first offset after all known ones.
func (p *partBook) known() int64 { return int64(len(p.at)) }

// end sets the partition's end after a crash. It is an error if an offset is lost that may
// not be; others are forgotten.
func (p *partBook) end(end int64) (lost int64, err error) {
	known := p.known()
	if floor := p.floor(); end < floor {
		return 0, fmt.Errorf("LOST: %s/%d ends at %d, but everything below %d was acknowledged or read", p.topic.name, p.index, end, floor)
	}
	if end < known {
		for _, serial := range p.at[end:] {
			delete(p.base, serial)
		}
		p.at = p.at[:end]
	}
	p.sure = end
	return max(known-end, 0), nil
}

// floor returns the first offset that a crash may lose.
func (p *partBook) floor() int64 {
	if p.topic.cached {
		return max(p.sure, p.start)
	}
	return p.known()
}

// place records that the batch of serial is at offset base; how says from what that is
// known.
func (p *partBook) place(base int64, serial uint64, count int, how string) error {
	if old, ok := p.base[serial]; ok && old != base {
		return fmt.Errorf("TWICE: %s/%d: batch %d was at offset %d and is now %s at %d", p.topic.name, p.index, serial, old, how, base)
	}
	p.base[serial] = base
	for int64(len(p.at)) < base+int64(count) {
		p.at = append(p.at, 0)
	}
	for o := base; o < base+int64(count); o++ {
		if p.at[o] != 0 && p.at[o] != serial {
			return fmt.Errorf("CHANGED: %s/%d: offset %d held batch %d and now %d is %s there", p.topic.name, p.index, o, p.at[o], serial, how)
		}
		p.at[o] = serial
	}
	return nil
}
