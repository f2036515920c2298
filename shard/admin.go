package shard

import (
	"github.com/twmb/franz-go/pkg/kmsg"

	"tailbound/cluster"
)

// Administration: what operators ask of the control shard beside making and
// deleting topics. What only a data shard knows, or has to do, is a question:
//
//	ask(); await mail; answered()
//
// A question takes one of the control's credits until it is answered, so data
// shards have a place for each that is open.

// question is one mail to a data shard whose answer a task waits for.
type question struct {
	task *task
	item int // in the task's response
	part int // in the item
}

// ask sends a question for a task. fill is copied into a block, which the data
// shard gives back.
func (c *control) ask(to int, m mail, fill []byte, q question) {
	q.task.pending++
	c.asked++
	if c.asked == 0 {
		c.asked++ // 0 is no question
	}
	m.serial = c.asked
	c.questions[m.serial] = q
	c.errands = append(c.errands, errand{to: to, m: m, fill: fill})
}

// answered takes a data shard's answer.
func (c *control) answered(m mail) {
	c.credit++
	q := c.questions[m.serial]
	delete(c.questions, m.serial)
	if m.code != 0 {
		q.task.fail(q.item, m.code, "")
	}
	c.less(q.task)
}

// tellConfig has every data shard act on a topic's configurations, before the
// task that changed them is answered.
func (c *control) tellConfig(t *cluster.Topic, by *task, item int) {
	number, ok := c.numbers[t.ID]
	if !ok {
		return
	}
	fill := appendConfig(nil, t.LogConfig())
	for i := 1; i <= c.s.o.DataShards; i++ {
		c.ask(i, mail{kind: mailConfigure, b: uint64(number)}, fill, question{task: by, item: item})
	}
}

// validateOnly says whether a change is a rehearsal.
func (t *task) validateOnly() bool {
	if t == nil {
		return false
	}
	switch r := t.req.(type) {
	case *kmsg.CreateTopicsRequest:
		return r.ValidateOnly
	case *kmsg.AlterConfigsRequest:
		return r.ValidateOnly
	case *kmsg.IncrementalAlterConfigsRequest:
		return r.ValidateOnly
	}
	return false
}
