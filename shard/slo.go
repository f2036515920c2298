package shard

import "github.com/tailbound/tailbound/metrics"

// objectives has the topics with a latency objective, and how many of their requests
// missed it. It belongs to the shard; the flight recorder hands out copies.
//
// Invariant: topics.all[of[i]].objective == i + 1 for each i < n.
type objectives struct {
	all    [metrics.ObjectivesMax]metrics.Objective
	of     [metrics.ObjectivesMax]int32 // index of the topic
	n      int
	topics *topicTable
}

// set puts a topic's objective into force. Where it has changed, counting begins
// anew. False: there is no room for another topic's.
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

// drop removes a topic's objective.
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

// count counts a request for a topic, if that has an objective. last is the topic of
// the request that was counted before: a request counts once for each group of its
// partitions.
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
