package kafka

import (
	"encoding/binary"
	"hash/crc32"
	"math"
)

// Record batch v2 (DefaultRecordBatch.java), all fields big-endian:
//
//	 0 base offset 8        21 attributes 2         43 producer id 8
//	 8 length 4             23 last offset delta 4  51 producer epoch 2
//	12 leader epoch 4       27 base timestamp 8     53 base sequence 4
//	16 magic 1              35 max timestamp 8      57 record count 4
//	17 CRC-32C 4, over 21.. to the end              61 records

// BatchHeaderBytes is the size of a batch's header.
const BatchHeaderBytes = 61

const (
	attributeCodec         = 0x07
	attributeAppendTime    = 0x08
	attributeTransactional = 0x10
	attributeControl       = 0x20
	codecMax               = CodecZstd // none, gzip, snappy, lz4, zstd
)

// CodecZstd is allowed from Produce 7 and Fetch 10 on (KIP-110). Older versions are
// answered UNSUPPORTED_COMPRESSION_TYPE.
const CodecZstd = 4

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Batch is a batch's header without the fields that the broker sets. ValidateBatch sets
// Times too, and where it refuses a batch Fault and FaultRecord.
type Batch struct {
	Count           int32
	LastOffsetDelta int32
	BaseTime        int64 // ms
	MaxTime         int64 // ms
	ProducerID      int64 // -1: not idempotent
	ProducerEpoch   int16
	BaseSequence    int32
	CRC             uint32
	Attributes      int16
	Times           Times

	Fault       string // what is wrong, in words
	FaultRecord int32  // with which record; only if Fault is faultOfRecord
}

// faultOfRecord is the Fault of a batch of which one record is wrong.
const faultOfRecord = "a record is not what the batch's header says of it, or not a whole one"

// RecordAtFault returns the index of the record for which ValidateBatch has refused a
// batch, -1 if it is no single one.
func (b *Batch) RecordAtFault() int32 {
	if b.Fault == faultOfRecord {
		return b.FaultRecord
	}
	return -1
}

// refuse keeps what is wrong, and returns the code for it.
func (b *Batch) refuse(code ErrorCode, fault string) ErrorCode {
	b.Fault = fault
	return code
}

// ParseBatchHeader parses a header; b has at least BatchHeaderBytes.
func ParseBatchHeader(b []byte) (h Batch) {
	h.parse(b)
	return h
}

func (h *Batch) parse(b []byte) {
	_ = b[BatchHeaderBytes-1]
	h.CRC = binary.BigEndian.Uint32(b[17:])
	h.Attributes = int16(binary.BigEndian.Uint16(b[21:]))
	h.LastOffsetDelta = int32(binary.BigEndian.Uint32(b[23:]))
	h.BaseTime = int64(binary.BigEndian.Uint64(b[27:]))
	h.MaxTime = int64(binary.BigEndian.Uint64(b[35:]))
	h.ProducerID = int64(binary.BigEndian.Uint64(b[43:]))
	h.ProducerEpoch = int16(binary.BigEndian.Uint16(b[51:]))
	h.BaseSequence = int32(binary.BigEndian.Uint32(b[53:]))
	h.Count = int32(binary.BigEndian.Uint32(b[57:]))
}

// BaseOffset returns the first offset of a stored batch.
func BaseOffset(b []byte) int64 { return int64(binary.BigEndian.Uint64(b)) }

// BatchBytes returns the length of the batch at the start of b, header included,
// according to its length field.
func BatchBytes(b []byte) int { return 12 + int(int32(binary.BigEndian.Uint32(b[8:]))) }

// BatchCRC returns the checksum in a batch's header.
func BatchCRC(b []byte) uint32 { return binary.BigEndian.Uint32(b[17:]) }

// ChecksumFits says whether a batch matches its checksum. b has at least
// BatchHeaderBytes.
func ChecksumFits(b []byte) bool { return crc32.Checksum(b[21:], castagnoli) == BatchCRC(b) }

