package observe

import (
	"cmp"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/tailbound/tailbound/cmd/tailbound/term"
	"github.com/tailbound/tailbound/metrics"
)

// TailProfile is what `profile tail` shows. The JSON names are kept from version to
// version.
type TailProfile struct {
	Version string      `json:"version"`
	PID     int         `json:"pid"`
	At      time.Time   `json:"at"`
	Shards  []TailShard `json:"shards"`
}

// TailShard is one data shard.
type TailShard struct {
	Shard   int        `json:"shard"`
	Node    int32      `json:"node"`
	Address string     `json:"address"`
	Late    bool       `json:"late,omitempty"` // it took no turn in time
	Seconds float64    `json:"seconds"`        // covered by Kinds
	Kinds   []TailKind `json:"kinds"`
}

// TailKind is one kind of request. Durations are from received to sent, without the
// time that a fetch waited for data to arrive.
type TailKind struct {
	Kind     string `json:"kind"`
	Requests int64  `json:"requests"`
	P50NS    int64  `json:"p50_ns"`
	P99NS    int64  `json:"p99_ns"`
	P999NS   int64  `json:"p999_ns"`
	MaxNS    int64  `json:"max_ns"`
	// Of the slowest requests, of which each interval keeps a few: how many took
	// longer than the p99, their time above it, and the share of each cause in that.
	AboveP99   int           `json:"above_p99"`
	AboveP99NS int64         `json:"above_p99_ns"`
	Causes     []CauseShare  `json:"causes"`
	Slowest    []SlowRequest `json:"slowest"` // the slowest first
}

// CauseShare is the time that is due to one cause, and its share of the whole.
type CauseShare struct {
	Cause string  `json:"cause"`
	NS    int64   `json:"ns"`
	Share float64 `json:"share"`
}

// SlowRequest is one slow request with its stages.
type SlowRequest struct {
	At         time.Time    `json:"at"` // when its last byte was received
	TookNS     int64        `json:"took_ns"`
	EarlyNS    int64        `json:"early_ns"` // expected time between its arrival and the turn that saw it
	IdleNS     int64        `json:"idle_ns,omitempty"`
	Topic      string       `json:"topic"`
	Partition  int32        `json:"partition"`
	Partitions int32        `json:"partitions"`
	Offset     int64        `json:"offset"`
	Bytes      int64        `json:"bytes"`
	FrameBytes int64        `json:"frame_bytes,omitempty"`
	Cause      string       `json:"cause"`
	Verdict    string       `json:"verdict"`
	Causes     []CauseShare `json:"causes"` // of the whole request
	Stages     []SlowStage  `json:"stages"`
	// Bytes at the disk while it was there too, by kind of work.
	Disk       map[string]int64 `json:"disk_bytes,omitempty"`
	OwnBytes   int64            `json:"own_log_bytes,omitempty"`
	OtherBytes int64            `json:"other_logs_bytes,omitempty"`
	Waited     []string         `json:"waited_for,omitempty"`
}

// SlowStage is one stage that a request passed.
type SlowStage struct {
	Stage  string       `json:"stage"`
	AtNS   int64        `json:"at_ns"` // since it was received
	TookNS int64        `json:"took_ns"`
	Causes []CauseShare `json:"causes"`
	Around metrics.Step `json:"around"`
}

// tail composes the report on the last intervals, with count requests of each kind
// and shard. The caller holds mu.
func (p *Server) tail(over time.Duration, count int) *TailProfile {
	late := make([]bool, len(p.collectors))
	if p.broker != nil {
		p.collect(late)
		p.takeFlights(true)
	}
	now := time.Now()
	answer := &TailProfile{Version: p.version, PID: os.Getpid(), At: now}
	for i, history := range p.histories {
		if history == nil {
			continue
		}
		shard := TailShard{Shard: i, Node: p.nodes[i].ID, Address: p.nodes[i].Address(), Late: late[i]}
		all := history.since(now.Add(-over).UnixMilli())
		for _, interval := range all {
			shard.Seconds += float64(interval.Ended-interval.Began) / 1e9
		}
		for kind := range metrics.Kind(metrics.RecordedKinds) {
			usual := p.collectors[i].Total().Usual(kind)
			shard.Kinds = append(shard.Kinds, tailOf(kind, all, &usual, count))
		}
		answer.Shards = append(answer.Shards, shard)
	}
	return answer
}

