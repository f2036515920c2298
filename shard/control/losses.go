package control

import (
	"cmp"
	"encoding/binary"
	"encoding/json"
	"slices"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tailbound/tailbound/cluster"
	"github.com/tailbound/tailbound/engine/format"
	"github.com/tailbound/tailbound/shard"
)

// lostRecords is a configuration of topics that DescribeConfigs has only for those who ask for
// it by its name: what the topic's partitions have lost, as a JSON list of Loss. It
// is read-only, and costs a question to each data shard.
const lostRecords = "lost.records"

const lostRecordsDoc = "Ranges of offsets whose acknowledged records are lost, as their bytes on disk are not what was written. Only described where it is asked for by its name."

// Loss is a range of offsets of a partition, From to To - 1, that is lost, and where the first of
// them was on disk; an empty File: in no segment. From == To: an unknown number behind the
// log's end.
type Loss struct {
	Partition int32  `json:"partition"`
	From      int64  `json:"from"`
	To        int64  `json:"to"`
	File      string `json:"file,omitempty"`
	At        int64  `json:"at"`
}

// describeLosses asks the data shards what a topic has lost, and makes that the value of one
// configuration of the response.
func (c *control) describeLosses(task *task, topic *cluster.Topic, resp *kmsg.DescribeConfigsResponse, resource, config int) {
	number, ok := c.numbers[topic.ID]
	if !ok {
		return
	}
	var all []Loss
	for i := 1; i <= c.o.DataShards; i++ {
		c.ask(i, shard.Mail{Kind: shard.MailLosses, B: uint64(number)}, nil, question{task: task, onAnswer: func(mail shard.Mail) {
			all = append(all, lossesIn(mail)...)
			slices.SortFunc(all, func(a, b Loss) int {
				return cmp.Or(cmp.Compare(a.Partition, b.Partition), cmp.Compare(a.From, b.From))
			})
			if text, err := json.Marshal(all); err == nil && len(all) > 0 {
				value := string(text)
				resp.Resources[resource].Configs[config].Value = &value
			}
		}})
	}
}

// lossesIn is the ranges in a data shard's answer.
func lossesIn(mail shard.Mail) (all []Loss) {
	if mail.Code != 0 {
		return nil
	}
	b := mail.Block.Bytes()
	for range mail.A {
		loss := Loss{Partition: int32(binary.LittleEndian.Uint64(b)), From: int64(binary.LittleEndian.Uint64(b[8:])), To: int64(binary.LittleEndian.Uint64(b[16:]))}
		if generation := binary.LittleEndian.Uint64(b[24:]); generation != 0 {
			loss.File, loss.At = format.SegmentPath(generation), int64(binary.LittleEndian.Uint64(b[32:]))
		}
		all = append(all, loss)
		b = b[shard.LossMailBytes:]
	}
	return all
}
