package kafka

import (
	"encoding/binary"
	"hash/crc32"
)

// A producer says in a batch's header which is the largest timestamp of its records, and
// some say what is not true: librdkafka 0 where no record has a timestamp, Sarama before
// 1.45.1 always -1. Kafka's broker sets that field itself, from the records, and so does
// this one where it looks at them: in uncompressed batches. A compressed batch is not
// decompressed; there the header is believed if it can be true.

// Times is what is known of the timestamps of a batch's records.
type Times struct {
	Largest int64 // ms; -1: no record has a timestamp
	Checked bool  // each record has a timestamp, and none is newer than Largest
	AtLeast bool  // Largest is that of the first record, and others may be newer
}

// noTimes is the Times of no records.
var noTimes = Times{Largest: -1, Checked: true}

// add counts one more record.
func (t *Times) add(time int64) {
	t.Largest = max(t.Largest, time)
	t.Checked = t.Checked && time >= 0
}

// claimedTimes is what a header says of records that are not looked at. A first timestamp
// that is negative is none; then the largest can only be believed to be the largest of
// those that there are. One that is older than the first cannot be true.
func (b *Batch) claimedTimes() Times {
	switch {
	case b.AppendTime() || b.BaseTime >= 0 && b.MaxTime >= b.BaseTime:
		return Times{Largest: b.MaxTime, Checked: true}
	case b.BaseTime >= 0:
		return Times{Largest: b.BaseTime, AtLeast: true}
	case b.MaxTime > 0:
		return Times{Largest: b.MaxTime}
	}
	return Times{Largest: -1}
}

// TimesOf is what is known of the timestamps of a stored batch.
func TimesOf(raw []byte) Times {
	header := ParseBatchHeader(raw)
	if header.Codec() != 0 || header.AppendTime() {
		return header.claimedTimes()
	}
	times := noTimes
	for it := Records(raw); ; {
		record, ok := it.Next()
		if !ok {
			return times
		}
		times.add(record.Time)
	}
}

// MayReach says whether a stored batch may have a record that is not older than ts.
func (b *Batch) MayReach(ts int64) bool {
	return b.MaxTime >= ts || b.Codec() != 0 && b.claimedTimes().AtLeast
}

// StampMaxTime sets the largest timestamp in the header of an uncompressed batch to that
// of its records, if it is not, and the checksum (DefaultRecordBatch.setMaxTimestamp).
func StampMaxTime(raw []byte, b *Batch) {
	if b.Codec() != 0 || b.MaxTime == b.Times.Largest {
		return
	}
	b.MaxTime = b.Times.Largest
	binary.BigEndian.PutUint64(raw[35:], uint64(b.MaxTime))
	b.CRC = crc32.Checksum(raw[21:], castagnoli)
	binary.BigEndian.PutUint32(raw[17:], b.CRC)
}
