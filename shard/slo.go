package shard

import "github.com/tailbound/tailbound/metrics"

// objectives are the topics of a data shard that were promised a latency, and
// how the promise was kept. They belong to the shard; the recorder hands copies
// over.
//
// Invariant: topics.all[of[i]].objective == i + 1, for the n that there are.
type objectives struct {
	all    [metrics.ObjectivesMax]metrics.Objective
	of     [metrics.ObjectivesMax]int32
	n      int
	topics *topicTable
}

// set takes note of what a topic's configurations promise. What was counted of
// another promise is not counted of this one. False: so many topics have one that
// there is no room for another.
func (o *objectives) set(number int32) bool {
	topic := &o.topics.all[number]
	limit, target := topic.config.ObjectiveMS*1e6, topic.config.ObjectivePPM
	switch {
	case limit < 0 || topic.gone:
		o.drop(number)
		return true
	case topic.objective > 0:
		if has := &o.all[topic.objective-1]; has.LimitNS == limit && has.TargetPPM == target {
			return true
		}
	case o.n == len(o.all):
		return false
	default:
		o.of[o.n] = number
		o.n++
		topic.objective = o.n
	}
	objective := metrics.Objective{LimitNS: limit, TargetPPM: target}
	objective.TopicLen = uint32(copy(objective.TopicName[:metrics.TopicNameMax], topic.nameBytes))
	o.all[topic.objective-1] = objective
	return true
}

func (o *objectives) drop(number int32) {
	topic := &o.topics.all[number]
	if topic.objective == 0 {
		return
	}
	i := topic.objective - 1
	topic.objective = 0
	o.n--
	if i < o.n {
		o.all[i], o.of[i] = o.all[o.n], o.of[o.n]
		o.topics.all[o.of[i]].objective = i + 1
	}
}

// count counts a request for a topic that was promised something. A request names
// its topics one after another: the one named last was counted.
func (o *objectives) count(topic int32, last *int32, tookNS int64) {
	if topic == none || topic == *last {
		return
	}
	*last = topic
	if i := o.topics.all[topic].objective; i > 0 {
		objective := &o.all[i-1]
		objective.Total++
		if tookNS > objective.LimitNS {
			objective.Missed++
		}
	}
}
