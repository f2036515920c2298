package control

import (
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tailbound/tailbound/kafka"
)

// InitProducerId (22): 2 is flexible, 3 names the producer's present id and epoch
// (KIP-360), 4 may be answered with PRODUCER_FENCED (KIP-588), 5 with
// TRANSACTION_ABORTABLE (KIP-890). 6 is not served: it belongs to transactions in two phases
// (KIP-939). Ids are allocated in blocks, so that only one id in many waits for the disk:
//
//	reserve a block; await durable(); give its ids out

// initProducerID allocates an id of a block that is durable. A transactional id is refused:
// there is no coordinator of transactions.
func (c *control) initProducerID(task *task, req *kmsg.InitProducerIDRequest, resp *kmsg.InitProducerIDResponse) {
	resp.ProducerID, resp.ProducerEpoch = -1, -1
	switch {
	case (req.ProducerID == -1) != (req.ProducerEpoch == -1), req.TransactionalID != nil && *req.TransactionalID == "":
		resp.ErrorCode = int16(kafka.InvalidRequest)
		return
	case req.TransactionalID != nil:
		resp.ErrorCode = int16(kafka.TransactionalIDAuthorizationFailed)
		return
	}
	task.pending++
	c.ids = append(c.ids, task)
	c.giveIDs()
}

func failInitProducerID(_ *kmsg.InitProducerIDRequest, resp *kmsg.InitProducerIDResponse, _ int, code kafka.ErrorCode, _ string) {
	resp.ErrorCode, resp.ProducerID = int16(code), -1
}

// giveIDs answers the requests that wait for an id, in order, and reserves the next block
// before the present one is used up.
func (c *control) giveIDs() {
	for len(c.ids) > 0 {
		id, reserve := c.state.NextProducerID()
		if c.o.Faults.ProducerIDTwice {
			id, c.early = c.early, c.early+1
		}
		if reserve && !c.reserving {
			c.reserving = true
			c.enqueue(change{kind: changeReserve})
		}
		if id < 0 {
			if c.gaveUp {
				c.abandonIDs()
			}
			return
		}
		task := c.ids[0]
		c.ids = c.ids[1:]
		resp := task.resp.(*kmsg.InitProducerIDResponse)
		resp.ProducerID, resp.ProducerEpoch = id, 0
		c.done(task)
	}
	c.ids = nil
}

// refuseIDs fails the requests that wait for an id: no block can be reserved.
func (c *control) refuseIDs(code kafka.ErrorCode, message string) {
	c.reserving = false
	for _, task := range c.ids {
		task.fail(wholeRequest, code, message)
		c.done(task)
	}
	c.ids = nil
}

// abandonIDs closes the connections of the requests that wait for an id: the broker stops
// before another block is reserved.
func (c *control) abandonIDs() {
	for _, task := range c.ids {
		c.abandon(task)
	}
	c.ids = nil
}
