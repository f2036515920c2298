package metrics

import (
	"reflect"
	"strings"
	"sync/atomic"
	"unsafe"
)

// Counters are what a shard counts from its opening on. They are plain numbers that
// only the shard reads and writes; other threads read what it has published. Every
// field is a uint64, and its metric's name is the field's in snake case (BytesIn:
// bytes_in).
type Counters struct {
	Turns       uint64 // rounds of the loop
	Completions uint64 // reaped from the ring

	Connections        uint64 // accepted
	ConnectionsRefused uint64 // closed at once: max.connections or max.connections.per.ip was reached
	Noise              uint64 // connections closed because their bytes are not Kafka's protocol

	Requests  uint64 // of every kind
	Produces  uint64
	Fetches   uint64
	Forwarded uint64 // handed to the control shard
	Refused   uint64 // answered with one error for the whole request, or by closing the connection

	Batches    uint64 // record batches accepted
	Records    uint64 // in them
	BytesIn    uint64 // of accepted record batches
	BytesOut   uint64 // of record batches sent to consumers
	Duplicates uint64 // batches that a producer sent again, answered with the original's offset
	Rejected   uint64 // record batches not accepted
	Expired    uint64 // records that retention removed

	NoRoom             uint64 // record batches, and changes of the control log, refused because no file could be made or grown
	ProduceWaits       uint64 // appends that waited for log memory or room
	FetchWaits         uint64 // fetches that waited for data
	PartitionsLookedAt uint64 // partitions that fetches were tried on
	ColdReads          uint64 // reads from the disk, for fetches and for searches by time
	SearchesYielded    uint64 // times a search by time had read much and let others go first
	ReadsAhead         uint64 // runs read before a fetch asked for them
	AheadHits          uint64 // fetches that found their run read ahead, or being read
	CopiedViews        uint64 // ranges of log memory that were copied into a reply, being too small to be sent by reference

	MailIn  uint64
	MailOut uint64

	Enters   uint64 // system calls of the ring
	Sleeps   uint64 // of these, calls that could block
	SpinHits uint64 // waits that ended while polling
	Wakes    uint64 // wake-ups from other threads

	TurnsInFlight1 uint64 // turns that ended with one journal frame in flight
	TurnsInFlight2 uint64 // with two or more
	InFlightMost   uint64 // the most frames that were in flight at a turn's end

	Frames          uint64 // journal frames submitted
	FrameBytes      uint64 // of these frames
	Runs            uint64 // written to segments
	RunBytes        uint64
	Checkpoints     uint64
	Segments        uint64 // files that logs began to use
	Recycled        uint64 // of these, files that other logs had released: their blocks were written before
	Zeroed          uint64 // of these, files that had been filled with zeroes
	ZeroBytes       uint64 // written to fill files with zeroes
	NoSpace         uint64 // files that could not be made or grown because the disk was full
	NoFile          uint64 // files that could not be made or grown for another reason
	Evictions       uint64 // slabs of log memory that were evicted and reused
	Sends           uint64 // operations that sent something
	SentBytes       uint64
	RepliesGathered uint64 // replies that shared a send with an earlier one
	NoBuffers       uint64 // receives that found no buffer
	AdmissionWaits  uint64 // requests that waited for receive memory
	TimedOut        uint64 // connections closed because their clients neither sent nor received anything
}

const counterCount = unsafe.Sizeof(Counters{}) / unsafe.Sizeof(uint64(0))

type publishedCounters [counterCount]atomic.Uint64

// Publish makes the counters readable by other threads. The owner calls it now and
// then; it is one atomic store for each counter.
func (s *Shard) Publish() {
	// Counters consists of uint64s only (TestCountersArePlain).
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

// ReadCounters returns the counters as last published, in the order of the fields.
// Any thread may call it. Each value is whole and never decreases; two values may be
// of different publications.
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
