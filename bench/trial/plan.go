package trial

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/tailbound/tailbound/bench/load"
)

// Plan is one load, as flags or a scenario's file have it. Rates are of whole
// requests: a request is one batch.
type Plan struct {
	Name string `yaml:"name,omitempty" json:"name,omitempty"`
	Why  string `yaml:"why,omitempty" json:"why,omitempty"`

	Rate        float64       `yaml:"rate,omitempty" json:"rate,omitempty"`                 // requests a second; 0 with Saturate
	Saturate    bool          `yaml:"saturate,omitempty" json:"saturate,omitempty"`         // closed loop
	AtMost      float64       `yaml:"at-most,omitempty" json:"at-most,omitempty"`           // no more than this share of what a closed loop carried just before
	Duration    time.Duration `yaml:"duration,omitempty" json:"duration,omitempty"`         // measured
	Fill        time.Duration `yaml:"fill,omitempty" json:"fill,omitempty"`                 // a closed loop on the same topic before all of it: a broker that has been at it for a while
	Warmup      time.Duration `yaml:"warmup,omitempty" json:"warmup,omitempty"`             // before it
	Drain       time.Duration `yaml:"drain,omitempty" json:"drain,omitempty"`               // how long answers are waited for behind it
	Interval    time.Duration `yaml:"interval,omitempty" json:"interval,omitempty"`         // of the recording
	Arrivals    string        `yaml:"arrivals,omitempty" json:"arrivals,omitempty"`         // constant, poisson, bursts, ramp
	Burst       int64         `yaml:"burst,omitempty" json:"burst,omitempty"`               // requests due at one instant
	From        float64       `yaml:"from,omitempty" json:"from,omitempty"`                 // a ramp's first rate
	Seed        uint64        `yaml:"seed,omitempty" json:"seed,omitempty"`                 // poisson
	Records     int           `yaml:"records,omitempty" json:"records,omitempty"`           // of a request
	RecordBytes int           `yaml:"record-bytes,omitempty" json:"record-bytes,omitempty"` // the value
	KeyBytes    int           `yaml:"key-bytes,omitempty" json:"key-bytes,omitempty"`
	Keys        int           `yaml:"keys,omitempty" json:"keys,omitempty"`
	Linger      time.Duration `yaml:"linger,omitempty" json:"linger,omitempty"` // how long a batch has gathered when it is sent
	Codec       string        `yaml:"codec,omitempty" json:"codec,omitempty"`
	Acks        string        `yaml:"acks,omitempty" json:"acks,omitempty"`

	Topic       string            `yaml:"topic,omitempty" json:"topic,omitempty"` // must not have anything in it; by default a new one
	TopicConfig map[string]string `yaml:"topic-config,omitempty" json:"topic-config,omitempty"`
	Partitions  int               `yaml:"partitions,omitempty" json:"partitions,omitempty"`
	Connections int               `yaml:"connections,omitempty" json:"connections,omitempty"` // producers, of all processes
	Inflight    int               `yaml:"inflight,omitempty" json:"inflight,omitempty"`       // of each
	Readers     []Reader          `yaml:"readers,omitempty" json:"readers,omitempty"`
	Hops        int               `yaml:"hops,omitempty" json:"hops,omitempty"`

	Verify    bool            `yaml:"verify,omitempty" json:"verify,omitempty"`         // each acknowledged request is read back, once
	Restarts  []time.Duration `yaml:"restarts,omitempty" json:"restarts,omitempty"`     // of the broker, since the start of the load
	Processes int             `yaml:"processes,omitempty" json:"processes,omitempty"`   // that make the load
	Expect    []string        `yaml:"expect,omitempty" json:"expect,omitempty"`         // such as "end-to-end p99.99 < 100ms" or "lost = 0"
	Keep      int64           `yaml:"keep-bytes,omitempty" json:"keep-bytes,omitempty"` // retention.bytes of a partition
}

// Reader is a group of consumers that each read everything.
type Reader struct {
	Name           string        `yaml:"name,omitempty" json:"name,omitempty"`
	Count          int           `yaml:"count,omitempty" json:"count,omitempty"`
	After          time.Duration `yaml:"after,omitempty" json:"after,omitempty"`
	BytesPerSecond float64       `yaml:"bytes-per-second,omitempty" json:"bytes-per-second,omitempty"`
}

