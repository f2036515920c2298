package load

import "github.com/tailbound/tailbound/bench/record"

// Options says what one phase asks of one system. Zero values of what is
// optional are the simplest load.
type Options struct {
	Bootstrap   string
	Topic       string
	Partitions  int
	Connections int
	Inflight    int     // bound per connection
	Rate        float64 // requests per second over all connections of all processes; 0: closed loop
	Records     int     // per request
	RecordBytes int
	WarmupNS    int64  // excluded from every figure
	WindowNS    int64  // measured
	DrainNS     int64  // how long answers are waited for after the window
	Filled      bool   // the topic has records already: readers begin behind them
	Consumer    bool   // read the tail on connections of its own
	Keep        int64  // retention.bytes of the topic, in segments of half of it; 0: as the system has it
	ServerPID   int    // its CPU time over the window is read; 0: none
	Acks        string // all, 1 or 0; "": all. With 0 a request counts as answered when the socket took it
	Codec       string // none, gzip, snappy, lz4, zstd; "": none. Half of each value is random then
	KeyBytes    int    // of each record's key; 0: no keys
	Keys        int    // how many there are; a batch has only keys of its partition, as producers put them
	LingerNS    int64  // how long a batch gathered before it was sent: its first record has waited for so long
	Arrivals    Arrivals
	Readers     []Reader
	Hops        int               // a chain: what is read is produced to the next topic, Hops times in all; 0 and 1: none
	Verify      bool              // note each acknowledged request and see that it is read back
	Reconnect   bool              // when a connection breaks connect again, and send what was not answered
	TopicConfig map[string]string // of the topics that are made
	IntervalNS  int64             // how much one interval of the recording has; 0: the whole window is one

	// One of several processes that share a load: each has Connections of its
	// own, and partitions p with p % Of == Index.
	Index, Of int
}

// A Reader is a group of Count consumers that each read everything, in one of
// three ways: at the tail; behind a pause (catching up); no faster than a
// number of bytes a second.
type Reader struct {
	Name        string // its series; no spaces
	Count       int
	AfterNS     int64   // begins so long after the load did, at the first offset
	BytesPerSec float64 // 0: as fast as it goes
}

func (r Reader) prompt() bool { return r.AfterNS == 0 && r.BytesPerSec == 0 }

// Hooks are what a caller may have a say in. All may be nil.
type Hooks struct {
	// Ready is called when everything is connected; it gives the instant of
	// the first send (Now's clock).
	Ready func() (startNS int64, err error)
	// Interval gets what one interval recorded, with its series. It is called
	// on another thread, of the least priority; its time is not the loop's.
	Interval func(Interval)
}

// Interval is a part of the window. The last one has what came after its end.
type Interval struct {
	StartNS, EndNS int64 // since the window's start
	Requests       int64 // answered
	ReadBytes      int64
	Errors         int64
	Held           int64
	Series         []record.Interval
}

// The series that every load has; readers have theirs by name.
const (
	Produce  = "produce"
	Lag      = "generator-lag"
	EndToEnd = "end-to-end"
	Chain    = "chain"
)
