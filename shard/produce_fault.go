package shard

import (
	"strconv"

	"github.com/tailbound/tailbound/cluster"
	"github.com/tailbound/tailbound/kafka"
)

// Why a batch is refused is told in words from kafka.ProduceFaults on: the partition,
// what is wrong with the batch, and the limits that it exceeds. A message takes what the
// blocks of the reply have left, so it costs nobody memory; where they have nothing
// left, in a request with very many partitions, the code stands alone. It does so too
// where a batch was taken and a later write or sync fails: its answer has its place in
// the reply by then.

// faultBytesMax is enough for every message: a topic's name, a partition, and a
// sentence with numbers.
const faultBytesMax = cluster.TopicNameBytesMax + 263

// putFault writes the answer for a batch that is refused, and returns where it stands
// in the reply.
func (s *Shard) putFault(req *request, produce *produceRequest, entry *appending, code kafka.ErrorCode, topic, index int32, last bool) []byte {
	version := req.header.Version
	fault := s.faultOf(produce, entry, code, topic, index)
	plain := kafka.ProducePartitionBytes(version, last)
	size := kafka.ProduceFaultBytes(version, last, &fault)
	if extra := int32(size - plain); extra <= produce.slack {
		produce.slack -= extra
		reply := s.net.Bytes(req.id, size)
		kafka.PutProduceFault(reply, version, last, index, code, &fault)
		return reply
	}
	reply := s.net.Bytes(req.id, plain)
	kafka.PutProducePartition(reply, version, last, index, code, -1, -1, -1)
	return reply
}

// faultOf composes the message, in the shard's scratch memory.
func (s *Shard) faultOf(produce *produceRequest, entry *appending, code kafka.ErrorCode, topic, index int32) kafka.ProduceFault {
	record, b := int32(-1), sentence(s.produces.message[:0])
	if topic == none {
		b.number("partition ", int64(index))
	} else {
		b.text(s.topics.all[topic].name)
		b.number("/", int64(index))
	}
	b.text(": ")
	switch code {
	case kafka.UnknownTopicOrPartition:
		b.text("this broker has no such topic or partition")
	case kafka.UnknownTopicID:
		b.text("this broker has no topic of that id")
	case kafka.NotLeaderOrFollower:
		b.text("another node leads it; Metadata says which")
	case kafka.InvalidRequiredAcks:
		b.number("acks is ", int64(produce.acks))
		b.text("; it may be 0, 1 or -1")
	case kafka.TransactionalIDAuthorizationFailed:
		b.text("the request has a transactional id, and this broker has no transactions")
	case kafka.MessageTooLarge:
		b.number("the record batch has ", int64(entry.records.Len))
		b.number(" bytes, and max.message.bytes is ", int64(entry.partition.batchBytesMax(s.o.MessageBytesMax)))
	case kafka.RecordListTooLarge:
		b.number("the record batch has ", int64(entry.records.Len))
		b.number(" bytes, and segment.bytes is ", entry.partition.config.SegmentBytes)
	case kafka.OutOfOrderSequenceNumber:
		b.number("sequence number ", int64(entry.batch.BaseSequence))
		b.number(" is not the next one of producer ", entry.batch.ProducerID)
		b.number(" in its epoch ", int64(entry.batch.ProducerEpoch))
	case kafka.InvalidProducerEpoch:
		b.number("epoch ", int64(entry.batch.ProducerEpoch))
		b.number(" of producer ", entry.batch.ProducerID)
		b.text(" has been followed by another")
	case kafka.InvalidTimestamp:
		if entry.batch.Fault != "" {
			b.text(entry.batch.Fault)
			break
		}
		p, time := entry.partition, int64(0)
		record, time = kafka.UntimelyRecord(&entry.batch, entry.dst, p.earliest(s.wall), p.latest(s.wall))
		b.number("the timestamp ", time)
		b.number(" is not within message.timestamp.before.max.ms ", p.config.BeforeMaxMS)
		b.number(" and message.timestamp.after.max.ms ", p.config.AfterMaxMS)
		b.number(" of the broker's time ", int64(s.wall))
	case kafka.KafkaStorageError:
		if entry.fault == "" {
			entry.fault = "its storage has failed"
		}
		b.text(entry.fault)
	default:
		switch record = entry.batch.RecordAtFault(); {
		case entry.fault != "":
			b.text(entry.fault)
		case entry.batch.Fault != "":
			b.text(entry.batch.Fault)
		case entry.batch.Codec() != 0:
			b.text("the compressed records are cut short, or not what the record batch's codec writes")
		default:
			b.text(code.String())
		}
	}
	return kafka.ProduceFault{Message: b, Record: record}
}

// sentence is a message that is composed in memory that is there.
type sentence []byte

func (b *sentence) text(words string) { *b = append(*b, words...) }

func (b *sentence) number(before string, n int64) {
	b.text(before)
	*b = strconv.AppendInt(*b, n, 10)
}
