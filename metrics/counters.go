package metrics

import (
	"reflect"
	"strings"
	"sync/atomic"
	"unsafe"
)

// Counters are what a shard counts, since it opened. Plain numbers: only the
// shard touches them; others read what it has published. Every field is a
// uint64, and is exported under its name in snake case (BytesIn: bytes_in).
type Counters struct {
	Turns       uint64 // rounds of the loop
	Completions uint64 // reaped from the ring

	Connections        uint64 // accepted
	ConnectionsRefused uint64 // closed at once: max.connections or max.connections.per.ip was reached
	Noise              uint64 // connections closed because what they sent is not Kafka

	Requests  uint64 // of every kind
	Produces  uint64
	Fetches   uint64
	Forwarded uint64 // handed to the control shard
	Refused   uint64 // answered with an error as a whole, or by closing

	Batches    uint64 // record batches accepted
	Records    uint64 // in them
	BytesIn    uint64 // of them
	BytesOut   uint64 // of record batches given to consumers
	Duplicates uint64 // idempotent batches answered from the window
	Rejected   uint64 // record batches not accepted
	Expired    uint64 // records that retention removed

	ProduceWaits       uint64 // appends that waited for log memory or room
	FetchWaits         uint64 // fetches that waited for data
	PartitionsLookedAt uint64 // by fetches: what is there for them?
	ColdReads          uint64 // fetches that read from the disk
	ReadsAhead         uint64 // runs read before a fetch asked for them
	AheadHits          uint64 // fetches that found theirs kept, or on its way
	CopiedViews        uint64 // pieces of log memory copied into a reply, being too small to send from where they lie

	MailIn  uint64
	MailOut uint64

	Enters   uint64 // system calls of the ring
	Sleeps   uint64 // of them, those that could block
	SpinHits uint64 // waits that ended while spinning
	Wakes    uint64 // wake-ups from other threads

	TurnsInFlight1 uint64 // turns that ended with one journal frame in flight
	TurnsInFlight2 uint64 // with two or more
	InFlightMost   uint64 // the most frames that were in flight at a turn's end

	Frames          uint64 // journal frames submitted
	FrameBytes      uint64 // of them
	Runs            uint64 // drained to segments
	RunBytes        uint64
	Checkpoints     uint64
	Segments        uint64 // files that logs were given
	Recycled        uint64 // of them, those that other logs let go: their blocks were written before
	Zeroed          uint64 // of them, those that were written with zeroes
	ZeroBytes       uint64 // written for those
	Evictions       uint64 // slabs of log memory that were taken again
	Sends           uint64 // operations that sent something
	SentBytes       uint64
	RepliesGathered uint64 // replies that shared a send with an earlier one
	NoBuffers       uint64 // receives that found no buffer
	AdmissionWaits  uint64 // requests that waited for receive memory
	TimedOut        uint64 // connections closed because they neither sent nor took anything
}

const counterCount = unsafe.Sizeof(Counters{}) / unsafe.Sizeof(uint64(0))

type publishedCounters [counterCount]atomic.Uint64

// Publish makes the counters readable by others. The owner calls it at
// intervals (a second, say): an atomic store for each.
func (s *Shard) Publish() {
	// Counters is nothing but uint64s (TestCountersArePlain).
	now := (*[counterCount]uint64)(unsafe.Pointer(&s.Counters))
	for i := range now {
		s.published[i].Store(now[i])
	}
}

// CounterValue is one counter with its name.
type CounterValue struct {
	Name  string `json:"name"`
	Value uint64 `json:"value"`
}

// ReadCounters is what was last published, in the order of the fields. Any
// thread may call it. Each value is whole and never falls; two of them may be
// from two publications.
func (s *Shard) ReadCounters() []CounterValue {
	out := make([]CounterValue, counterCount)
	for i := range out {
		out[i] = CounterValue{counterNames[i], s.published[i].Load()}
	}
	return out
}

var counterNames = func() [counterCount]string {
	var names [counterCount]string
	t := reflect.TypeFor[Counters]()
	for i := range names {
		names[i] = snake(t.Field(i).Name)
	}
	return names
}()

func snake(s string) string {
	var b strings.Builder
	for i, r := range s {
		if 'A' <= r && r <= 'Z' {
			if i > 0 {
				b.WriteByte('_')
			}
			r += 'a' - 'A'
		}
		b.WriteRune(r)
	}
	return b.String()
}