// tailOf is the report on one kind of request in the intervals of one shard. usual
// is the shard's medians, above which time is held to be unusual.
func tailOf(kind metrics.Kind, all []*metrics.Interval, usual *metrics.Timeline, count int) TailKind {
	tail := TailKind{Kind: kind.Name(), Causes: []CauseShare{}, Slowest: []SlowRequest{}}
	var counts metrics.Counts
	type kept struct {
		of *metrics.Interval
		*metrics.Slow
	}
	var slow []kept
	for _, interval := range all {
		x := &interval.Kinds[kind]
		counts.Add(&x.Counts)
		for j := range x.Slowest[:x.N] {
			slow = append(slow, kept{interval, &x.Slowest[j]})
		}
	}
	slices.SortFunc(slow, func(a, b kept) int { return cmp.Compare(b.NS()+b.EarlyNS(), a.NS()+a.EarlyNS()) })
	tail.Requests, tail.P50NS, tail.P99NS, tail.P999NS = counts.Total(), counts.Quantile(50), counts.Quantile(99), counts.Quantile(99.9)
	var above [metrics.Causes]float64
	for i, request := range slow {
		tail.MaxNS = max(tail.MaxNS, request.NS())
		spent := request.Spent(kind)
		beyond := spent.Beyond(kind, usual)
		if ns := request.NS() + request.EarlyNS() - tail.P99NS; ns > 0 {
			tail.AboveP99++
			tail.AboveP99NS += ns
			sum := int64(0)
			for _, n := range beyond {
				sum += n
			}
			for c, n := range beyond {
				if sum > 0 {
					above[c] += float64(ns) * float64(n) / float64(sum)
				}
			}
		}
		if i < count {
			tail.Slowest = append(tail.Slowest, describe(kind, request.of, request.Slow, &spent, &beyond))
		}
	}
	tail.P99NS, tail.P999NS = min(tail.P99NS, tail.MaxNS), min(tail.P999NS, tail.MaxNS)
	var rounded [metrics.Causes]int64
	for c := range above {
		rounded[c] = int64(above[c])
	}
	tail.Causes = shares(&rounded)
	return tail
}

// shares are the causes that have a part, the largest first.
func shares(by *[metrics.Causes]int64) (all []CauseShare) {
	sum := int64(0)
	for _, n := range by {
		sum += n
	}
	all = []CauseShare{}
	for c, n := range by {
		if n > 0 {
			all = append(all, CauseShare{metrics.Cause(c).Name(), n, float64(n) / float64(sum)})
		}
	}
	slices.SortStableFunc(all, func(a, b CauseShare) int { return cmp.Compare(b.NS, a.NS) })
	return all
}