// Default is what a plan has where nothing else is said.
func Default() Plan {
	return Plan{
		Rate: 1000, Duration: 30 * time.Second, Warmup: 3 * time.Second, Drain: 3 * time.Second, Interval: time.Second,
		Records: 100, RecordBytes: 1000, Partitions: 4, Connections: 4, Inflight: 64, Processes: 1,
	}
}

// Check says what is wrong with it.
func (p *Plan) Check() error {
	p.Processes = max(p.Processes, 1)
	switch {
	case p.Rate <= 0 && !p.Saturate:
		return errors.New("a rate is above 0; to send as fast as answers come, say saturate")
	case p.Duration <= 0 || p.Warmup < 0 || p.Drain < 0 || p.Fill < 0:
		return errors.New("times are above 0")
	case p.Records < 1 || p.Partitions < 1 || p.Inflight < 1:
		return errors.New("records, partitions and inflight are at least 1")
	case p.Connections < p.Processes || p.Partitions < p.Processes:
		return fmt.Errorf("%d processes want as many connections and partitions", p.Processes)
	case p.AtMost < 0 || p.AtMost > 1:
		return errors.New("at-most is a share, such as 0.5")
	}
	if p.Fill > 0 && (p.Hops > 1 || p.Verify) {
		return errors.New("what fills a topic before the measurement is not passed on, and not verified")
	}
	if p.Fill > 0 && slices.ContainsFunc(p.Readers, func(r Reader) bool { return r.After > 0 }) {
		return errors.New("readers that begin behind read from the first offset, which a topic that was filled may not have any more")
	}
	if len(p.Restarts) > 0 && p.Hops > 1 {
		return errors.New("a chain is not driven through restarts")
	}
	if p.Interval <= 0 || p.Interval > p.Duration {
		p.Interval = min(time.Second, p.Duration)
	}
	for _, e := range p.Expect {
		if _, err := parseExpectation(e); err != nil {
			return err
		}
	}
	return load.Arrivals{Kind: p.Arrivals, Burst: p.Burst, From: p.From}.Check()
}

// options is what process index of all is asked.
func (p *Plan) options(address string, index int) load.Options {
	o := load.Options{
		Bootstrap: address, Topic: p.Topic, Partitions: p.Partitions,
		Connections: p.Connections / p.Processes, Inflight: p.Inflight, Rate: p.Rate, Records: p.Records, RecordBytes: p.RecordBytes,
		WarmupNS: int64(p.Warmup), WindowNS: int64(p.Duration), DrainNS: int64(p.Drain), IntervalNS: int64(p.Interval),
		Filled: p.Fill > 0, Keep: p.Keep, Acks: p.Acks, Codec: p.Codec, KeyBytes: p.KeyBytes, Keys: p.Keys, LingerNS: int64(p.Linger),
		Arrivals: load.Arrivals{Kind: p.Arrivals, Burst: p.Burst, From: p.From, Seed: p.Seed},
		Hops:     p.Hops, Verify: p.Verify, Reconnect: len(p.Restarts) > 0, TopicConfig: p.TopicConfig,
		Index: index, Of: p.Processes,
	}
	if p.Saturate {
		o.Rate = 0
	}
	for _, r := range p.Readers {
		o.Readers = append(o.Readers, load.Reader{Name: r.Name, Count: max(r.Count, 1), AfterNS: int64(r.After), BytesPerSec: r.BytesPerSecond / float64(p.Processes)})
	}
	return o
}

// Shorten takes a share of all its times, to see whether it works.
func (p *Plan) Shorten(share float64) {
	if share <= 0 || share >= 1 {
		return
	}
	part := func(d time.Duration) time.Duration { return time.Duration(float64(d) * share) }
	p.Duration, p.Warmup, p.Fill = max(part(p.Duration), time.Second), part(p.Warmup), part(p.Fill)
	p.Restarts, p.Readers = slices.Clone(p.Restarts), slices.Clone(p.Readers)
	for i := range p.Restarts {
		p.Restarts[i] = part(p.Restarts[i])
	}
	for i := range p.Readers {
		p.Readers[i].After = part(p.Readers[i].After)
	}
}