// LeaderEpoch returns the leader epoch of a stored batch.
func LeaderEpoch(b []byte) int32 { return int32(binary.BigEndian.Uint32(b[12:])) }

// PatchBase sets a batch's base offset and leader epoch, which its CRC does not cover.
func PatchBase(b []byte, base int64, epoch int32) {
	binary.BigEndian.PutUint64(b, uint64(base))
	binary.BigEndian.PutUint32(b[12:], uint32(epoch))
}

// StampAppendTime gives all records of a batch the broker's time in ms. It sets the
// attribute of LogAppendTime, the largest timestamp, and the checksum
// (DefaultRecordBatch.setMaxTimestamp). The records' own timestamps stay in the batch
// and are ignored.
func StampAppendTime(raw []byte, b *Batch, time int64) {
	b.Attributes |= attributeAppendTime
	b.MaxTime, b.Times = time, Times{Largest: time, Checked: true}
	binary.BigEndian.PutUint16(raw[21:], uint16(b.Attributes))
	binary.BigEndian.PutUint64(raw[35:], uint64(time))
	b.CRC = crc32.Checksum(raw[21:], castagnoli)
	binary.BigEndian.PutUint32(raw[17:], b.CRC)
}

// TimesWithin says whether no record of a batch that ValidateBatch has accepted is older
// than earliest or newer than latest, in ms. A timestamp of -1 means none, and is accepted
// (LogValidator.validateTimestamp). Records are looked at only if earliest is not
// math.MinInt64; for a compressed batch the header's first and largest timestamps are
// taken instead.
func TimesWithin(b *Batch, raw []byte, earliest, latest int64) bool {
	within := func(t int64) bool { return t == -1 || t >= earliest && t <= latest }
	if b.Codec() != 0 {
		claimed := b.claimedTimes()
		return max(b.BaseTime, claimed.Largest) <= latest && within(max(b.BaseTime, -1)) && (b.BaseTime >= 0 || within(claimed.Largest))
	}
	if b.Times.Largest > latest {
		return false
	}
	if earliest == math.MinInt64 {
		return true
	}
	for it := Records(raw); ; {
		r, ok := it.Next()
		if !ok {
			return true
		}
		if !within(r.Time) {
			return false
		}
	}
}

// UntimelyRecord returns the first record for which TimesWithin refuses a batch, and its
// time; -1 for a compressed batch, with the largest time that its header claims.
func UntimelyRecord(b *Batch, raw []byte, earliest, latest int64) (index int32, time int64) {
	if b.Codec() != 0 {
		return -1, max(b.BaseTime, b.claimedTimes().Largest)
	}
	for it := Records(raw); ; index++ {
		r, ok := it.Next()
		if !ok {
			return -1, b.Times.Largest
		}
		if r.Time != -1 && (r.Time < earliest || r.Time > latest) {
			return index, r.Time
		}
	}
}

// Codec returns how the records are compressed (CompressionType.java); 0: they are
// not.
func (b *Batch) Codec() int { return int(b.Attributes & attributeCodec) }

// SequenceAdd returns the sequence number n after seq. Neither is negative. Sequence
// numbers wrap from 2^31-1 to 0 (DefaultRecordBatch.incrementSequence).
func SequenceAdd(seq, n int32) int32 { return int32((int64(seq) + int64(n)) & (1<<31 - 1)) }

// recordBytesMin is the smallest length field that Kafka accepts in a batch
// (LegacyRecord.RECORD_OVERHEAD_V0).
const recordBytesMin = 14

