package shard

import (
	"strconv"

	"github.com/tailbound/tailbound/engine"
	"github.com/tailbound/tailbound/kafka"
)

// fatalf stops the shard at once, as it cannot go on; Fault is why. What it has
// acknowledged is in its files.
func (s *Shard) fatalf(what string, n int64) {
	s.fault = what + strconv.FormatInt(n, 10)
	if s.stage == StageServing { // a start that is refused is reported by its caller alone
		s.lines.writef(Error, what, n)
	}
	s.failed = true
	s.stage = StageDone
}

// storageFailed stops acknowledging: a write or sync of appends has failed. What was
// durable before can still be read.
func (s *Shard) storageFailed() {
	if s.failed {
		return
	}
	s.failed = true
	failure, _ := s.engine.Failure()
	line := s.appendFailure(s.lines.begin(""), &failure)
	line = append(line, "; this shard acknowledges nothing more"...)
	s.lines.write(Error, appendAdvice(line, &failure))
	s.truncations.fail(kafka.KafkaStorageError, nil)
	for i := range s.partitions.all {
		p := &s.partitions.all[i]
		s.failAppends(p, kafka.KafkaStorageError)
		if p.named {
			s.producers.truncate(p, p.highWatermark())
		}
	}
}

// appendFailure appends what has failed on the disk, and which records it concerns,
// as in "writing segments/0000000100000003, 4096 bytes at 8192: EIO: input/output
// error; offsets 20 to 29 of orders/2".
func (s *Shard) appendFailure(line []byte, failure *engine.Failure) []byte {
	line = append(line, failure.Error()...)
	if failure.Log == 0 {
		return line
	}
	line = append(line, "; "...)
	if failure.From < failure.To {
		line = append(line, "offsets "...)
		line = strconv.AppendInt(line, failure.From, 10)
		line = append(line, " to "...)
		line = strconv.AppendInt(line, failure.To-1, 10)
		line = append(line, " of "...)
	} else {
		line = append(line, "a file of "...)
	}
	line = s.appendLogName(line, failure.Log)
	if failure.Corrupt {
		line = append(line, " are lost, and it takes no more records; the others can be read"...)
	}
	return line
}

// appendLogName appends the partition of a log, as in "orders/2", from the log's
// creation to the end of its deletion; its id if it has no partition.
func (s *Shard) appendLogName(line []byte, id uint64) []byte {
	for i := range s.logOps.all {
		if op := &s.logOps.all[i]; op.used && op.id == id && op.topic != none {
			return s.topics.appendPartition(line, op.topic, op.index)
		}
	}
	if slot, ok := s.engine.Lookup(id); ok {
		if p := s.partitions.of(slot); p.topic != none {
			return s.topics.appendPartition(line, p.topic, p.index)
		}
	}
	line = append(line, "log "...)
	return strconv.AppendUint(line, id, 10)
}

// appendPartition appends a partition's name, as in "orders/2".
func (t *topicTable) appendPartition(line []byte, topic, index int32) []byte {
	line = append(line, t.all[topic].name...)
	line = append(line, '/')
	return strconv.AppendInt(line, int64(index), 10)
}

// appendAdvice appends what the operator can do about a failure, if anything.
func appendAdvice(line []byte, failure *engine.Failure) []byte {
	if advice := failure.Advice(); advice != "" {
		line = append(line, ": "...)
		line = append(line, advice...)
	}
	return line
}

// warnOfFailures logs operations on the disk that failed and were survived, at most
// one line a second, however many readers meet the same sector.
func (s *Shard) warnOfFailures() {
	count, last := s.engine.Troubles()
	failures := &s.lines.failures
	if count == failures.told || s.now < failures.next {
		return
	}
	line := s.appendFailure(s.lines.begin(""), &last)
	line = appendAdvice(line, &last)
	if more := count - failures.told - 1; more > 0 {
		line = append(line, "; others failed before it: "...)
		line = strconv.AppendUint(line, more, 10)
	}
	s.lines.write(Warn, line)
	failures.told, failures.next = count, s.now+repeatNS
}

// codeOf is the Kafka error code for a status of the engine.
func codeOf(st engine.Status) kafka.ErrorCode {
	switch st {
	case engine.OK, engine.Empty:
		return kafka.None
	case engine.OutOfRange:
		return kafka.OffsetOutOfRange
	case engine.Unknown:
		return kafka.UnknownTopicOrPartition
	case engine.TooLarge:
		return kafka.MessageTooLarge
	case engine.Corrupt:
		return kafka.CorruptMessage
	case engine.Full:
		return kafka.PolicyViolation
	default: // NoSpace, StorageFailed, LogCorrupt
		return kafka.KafkaStorageError
	}
}