// describe is one slow request as it is reported.
func describe(kind metrics.Kind, of *metrics.Interval, slow *metrics.Slow, spent *metrics.Spent, beyond *[metrics.Causes]int64) SlowRequest {
	by := spent.ByCause()
	request := SlowRequest{
		At:     time.UnixMilli(of.Wall).Add(-time.Duration(of.Ended - slow.Stamps[metrics.Received])),
		TookNS: slow.NS(), EarlyNS: slow.EarlyNS(), IdleNS: slow.Idle, Topic: slow.Topic(), Partition: slow.Partition, Partitions: slow.Parts, Offset: slow.Offset, Bytes: slow.Bytes,
		FrameBytes: slow.FrameBytes, OwnBytes: slow.OwnBytes, OtherBytes: slow.OtherBytes, Causes: shares(&by),
	}
	// The cause is that of the most unusual time, or, where less than a quarter is
	// unusual, that of the most time.
	cause, ns := metrics.Leading(beyond)
	if sum := slow.NS() + slow.EarlyNS(); ns*4 < sum {
		cause, ns = metrics.Leading(&by)
	}
	request.Cause = cause.Name()
	for w, n := range slow.Disk {
		if n > 0 {
			if request.Disk == nil {
				request.Disk = map[string]int64{}
			}
			request.Disk[metrics.DiskWork(w).Name()] = n
		}
	}
	for bit, name := range map[metrics.Waits]string{metrics.WaitedMemory: "log memory", metrics.WaitedRoom: "room in its file", metrics.WaitedJournal: "room in the journal", metrics.WaitedReader: "slow readers", metrics.WaitedReadBuffers: "read buffers"} {
		if slow.Waited&bit != 0 {
			request.Waited = append(request.Waited, name)
		}
	}
	slices.Sort(request.Waited)
	last := slow.Stamps[metrics.Received]
	for i := metrics.Received; i < metrics.Stages; i++ {
		at := slow.Stamps[i]
		if at == 0 {
			continue
		}
		stage := SlowStage{Stage: i.Name(kind), AtNS: at - slow.Stamps[metrics.Received], TookNS: max(0, at-last), Causes: shares(&spent[i]), Around: slow.Steps[i]}
		if i == metrics.Received {
			stage.Around = slow.Early
		}
		last = max(last, at)
		request.Stages = append(request.Stages, stage)
	}
	request.Verdict = verdict(kind, cause, ns, slow, spent)
	return request
}

// verdict is one sentence about the leading cause, with the stage that had most of
// it.
func verdict(kind metrics.Kind, cause metrics.Cause, ns int64, slow *metrics.Slow, spent *metrics.Spent) string {
	where, most := metrics.Received, int64(-1)
	for i := range spent {
		if n := spent[i][cause]; n > most {
			where, most = metrics.Stage(i), n
		}
	}
	in := " on the way to " + where.Name(kind)
	if where == metrics.Received {
		in = " before it was seen"
	}
	took := term.ShortNS(ns)
	switch cause {
	case metrics.OwnQueueing:
		return fmt.Sprintf("the shard was busy with other requests for %s%s", took, in)
	case metrics.Gathering:
		return fmt.Sprintf("it waited %s for a frame in flight before its own could go", took)
	case metrics.DiskWrite:
		return fmt.Sprintf("the write of its frame of %s took %s beyond the usual", term.ShortBytes(slow.FrameBytes), took)
	case metrics.DiskSync:
		return fmt.Sprintf("the sync behind its frame of %s took %s beyond the usual", term.ShortBytes(slow.FrameBytes), took)
	case metrics.AwayFromCPU:
		return fmt.Sprintf("the shard's thread waited %s for a CPU%s", took, in)
	case metrics.GarbageCollection:
		return fmt.Sprintf("Go's collector kept the shard's thread from running for %s%s", took, in)
	case metrics.Stolen:
		return fmt.Sprintf("the host ran something else for %s%s", took, in)
	case metrics.SlowReader:
		if where == metrics.Sent {
			return fmt.Sprintf("the client took %s to take the answer, or one before it", took)
		}
		return fmt.Sprintf("it waited %s for what slow readers hold%s", took, in)
	case metrics.NeighbourLog:
		return fmt.Sprintf("other logs had %s at the disk beside its own log's %s: %s%s", term.ShortBytes(slow.OtherBytes), term.ShortBytes(slow.OwnBytes), took, in)
	case metrics.Flushing:
		if where == metrics.Appended {
			return fmt.Sprintf("it waited %s for log memory, which drains give back", took)
		}
		if where == metrics.Submitted {
			return fmt.Sprintf("the journal was full: it waited %s for a checkpoint", took)
		}
		return fmt.Sprintf("drains and checkpoints wrote %s beside it: %s", term.ShortBytes(slow.Disk[metrics.DiskFlushes]+slow.Disk[metrics.DiskCheckpoints]), took)
	case metrics.Preparing:
		if where == metrics.Appended {
			return fmt.Sprintf("it waited %s for room in its log's file", took)
		}
		return fmt.Sprintf("files were made or removed beside it: %s", took)
	}
	return fmt.Sprintf("%s went to reading from the disk%s", took, in)
}