// ValidateBatch returns None if b is exactly one record batch that a producer may
// send. Checks and codes are those of Kafka's leader, in its order
// (ByteBufferLogInputStream.nextBatch, ProduceRequest.validateRecords,
// UnifiedLog.analyzeAndValidateRecords, LogValidator.validateBatch). The records of an
// uncompressed batch are parsed; a compressed batch is not decompressed.
//
// It is stricter than Kafka where Kafka would rewrite a batch, because batches are
// stored here as they arrived: bytes after the batch, offset deltas other than 0, 1,
// 2, ..., and the attribute of LogAppendTime are refused. An unknown codec is
// UNSUPPORTED_COMPRESSION_TYPE, where Kafka returns an unknown server error.
//
// h is set to the header, if b has a whole one, and h.Times to what is known of the
// records' timestamps.
func ValidateBatch(b []byte, max int, h *Batch) ErrorCode {
	if len(b) < 12 {
		return h.refuse(InvalidRecord, "the record batch is cut short")
	}
	length := int64(int32(binary.BigEndian.Uint32(b[8:])))
	switch {
	case length < recordBytesMin:
		return h.refuse(CorruptMessage, "the record batch's length is impossible")
	case len(b) < 17:
		return h.refuse(InvalidRecord, "the record batch is cut short")
	case b[16] > 2:
		return h.refuse(CorruptMessage, "the record batch's magic is none that Kafka has")
	case 12+length > int64(len(b)):
		return h.refuse(InvalidRecord, "the record batch is cut short")
	case b[16] < 2: // Produce 3 and later do not have message sets
		return h.refuse(InvalidRecord, "it is a message set of magic 0 or 1, not a record batch")
	case 12+length < int64(len(b)):
		return h.refuse(InvalidRecord, "a second record batch, or other bytes, follow the first")
	case BaseOffset(b) != 0:
		return h.refuse(InvalidRecord, "the record batch's base offset is not 0")
	case len(b) > max:
		return MessageTooLarge
	case len(b) < BatchHeaderBytes:
		return h.refuse(CorruptMessage, "the record batch's length is impossible")
	}
	h.parse(b)
	if crc32.Checksum(b[21:], castagnoli) != h.CRC {
		return h.refuse(CorruptMessage, "the record batch does not match its checksum")
	}
	if h.Codec() != 0 {
		h.Times = h.claimedTimes()
	} else {
		h.Times = noTimes
	}
	switch {
	case h.Count <= 0 || int64(h.LastOffsetDelta)+1 != int64(h.Count):
		return h.refuse(InvalidRecord, "the record batch's count and last offset delta do not agree, or it is empty")
	case h.Attributes&attributeControl != 0:
		return h.refuse(InvalidRecord, "it is a control batch, which only brokers write")
	case h.ProducerID < -1 || h.ProducerID >= 0 && (h.BaseSequence < 0 || h.ProducerEpoch < 0):
		return h.refuse(InvalidRecord, "the record batch has a producer id without a sequence number or an epoch")
	case h.Codec() > codecMax:
		return h.refuse(UnsupportedCompressionType, "the record batch's codec is none that Kafka has")
	case h.Codec() == 0 && !wholeRecords(b[BatchHeaderBytes:], h):
		return InvalidRecord
	case h.Codec() != 0 && !mayOpen(b[BatchHeaderBytes:], h):
		return InvalidRecord
	case h.Attributes&attributeAppendTime != 0:
		return h.refuse(InvalidTimestamp, "the record batch has the attribute of LogAppendTime, which only brokers set")
	case h.Attributes&attributeTransactional != 0: // no transaction is open: there are none
		return h.refuse(InvalidTxnState, "the record batch is transactional, and its request has no transactional id")
	}
	return None
}

// codecRatio bounds how many bytes come out of one byte of each codec: of gzip 258 bytes of
// two bits (RFC 1951), of snappy 64 bytes of three, of lz4 255 of one, of zstd a block of
// 128 KiB of four (RFC 8878).
var codecRatio = [codecMax + 1]int64{1: 1032, 2: 64, 3: 256, 4: 1 << 16}

// recordBytesLeast is the size of the smallest record: seven fields of a byte each.
const recordBytesLeast = 7

