package shard

import "github.com/tailbound/tailbound/metrics"

// objectives are the topics of a data shard that were promised a latency, and
// how the promise was kept. They belong to the shard; the recorder hands copies
// over.
//
// Invariant: topics.all[of[i]].objective == i + 1, for the n that there are.
type objectives struct {
	all [metrics.ObjectivesMax]metrics.Objective
	of  [metrics.ObjectivesMax]int32
	n   int
}

// setObjective takes note of what a topic's configurations promise. What was
// counted of another promise is not counted of this one.
func (s *Shard) setObjective(number int32, t *topic) {
	limit, target := t.config.ObjectiveMS*1e6, t.config.ObjectivePPM
	if s.Flight == nil {
		return
	}
	if limit < 0 || t.gone {
		s.dropObjective(t)
		return
	}
	o := &s.slo
	if t.objective == 0 {
		if o.n == len(o.all) {
			s.logf(Warn, "a topic's latency.slo.ms is not watched: so many have one already: ", int64(o.n))
			return
		}
		o.of[o.n] = number
		o.n++
		t.objective = o.n
	} else if x := &o.all[t.objective-1]; x.LimitNS == limit && x.TargetPPM == target {
		return
	}
	x := metrics.Objective{LimitNS: limit, TargetPPM: target}
	x.TopicLen = uint32(copy(x.TopicName[:metrics.TopicNameMax], t.nameBytes))
	o.all[t.objective-1] = x
}

func (s *Shard) dropObjective(t *topic) {
	o := &s.slo
	if t.objective == 0 {
		return
	}
	i := t.objective - 1
	t.objective = 0
	o.n--
	if i < o.n {
		o.all[i], o.of[i] = o.all[o.n], o.of[o.n]
		s.topics.all[o.of[i]].objective = i + 1
	}
}

// countObjective counts a request for a topic that was promised something. A
// request names its topics one after another: the one named last was counted.
func (s *Shard) countObjective(topic int32, last *int32, took int64) {
	if topic == none || topic == *last {
		return
	}
	*last = topic
	if i := s.topics.all[topic].objective; i > 0 {
		o := &s.slo.all[i-1]
		o.Total++
		if took > o.LimitNS {
			o.Missed++
		}
	}
}
