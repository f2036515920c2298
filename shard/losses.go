package shard

import (
	"encoding/binary"
	"strconv"

	"github.com/tailbound/tailbound/engine"
	"github.com/tailbound/tailbound/engine/format"
)

// What partitions have lost: acknowledged records that the disk does not give back. They
// are named in the log when the partition is, and when a read finds them; the
// control shard is told for the topic's description.

// lossLinesMax bounds the lines about one partition at a start.
const lossLinesMax = 4

// reportLosses logs what a partition has lost, where there is anything.
func (s *Shard) reportLosses(p *partition) {
	count := s.engine.Holes(p.slot, s.losses[:])
	if count == 0 {
		return
	}
	for i := range s.losses[:min(count, lossLinesMax)] {
		line := s.lines.begin("")
		line = appendPlace(line, &s.losses[i])
		line = s.topics.appendPartition(appendLost(line, &s.losses[i]), p.topic, p.index)
		line = append(line, ", which takes no more records; the others can be read"...)
		if more := count - lossLinesMax; i == lossLinesMax-1 && more > 0 {
			line = append(line, "; "...)
			line = strconv.AppendInt(line, int64(more), 10)
			line = append(line, " more such ranges are not listed here"...)
		}
		line = append(line, ": `tailbound repair` shows the ways to go on"...)
		s.lines.write(Error, line)
	}
}

// appendPlace appends where a hole is, as in "segments/0000000100000003 at 8192: ".
func appendPlace(line []byte, hole *engine.Hole) []byte {
	if hole.Generation == 0 {
		return line
	}
	line = append(line, format.SegmentPath(hole.Generation)...)
	line = append(line, " at "...)
	line = strconv.AppendInt(line, hole.At, 10)
	return append(line, ": "...)
}

// appendLost appends which records are lost, as in "offsets 20 to 29 are lost of ".
func appendLost(line []byte, hole *engine.Hole) []byte {
	if hole.From == hole.To {
		line = append(line, "records at offset "...)
		line = strconv.AppendInt(line, hole.From, 10)
		return append(line, " and behind may be lost of "...)
	}
	line = append(line, "offsets "...)
	line = strconv.AppendInt(line, hole.From, 10)
	line = append(line, " to "...)
	line = strconv.AppendInt(line, hole.To-1, 10)
	return append(line, " are lost of "...)
}

// regained logs that a partition takes records again: its start has passed what it lost.
func (s *Shard) regained(p *partition) {
	if !p.named {
		return
	}
	line := s.topics.appendPartition(s.lines.begin(""), p.topic, p.index)
	s.lines.write(Info, append(line, " takes records again: what it had lost lies before its start now"...))
}

// LossMailBytes is a range in an answer: the partition, from, to, the segment's generation
// and the position in it; the last two as in engine.Hole.
const LossMailBytes = 40

// lossesPerAnswer is how many ranges one answer has.
const lossesPerAnswer = 1024

// tellLosses answers what the partitions of topic number mail.B have lost.
func (s *Shard) tellLosses(mail Mail) engine.Status {
	block, ok := s.mailMem.Get(lossesPerAnswer * LossMailBytes)
	if !ok {
		return engine.WaitMemory
	}
	b, n := block.Bytes(), 0
	for _, p := range s.topics.all[mail.B].partitions {
		if p == nil {
			continue
		}
		count := min(s.engine.Holes(p.slot, s.losses[:]), len(s.losses))
		for _, hole := range s.losses[:count] {
			if n == lossesPerAnswer {
				break
			}
			x := b[n*LossMailBytes:]
			binary.LittleEndian.PutUint64(x, uint64(p.index))
			binary.LittleEndian.PutUint64(x[8:], uint64(hole.From))
			binary.LittleEndian.PutUint64(x[16:], uint64(hole.To))
			binary.LittleEndian.PutUint64(x[24:], hole.Generation)
			binary.LittleEndian.PutUint64(x[32:], uint64(hole.At))
			n++
		}
	}
	s.outbox.put(Mail{Kind: MailLost, Serial: mail.Serial, A: uint64(n), Block: block}, 0)
	return engine.OK
}