// mayOpen says whether b may be the compressed records of a batch, as far as that is seen
// without opening it: it begins as its codec's streams do, and that many records can come out
// of that many bytes.
func mayOpen(b []byte, h *Batch) bool {
	records, most := int64(h.Count)*recordBytesLeast, int64(len(b))*codecRatio[h.Codec()]
	switch h.Codec() {
	case 1: // gzip
		return len(b) >= 18 && b[0] == 0x1f && b[1] == 0x8b && b[2] == 8 && records <= most
	case 2: // snappy
		if len(b) >= 16 && string(b[:8]) == "\x82SNAPPY\x00" { // Java's framing
			return records <= most
		}
		size, n := binary.Uvarint(b) // snappy's own: the size of what is in it
		return n > 0 && n < len(b) && size <= math.MaxInt32 && records <= int64(size) && int64(size) <= most
	case 3: // lz4
		return len(b) >= 11 && binary.LittleEndian.Uint32(b) == 0x184d2204 && records <= most
	}
	if len(b) < 9 {
		return false
	}
	magic := binary.LittleEndian.Uint32(b)
	return (magic == 0xfd2fb528 || magic&^0xf == 0x184d2a50) && records <= most // a frame, or one that is skipped
}

// wholeRecords says whether b is exactly as many uncompressed records as the header says,
// with the offset deltas 0, 1, 2, .... It adds their timestamps to h.Times.
func wholeRecords(b []byte, h *Batch) bool {
	for i := range h.Count {
		n, at := varint32(b)
		if at <= 0 || n < 0 || n > int64(len(b)-at) || !wholeRecord(b[at:at+int(n)], i, h) {
			h.Fault, h.FaultRecord = faultOfRecord, i
			return false
		}
		b = b[at+int(n):]
	}
	if len(b) != 0 {
		h.Fault, h.FaultRecord = faultOfRecord, h.Count-1
	}
	return len(b) == 0
}

func wholeRecord(b []byte, delta int32, h *Batch) bool {
	if len(b) < 1 {
		return false
	}
	b = b[1:] // attributes
	after, n := varint(b)
	if n <= 0 {
		return false
	}
	h.Times.add(h.BaseTime + after)
	b = b[n:]
	d, n := varint32(b)
	if n <= 0 || d != int64(delta) {
		return false
	}
	b = b[n:]
	for range 2 { // key, value; -1 is null
		if b = skipBytes(b, -1); b == nil {
			return false
		}
	}
	headers, n := varint32(b)
	if n <= 0 || headers < 0 || headers > int64(len(b)) {
		return false
	}
	b = b[n:]
	for range headers {
		if b = skipBytes(b, 0); b == nil {
			return false
		}
		if b = skipBytes(b, -1); b == nil {
			return false
		}
	}
	return len(b) == 0
}

// skipBytes skips a length, which must be at least least, and that many bytes. nil: b
// is too short.
func skipBytes(b []byte, least int64) []byte {
	n, at := varint32(b)
	if at <= 0 || n < least || n > int64(len(b)-at) {
		return nil
	}
	return b[at+int(max(n, 0)):]
}

// varint32 reads a zigzag varint of 32 bits in at most 5 bytes. Clients refuse a longer
// one (ByteUtils.readVarint) and could never read past a record that has it. n <= 0:
// b does not begin with one.
func varint32(b []byte) (v int64, n int) {
	v, n = varint(b)
	if n > 5 || v != int64(int32(v)) {
		return 0, 0
	}
	return v, n
}

// varint reads a zigzag varint of 64 bits. n <= 0: b does not begin with one.
func varint(b []byte) (v int64, n int) {
	if len(b) > 0 && b[0] < 0x80 {
		return int64(b[0]>>1) ^ -int64(b[0]&1), 1
	}
	return binary.Varint(b)
}

// BatchIter iterates over stored batches, one after another.
type BatchIter struct{ b []byte }

// Batches returns an iterator over the batches of b.
func Batches(b []byte) BatchIter { return BatchIter{b} }

