package lives

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"

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

	private bool // of one client only, because its requests may wait for other clients
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

// sentBatch is a record batch as a client sent it. Its first timestamp is its serial, by
// which it is recognised anywhere; timeOf has the timestamps of its records.
type sentBatch struct {
	part   *partBook
	serial uint64
	bytes  []byte // as sent
	count  int
	pid    int64
	seq    int32
	owner  *producer
}

const serialBase = 1_700_000_000_000

// timeOf is the timestamp of record i of a batch. In a batch, and from batch to batch, times go up and down.
func timeOf(serial uint64, i int) int64 {
	if i == 0 {
		return serialBase + int64(serial)
	}
	x := (serial<<16 + uint64(i)) * 0x9e3779b97f4a7c15
	return serialBase + int64(serial) + int64(x>>40)%60 - 30
}

// makeBatch returns a record batch v2 of count records, with values of about size bytes in
// total.
func makeBatch(serial uint64, count, size int, pid int64, epoch int16, seq int32) []byte {
	b := make([]byte, headBytes, headBytes+size+count*32)
	b[16] = 2
	binary.BigEndian.PutUint32(b[23:], uint32(count-1))
	binary.BigEndian.PutUint64(b[27:], serialBase+serial)
	binary.BigEndian.PutUint64(b[43:], uint64(pid))
	binary.BigEndian.PutUint16(b[51:], uint16(epoch))
	binary.BigEndian.PutUint32(b[53:], uint32(seq))
	binary.BigEndian.PutUint32(b[57:], uint32(count))
	x := serial * 0x9e3779b97f4a7c15
	largest := int64(0)
	var r []byte
	for i := range count {
		largest = max(largest, timeOf(serial, i))
		r = append(r[:0], 0)                                            // attributes
		r = binary.AppendVarint(r, timeOf(serial, i)-timeOf(serial, 0)) // timestamp delta
		r = binary.AppendVarint(r, int64(i))                            // offset delta
		r = binary.AppendVarint(r, -1)                                  // no key
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
	binary.BigEndian.PutUint64(b[35:], uint64(largest))
	binary.BigEndian.PutUint32(b[17:], crc32.Checksum(b[21:], castagnoli))
	return b
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

	sure    int64 // of a topic with write.caching: offsets below it were there after a crash or at a clean stop, and may not be lost
	start   int64 // of the last answered DeleteRecords: the partition starts here or later
	startTo int64 // of the last requested DeleteRecords: the partition starts here or earlier
	base    map[uint64]int64
}

// topicBook is what the oracle knows of one topic id.
type topicBook struct {
	name   string
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