// Next returns the next batch, a view. False: the rest is empty or not a whole batch.
func (i *BatchIter) Next() (b []byte, ok bool) {
	if len(i.b) < BatchHeaderBytes {
		return nil, false
	}
	n := BatchBytes(i.b)
	if n < BatchHeaderBytes || n > len(i.b) {
		return nil, false
	}
	b, i.b = i.b[:n:n], i.b[n:]
	return b, true
}

// Record is one record of an uncompressed batch. Key and Value are views.
type Record struct {
	Delta      int64 // its offset, relative to the batch's base offset
	Time       int64 // ms
	Key, Value []byte
}

// RecordIter iterates over the records of a stored, uncompressed batch.
type RecordIter struct {
	b        []byte
	baseTime int64
	left     int32
}

// Records returns an iterator over the records of a batch. It is empty for a compressed
// batch, and if b is not a whole batch.
func Records(b []byte) RecordIter {
	if len(b) < BatchHeaderBytes || BatchBytes(b) < BatchHeaderBytes || BatchBytes(b) > len(b) {
		return RecordIter{}
	}
	h := ParseBatchHeader(b)
	if h.Codec() != 0 || h.Count < 0 {
		return RecordIter{}
	}
	return RecordIter{b[BatchHeaderBytes:BatchBytes(b)], h.BaseTime, h.Count}
}

// Next returns the next record. False: there is none, or the rest is not valid.
func (i *RecordIter) Next() (r Record, ok bool) {
	if i.left == 0 {
		return r, false
	}
	n, at := varint32(i.b)
	if at <= 0 || n < 1 || n > int64(len(i.b)-at) {
		return r, false
	}
	b := i.b[at+1 : at+int(n)]
	i.b = i.b[at+int(n):]
	i.left--
	t, at := varint(b)
	if at <= 0 {
		return r, false
	}
	b = b[at:]
	if r.Delta, at = varint32(b); at <= 0 {
		return r, false
	}
	b = b[at:]
	r.Time = i.baseTime + t
	for _, f := range []*[]byte{&r.Key, &r.Value} {
		n, at := varint32(b)
		if at <= 0 || n > int64(len(b)-at) {
			return r, false
		}
		b = b[at:]
		if n >= 0 {
			*f, b = b[:n], b[n:]
		}
	}
	return r, true
}

// AppendTime says whether the timestamp of all records is the time of the append, which
// is the batch's largest timestamp.
func (b *Batch) AppendTime() bool { return b.Attributes&attributeAppendTime != 0 }

// AppendBatch appends a batch of one record, uncompressed and not idempotent, as the
// broker itself writes them.
func AppendBatch(dst []byte, wall int64, key, value []byte) []byte {
	record := make([]byte, 0, 32+len(key)+len(value))
	record = append(record, 0, 0, 0) // attributes, time delta, offset delta
	for _, f := range [][]byte{key, value} {
		if f == nil {
			record = binary.AppendVarint(record, -1)
			continue
		}
		record = binary.AppendVarint(record, int64(len(f)))
		record = append(record, f...)
	}
	record = append(record, 0) // headers
	at := len(dst)
	dst = append(dst, make([]byte, BatchHeaderBytes)...)
	dst = binary.AppendVarint(dst, int64(len(record)))
	dst = append(dst, record...)
	b := dst[at:]
	binary.BigEndian.PutUint32(b[8:], uint32(len(b)-12))
	b[16] = 2
	binary.BigEndian.PutUint64(b[27:], uint64(wall))
	binary.BigEndian.PutUint64(b[35:], uint64(wall))
	binary.BigEndian.PutUint64(b[43:], ^uint64(0))
	binary.BigEndian.PutUint16(b[51:], ^uint16(0))
	binary.BigEndian.PutUint32(b[53:], ^uint32(0))
	binary.BigEndian.PutUint32(b[57:], 1)
	binary.BigEndian.PutUint32(b[17:], crc32.Checksum(b[21:], castagnoli))
	return dst
}
