package interop

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// A victim is a topic with a few records beside which something is tried that must not hurt it.
type victim struct {
	b      *broker
	topic  string
	leader string
	end    int64
}

func newVictim(t *testing.T) *victim {
	t.Helper()
	b := sharedBroker(t)
	v := &victim{b: b, topic: topicName(t)}
	v.leader = createTopic(t, b, v.topic, 1)
	mustProduce(t, dialTo(t, v.leader), v.topic, bytesOf(batchOf("kept", "too")))
	v.end = 2
	return v
}

// unhurt verifies that every node still answers, that nothing was added to the topic, and that it takes another record and gives it back.
func (v *victim) unhurt(t *testing.T, after string) {
	t.Helper()
	w := dialTo(t, v.b.addr())
	m := metadata(t, w, v.topic)
	for _, n := range m.Brokers {
		if err := answers(fmt.Sprintf("%s:%d", n.Host, n.Port)); err != nil {
			t.Fatalf("after %s node %d does not answer: %v", after, n.NodeID, err)
		}
	}
	if end := endOf(t, v.leader, v.topic); end != v.end {
		t.Errorf("after %s the end is %d, want %d: something of it was stored", after, end, v.end)
		v.end = end
	}
	d := dialTo(t, v.leader)
	sent := bytesOf(batchOf("after " + after))
	if base := mustProduce(t, d, v.topic, sent); base != v.end {
		t.Errorf("after %s a record is at %d, want %d", after, base, v.end)
	}
	p := mustAsk[*kmsg.FetchResponse](t, d, fetchRequest(v.topic, 11, v.end, 0)).Topics[0].Partitions[0]
	if p.ErrorCode != 0 || len(p.RecordBatches) < len(sent) || !bytes.Equal(p.RecordBatches[17:len(sent)], sent[17:]) {
		t.Errorf("after %s the record cannot be read: error %d, %d bytes", after, p.ErrorCode, len(p.RecordBatches))
	}
	v.end++
}

// ports are those an abuse is tried on: the control shard's and a data shard's.
func (v *victim) ports() map[string]string {
	return map[string]string{"control": v.b.addr(), "data": v.leader}
}

func be32(v int32) []byte { return binary.BigEndian.AppendUint32(nil, uint32(v)) }

// TestNoise: what is not Kafka is shown the door, at once.
func TestNoise(t *testing.T) {
	needReal(t, "it waits for the rest of frames of any size")
	v := newVictim(t)
	var hello bytes.Buffer
	tls.Client(recorder{&hello}, &tls.Config{ServerName: "tailbound"}).Handshake()
	for name, said := range map[string][]byte{
		"an HTTP GET":             []byte("GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n"),
		"an HTTP POST":            []byte("POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}"),
		"a TLS hello":             hello.Bytes(),
		"an SSH banner":           []byte("SSH-2.0-OpenSSH_9.6\r\n"),
		"length -1":               append(be32(-1), make([]byte, 64)...),
		"length -2^31":            append(be32(-1<<31), make([]byte, 64)...),
		"length 0":                append(be32(0), make([]byte, 64)...),
		"length 7":                append(be32(7), make([]byte, 64)...),
		"length 2^31-1":           append(be32(1<<31-1), make([]byte, 64)...),
		"length 200 MiB":          append(be32(200<<20), make([]byte, 64)...),
		"a client id of -2 bytes": append(be32(10), 0, 18, 0, 0, 0, 0, 0, 1, 0xff, 0xfe),
		"a client id too long":    append(be32(10), 0, 18, 0, 0, 0, 0, 0, 1, 0x7f, 0xff),
		"key 9999":                append(be32(14), 0x27, 0x0f, 0, 0, 0, 0, 0, 1, 0xff, 0xff, 0, 0, 0, 0),
		"key -1":                  append(be32(14), 0xff, 0xff, 0, 0, 0, 0, 0, 1, 0xff, 0xff, 0, 0, 0, 0),
	} {
		for port, addr := range v.ports() {
			w := dialTo(t, addr)
			w.Write(said)
			if err := w.closedBy(5 * time.Second); err != nil {
				t.Errorf("%s to the %s port: %v", name, port, err)
			}
		}
		v.unhurt(t, name)
	}
}

// A recorder keeps what is written to it and has nothing to say.
type recorder struct{ *bytes.Buffer }

func (recorder) Read([]byte) (int, error)         { return 0, io.EOF }
func (recorder) Close() error                     { return nil }
func (recorder) LocalAddr() net.Addr              { return nil }
func (recorder) RemoteAddr() net.Addr             { return nil }
func (recorder) SetDeadline(time.Time) error      { return nil }
func (recorder) SetReadDeadline(time.Time) error  { return nil }
func (recorder) SetWriteDeadline(time.Time) error { return nil }

// TestHalfFrames: senders that stop in the middle, with much announced, hold nothing that others need.
func TestHalfFrames(t *testing.T) {
	v := newVictim(t)
	whole := frame(produceRequest(v.topic, 7, -1, bytesOf(batchOf(strings.Repeat("x", 900000)))), 1)
	var held []*wire
	stop := func(sent int) {
		for _, addr := range v.ports() {
			w := dialTo(t, addr)
			w.Write(whole[:sent])
			held = append(held, w)
		}
	}
	for i := range 500 {
		stop([]int{1, 4, 5, 20, 60, 500}[i%6])
	}
	v.unhurt(t, "many frames hardly begun, then silence")
	for i := range 48 {
		stop([]int{5000, len(whole) / 2, len(whole) - 1}[i%3])
	}
	v.unhurt(t, "half frames then silence")
	for _, w := range held {
		w.Close()
	}
	v.unhurt(t, "half frames then an end")
}

// TestSlowSender: a request that comes byte by byte is as good as another.
func TestSlowSender(t *testing.T) {
	v := newVictim(t)
	w := dialTo(t, v.leader)
	w.Conn.(*net.TCPConn).SetNoDelay(true)
	req := produceRequest(v.topic, 7, -1, bytesOf(batchOf("drop by drop")))
	for _, c := range frame(req, 7) {
		w.Write([]byte{c})
		time.Sleep(200 * time.Microsecond)
	}
	resp, err := w.receive(req, 7)
	if err != nil || errorIn(resp) != 0 {
		t.Fatalf("%v %v", resp, err)
	}
	v.end++
	v.unhurt(t, "a slow sender")
}

// TestUnknownVersions: ApiVersions beyond what is known is answered in its oldest form (KIP-511); any other key as Kafka does, by the end of the
// connection, or by UNSUPPORTED_VERSION.
func TestUnknownVersions(t *testing.T) {
	needReal(t, "it answers otherwise")
	v := newVictim(t)
	for port, addr := range v.ports() {
		w := dialTo(t, addr)
		for _, version := range []int16{99, 5000, 32767} {
			body := kmsg.NewPtrApiVersionsRequest()
			body.Version, body.ClientSoftwareName, body.ClientSoftwareVersion = 3, "interop", "1"
			raw := frame(body, int32(version))
			binary.BigEndian.PutUint16(raw[6:], uint16(version))
			w.Write(raw)
			resp, err := w.receive(kmsg.NewPtrApiVersionsRequest(), int32(version)) // version 0
			if err != nil {
				t.Fatalf("ApiVersions v%d to the %s port: %v", version, port, err)
			}
			r := resp.(*kmsg.ApiVersionsResponse)
			found := false
			for _, k := range r.ApiKeys {
				found = found || k.ApiKey == 18 && k.MaxVersion >= 3
			}
			if r.ErrorCode != kerr.UnsupportedVersion.Code || !found {
				t.Errorf("ApiVersions v%d to the %s port: error %d, keys %v", version, port, r.ErrorCode, r.ApiKeys)
			}
		}
		if _, err := w.ask(kmsg.NewPtrApiVersionsRequest()); err != nil {
			t.Errorf("ApiVersions v0 after v99 on one connection to the %s port: %v", port, err)
		}
		promised := mustAsk[*kmsg.ApiVersionsResponse](t, dialTo(t, addr), kmsg.NewPtrApiVersionsRequest())
		for _, k := range promised.ApiKeys {
			for _, version := range []int16{-1, k.MinVersion - 1, k.MaxVersion + 1, 99} {
				if k.ApiKey == 18 || version >= k.MinVersion && version <= k.MaxVersion || k.ApiKey == 0 && version >= 0 && version < 3 {
					continue
				}
				req := kmsg.RequestForKey(k.ApiKey)
				if req == nil {
					continue
				}
				req.SetVersion(min(max(version, 0), req.MaxVersion()))
				raw := frame(req, 3)
				binary.BigEndian.PutUint16(raw[6:], uint16(version))
				w := dialTo(t, addr)
				w.Write(raw)
				got, err := w.receiveRaw()
				if err == nil && (len(got) < 4 || !bytes.Equal(got[:4], be32(3)) || !bytes.Contains(got, []byte{0, 35})) {
					t.Errorf("%s v%d to the %s port is answered with %x", kmsg.NameForKey(k.ApiKey), version, port, got)
				}
				if timeout, ok := err.(net.Error); ok && timeout.Timeout() {
					t.Errorf("%s v%d to the %s port: neither an answer nor an end", kmsg.NameForKey(k.ApiKey), version, port)
				}
			}
		}
	}
	v.unhurt(t, "unknown versions")
}

// TestFloors: the single versions that clients insist on. librdkafka to 2.11.0 takes the absence of one for the absence of a feature, and then sends
// without compression or not at all; kafka-go's Conn looks only at the largest version it knows of each key.
func TestFloors(t *testing.T) {
	needReal(t, "its floors are its own")
	v := newVictim(t)
	for port, addr := range v.ports() {
		promised := make(map[int16][2]int16)
		for _, k := range mustAsk[*kmsg.ApiVersionsResponse](t, dialTo(t, addr), kmsg.NewPtrApiVersionsRequest()).ApiKeys {
			promised[k.ApiKey] = [2]int16{k.MinVersion, k.MaxVersion}
		}
		for _, want := range [][2]int16{
			{0, 0}, {0, 3}, {0, 7}, {1, 4}, {1, 10}, {2, 1}, {3, 0}, {3, 1}, {3, 4}, {10, 0}, {18, 0}, {18, 3}, {19, 2}, {19, 4}, {20, 1}, {22, 0}, {22, 4}, {23, 2},
		} {
			if r, ok := promised[want[0]]; !ok || want[1] < r[0] || want[1] > r[1] {
				t.Errorf("%s v%d is not promised at the %s port (%v)", kmsg.NameForKey(want[0]), want[1], port, r)
			}
		}
	}
}

// TestOldProduce: Produce v0 to v2 are advertised, because old librdkafka takes their absence for an old broker, and refused.
func TestOldProduce(t *testing.T) {
	needReal(t, "it does not advertise them")
	v := newVictim(t)
	promised := mustAsk[*kmsg.ApiVersionsResponse](t, dialTo(t, v.b.addr()), kmsg.NewPtrApiVersionsRequest())
	if k := promised.ApiKeys[0]; k.ApiKey != 0 || k.MinVersion != 0 {
		t.Errorf("the first key is %d from v%d on, want Produce from v0 on", k.ApiKey, k.MinVersion)
	}
	var old kmsg.MessageV0 // a message set of one message
	old.Value = []byte("old")
	old.MessageSize = int32(len(old.AppendTo(nil)) - 12)
	for version := int16(0); version <= 2; version++ {
		for _, records := range [][]byte{bytesOf(batchOf("new in old")), old.AppendTo(nil)} {
			req := produceRequest(v.topic, version, -1, records)
			resp, err := dialTo(t, v.leader).ask(req)
			if err == nil && errorIn(resp) != kerr.UnsupportedVersion.Code {
				t.Errorf("Produce v%d: error %d", version, errorIn(resp))
			}
		}
	}
	v.unhurt(t, "Produce v0 to v2")
}

// TestBadBatches: what is not exactly one sound v2 batch is refused with a word of Kafka's, and the connection lives on.
func TestBadBatches(t *testing.T) {
	needReal(t, "it believes what it is told")
	v := newVictim(t)
	edit := func(do func(b *kmsg.RecordBatch)) []byte {
		b := batchOf("one", "two")
		do(&b)
		return bytesOf(b)
	}
	good := bytesOf(batchOf("one", "two"))
	patch := func(at int, with ...byte) []byte {
		raw := bytes.Clone(good)
		copy(raw[at:], with)
		return raw
	}
	cases := map[string][]byte{
		"a wrong CRC":                        patch(17, 1, 2, 3, 4),
		"a flipped bit in the last byte":     patch(len(good)-1, good[len(good)-1]^1),
		"magic 0":                            patch(16, 0),
		"magic 1":                            patch(16, 1),
		"magic 3":                            patch(16, 3),
		"magic -1":                           patch(16, 0xff),
		"length 0":                           patch(8, 0, 0, 0, 0),
		"length -1":                          patch(8, 0xff, 0xff, 0xff, 0xff),
		"length 48":                          patch(8, 0, 0, 0, 48),
		"length one too large":               patch(8, be32(int32(len(good)-12+1))...),
		"length one too small":               patch(8, be32(int32(len(good)-12-1))...),
		"length 2^31-1":                      patch(8, 0x7f, 0xff, 0xff, 0xff),
		"count 0":                            edit(func(b *kmsg.RecordBatch) { b.NumRecords = 0 }),
		"count 0, last delta -1":             edit(func(b *kmsg.RecordBatch) { b.NumRecords, b.LastOffsetDelta, b.Records = 0, -1, nil }),
		"count -1":                           edit(func(b *kmsg.RecordBatch) { b.NumRecords = -1 }),
		"count one more than the last delta": edit(func(b *kmsg.RecordBatch) { b.NumRecords = 3 }),
		"count one less than the last delta": edit(func(b *kmsg.RecordBatch) { b.NumRecords = 1 }),
		"last delta 2^31-1":                  edit(func(b *kmsg.RecordBatch) { b.LastOffsetDelta, b.NumRecords = 1<<31-1, -1<<31 }),
		"a control batch":                    edit(func(b *kmsg.RecordBatch) { b.Attributes |= 1 << 5 }),
		"a transactional batch of nobody":    edit(func(b *kmsg.RecordBatch) { b.Attributes |= 1 << 4 }),
		"codec 5":                            edit(func(b *kmsg.RecordBatch) { b.Attributes |= 5 }),
		"codec 7":                            edit(func(b *kmsg.RecordBatch) { b.Attributes |= 7 }),
		"a producer without a sequence":      edit(func(b *kmsg.RecordBatch) { b.ProducerID, b.ProducerEpoch, b.FirstSequence = 1, 0, -1 }),
		"two batches":                        append(bytes.Clone(good), good...),
		"a batch and a half":                 append(bytes.Clone(good), good[:40]...),
		"a batch and zeroes":                 append(bytes.Clone(good), make([]byte, 100)...),
		"no batch":                           {},
		"null":                               nil,
		"zeroes":                             make([]byte, 200),
		"noise":                              []byte(strings.Repeat("\xde\xad\xbe\xef", 50)),
		"a batch one byte too large":         oversized(),
	}
	for n := range 61 {
		cases[fmt.Sprintf("the first %02d bytes", n)] = good[:n]
	}
	for _, name := range slices.Sorted(maps.Keys(cases)) {
		v.refuses(t, name, cases[name])
	}
	v.unhurt(t, "bad batches")

	// The largest that is allowed is allowed.
	if base := mustProduce(t, dialTo(t, v.leader), v.topic, sized(messageBytesMax)); base != v.end {
		t.Errorf("a batch of exactly message.max.bytes is at %d, want %d", base, v.end)
	}
}

// TestFalseCounts: uncompressed records that are not what the batch's header says of them. Only parsing tells; the CRC is right.
func TestFalseCounts(t *testing.T) {
	needReal(t, "it believes what it is told")
	v := newVictim(t)
	counted := func(n int32) []byte {
		b := batchOf("one", "two")
		b.NumRecords, b.LastOffsetDelta = n, n-1
		return bytesOf(b)
	}
	none := bytesOf(batchOf("one", "two"))
	copy(none[61:], []byte{0xff, 0xff, 0xff, 0xff, 0xff})
	v.refuses(t, "two records counted as one", counted(1))
	v.refuses(t, "two records counted as 1000", counted(1000))
	v.refuses(t, "two records counted as 2^31-1", counted(1<<31-1))
	v.refuses(t, "records that are no records", seal(none))
	v.unhurt(t, "false counts")
}

// refusals are the words in which a batch may be refused.
var refusals = map[int16]bool{
	kerr.CorruptMessage.Code: true, kerr.InvalidRecord.Code: true, kerr.UnsupportedForMessageFormat.Code: true, kerr.MessageTooLarge.Code: true,
	kerr.InvalidTimestamp.Code: true, kerr.UnsupportedCompressionType.Code: true, kerr.InvalidRequest.Code: true, kerr.OutOfOrderSequenceNumber.Code: true,
	kerr.InvalidTxnState.Code: true, kerr.UnknownProducerID.Code: true, kerr.InvalidProducerEpoch.Code: true, kerr.InvalidProducerIDMapping.Code: true,
}

// refuses verifies that records are refused, that nothing of them is stored, and that the connection lives on.
func (v *victim) refuses(t *testing.T, name string, records []byte) {
	t.Helper()
	for _, version := range []int16{3, 8, 9} {
		w := dialTo(t, v.leader)
		resp, err := w.ask(produceRequest(v.topic, version, -1, records))
		if err != nil {
			t.Errorf("%s (v%d): %v", name, version, err)
			continue
		}
		code := errorIn(resp)
		want, exact := map[string]*kerr.Error{"a wrong CRC": kerr.CorruptMessage, "a batch one byte too large": kerr.MessageTooLarge}[name]
		if !refusals[code] || exact && code != want.Code {
			t.Errorf("%s (v%d): error %d (%v)", name, version, code, kerr.ErrorForCode(code))
		}
		if why := resp.(*kmsg.ProduceResponse).Topics[0].Partitions[0].ErrorMessage; version >= 8 && (why == nil || !strings.HasPrefix(*why, v.topic+"/0: ") || len(*why) < len(v.topic)+10) {
			t.Errorf("%s (v%d): no message says why: %v", name, version, why)
		}
		if _, err := w.ask(kmsg.NewPtrApiVersionsRequest()); err != nil {
			t.Errorf("%s (v%d): the connection after it: %v", name, version, err)
		}
	}
	if end := endOf(t, v.leader, v.topic); end != v.end {
		t.Errorf("%s: the end is %d, was %d: it was stored", name, end, v.end)
		v.end = end
	}
}

// TestRefusedBatchesSayWhy: from Produce 8 on every refused batch is answered with what is wrong, with numbers, and with the record where it is one.
func TestRefusedBatchesSayWhy(t *testing.T) {
	needReal(t, "it says nothing")
	b := sharedBroker(t)
	adm := admin(t, b)
	topic, strict, elsewhere := topicName(t), topicName(t)+".strict", topicName(t)+".many"
	leader := createTopic(t, b, topic, 1)
	strictLeader := configured(t, b, adm, strict, map[string]string{"max.message.bytes": "1000", "message.timestamp.before.max.ms": "3600000"})
	createTopic(t, b, elsewhere, 8)
	good := bytesOf(batchOf("one", "two"))
	edited := func(do func(b *kmsg.RecordBatch)) []byte {
		b := batchOf("one", "two")
		do(&b)
		return bytesOf(b)
	}
	id := adminTopicID(t, adm, topic)
	broken := batchOf("one", "two", "three")
	at := bytes.Index(broken.Records, []byte("two"))
	broken.Records[at-2] = 0x7e // the length of the value
	for version := int16(8); version <= 13; version++ {
		for _, c := range []struct {
			what    string
			leader  string
			records []byte
			change  func(req *kmsg.ProduceRequest)
			record  int32 // -1: none
			says    string
		}{
			{"too large", strictLeader, bytesOf(batchOf(strings.Repeat("x", 2000))), func(req *kmsg.ProduceRequest) { req.Topics[0].Topic = strict }, -1, "bytes, and max.message.bytes is 1000"},
			{"too old", strictLeader, batchAt(time.Now().UnixMilli(), 1000), func(req *kmsg.ProduceRequest) { req.Topics[0].Topic = strict }, 1, strict + "/0: the timestamp 1000 is not within message.timestamp.before.max.ms 3600000"},
			{"a flipped bit", leader, append(bytes.Clone(good[:len(good)-1]), good[len(good)-1]^1), nil, -1, topic + "/0: the record batch does not match its checksum"},
			{"a record that is none", leader, bytesOf(broken), nil, 1, topic + "/0: a record is not what"},
			{"a codec that is none", leader, edited(func(b *kmsg.RecordBatch) { b.Attributes |= 5 }), nil, -1, "codec"},
			{"a sequence number that is not next", leader, edited(func(b *kmsg.RecordBatch) { b.ProducerID, b.ProducerEpoch, b.FirstSequence = 777, 3, 40 }), nil, -1, ""},
			{"one too far", leader, edited(func(b *kmsg.RecordBatch) { b.ProducerID, b.ProducerEpoch, b.FirstSequence = 777, 3, 77 }), nil, -1, topic + "/0: sequence number 77 is not the next one of producer 777 in its epoch 3"},
			{"an older epoch", leader, edited(func(b *kmsg.RecordBatch) { b.ProducerID, b.ProducerEpoch, b.FirstSequence = 777, 2, 0 }), nil, -1, topic + "/0: epoch 2 of producer 777"},
			{"acks", leader, good, func(req *kmsg.ProduceRequest) { req.Acks = 7 }, -1, topic + "/0: acks is 7"},
			{"a transactional id", leader, good, func(req *kmsg.ProduceRequest) { req.TransactionID = kmsg.StringPtr("t") }, -1, topic + "/0: the request has a transactional id"},
			{"no such partition", leader, good, func(req *kmsg.ProduceRequest) { req.Topics[0].Partitions[0].Partition = 9 }, -1, topic + "/9: this broker has no such topic or partition"},
			{"another node's", b.addr(), good, nil, -1, topic + "/0: another node leads it"},
			{"no such partition of another node", b.addr(), good, func(req *kmsg.ProduceRequest) { req.Topics[0].Partitions[0].Partition = 9 }, -1, topic + "/9: this broker has no such topic or partition"},
			{"no such topic of another node", b.addr(), good, func(req *kmsg.ProduceRequest) { req.Topics[0].Topic, req.Topics[0].TopicID = "nowhere", [16]byte{1} }, -1, "0: this broker has no"},
			{"no such topic", leader, good, func(req *kmsg.ProduceRequest) { req.Topics[0].Topic, req.Topics[0].TopicID = "nowhere", [16]byte{1} }, -1, "partition 0: this broker has no"},
		} {
			req := produceRequest(topic, version, -1, c.records)
			if c.change != nil {
				c.change(req)
			}
			if req.Topics[0].Topic == topic {
				req.Topics[0].TopicID = id
			} else if req.Topics[0].Topic == strict {
				req.Topics[0].TopicID = adminTopicID(t, adm, strict)
			}
			p := mustAsk[*kmsg.ProduceResponse](t, dialTo(t, c.leader), req).Topics[0].Partitions[0]
			if c.says == "" { // accepted, once: it makes the producer known
				continue
			}
			if p.ErrorCode == 0 || p.ErrorMessage == nil || !strings.Contains(*p.ErrorMessage, c.says) || p.BaseOffset != -1 {
				t.Errorf("%s (v%d): %+v, %v; want %q", c.what, version, p, p.ErrorMessage, c.says)
			}
			if c.record < 0 != (len(p.ErrorRecords) == 0) || c.record >= 0 && len(p.ErrorRecords) == 1 && p.ErrorRecords[0].RelativeOffset != c.record {
				t.Errorf("%s (v%d): records at fault %+v, want %d", c.what, version, p.ErrorRecords, c.record)
			}
		}
	}
	// Several partitions in one request: taken, refused, another node's. Of very many the first say why.
	req := produceRequest(elsewhere, 9, -1, nil)
	req.Topics[0].Partitions = nil
	for i := range int32(8) {
		p := kmsg.NewProduceRequestTopicPartition()
		p.Partition, p.Records = i, good
		if i%2 == 1 {
			p.Records = good[:70]
		}
		req.Topics[0].Partitions = append(req.Topics[0].Partitions, p)
	}
	refused := 0
	for _, p := range mustAsk[*kmsg.ProduceResponse](t, dialTo(t, leaderOf(t, b, elsewhere, 0)), req).Topics[0].Partitions {
		if p.ErrorCode == 0 != (p.ErrorMessage == nil) || p.ErrorMessage != nil && !strings.HasPrefix(*p.ErrorMessage, fmt.Sprintf("%s/%d: ", elsewhere, p.Partition)) {
			t.Errorf("one of eight partitions: %+v, %v", p, p.ErrorMessage)
		}
		if p.ErrorMessage != nil {
			refused++
		}
	}
	if refused < 4 {
		t.Errorf("%d of eight partitions are refused", refused)
	}
	for _, n := range []int{20, 117, 118, 500} {
		req := produceRequest(topic, 8, 1, nil)
		for i := range n {
			p := kmsg.NewProduceRequestTopicPartition()
			p.Partition = int32(i + 1)
			req.Topics[0].Partitions = append(req.Topics[0].Partitions, p)
		}
		said := 0
		for _, p := range mustAsk[*kmsg.ProduceResponse](t, dialTo(t, leader), req).Topics[0].Partitions {
			if p.ErrorMessage != nil {
				said++
			}
		}
		if n == 20 && said < 20 { // beyond a block of the reply the first do
			t.Errorf("of %d refused partitions %d say why", n, said)
		}
	}
}

// batchAt is a batch of two records with these timestamps.
func batchAt(first, second int64) []byte {
	b := batchOf("one", "two")
	r := kmsg.NewRecord()
	b.Records = nil
	for i, at := range []int64{first, second} {
		r.TimestampDelta64, r.OffsetDelta, r.Value = at-first, int32(i), []byte("v")
		r.Length = 0
		r.Length = int32(len(r.AppendTo(nil)) - 1)
		b.Records = r.AppendTo(b.Records)
	}
	b.FirstTimestamp, b.MaxTimestamp = first, max(first, second)
	return bytesOf(b)
}

// adminTopicID is a topic's id.
func adminTopicID(t *testing.T, adm *kadm.Client, topic string) [16]byte {
	t.Helper()
	m, err := adm.Metadata(within(t, time.Minute), topic)
	if err != nil {
		t.Fatal(err)
	}
	return m.Topics[topic].ID
}

// sized builds a batch of exactly n bytes.
func sized(n int) []byte {
	for value := n - 80; ; value++ {
		if raw := bytesOf(batchOf(strings.Repeat("x", value))); len(raw) == n {
			return raw
		}
	}
}

func oversized() []byte { return sized(messageBytesMax + 1) }

// TestRefusals: errors of a request's address and form, each in Kafka's words.
func TestRefusals(t *testing.T) {
	v := newVictim(t)
	w := dialTo(t, v.leader)
	good := bytesOf(batchOf("lost"))
	nowhere := v.topic + ".nowhere"
	for _, c := range []struct {
		what string
		req  kmsg.Request
		want *kerr.Error
	}{
		{"produce to an unknown topic", produceRequest(nowhere, 7, -1, good), kerr.UnknownTopicOrPartition},
		{"fetch from an unknown topic", fetchRequest(nowhere, 11, 0, 0), kerr.UnknownTopicOrPartition},
		{"offsets of an unknown topic", listRequest(nowhere, 4, -1), kerr.UnknownTopicOrPartition},
		{"produce to partition 77", partition77(produceRequest(v.topic, 7, -1, good)), kerr.UnknownTopicOrPartition},
		{"fetch from partition 77", partition77(fetchRequest(v.topic, 11, 0, 0)), kerr.UnknownTopicOrPartition},
		{"offsets of partition 77", partition77(listRequest(v.topic, 4, -1)), kerr.UnknownTopicOrPartition},
		{"acks 2", produceRequest(v.topic, 7, 2, good), kerr.InvalidRequiredAcks},
		{"acks -2", produceRequest(v.topic, 7, -2, good), kerr.InvalidRequiredAcks},
	} {
		if b := v.b; b.fake != nil && strings.HasPrefix(c.what, "acks") {
			continue
		}
		resp, err := w.ask(c.req)
		if err != nil {
			t.Errorf("%s: %v", c.what, err)
			w = dialTo(t, v.leader)
		} else if code := errorIn(resp); code != c.want.Code {
			t.Errorf("%s: error %d (%v), want %v", c.what, code, kerr.ErrorForCode(code), c.want)
		}
	}
	v.unhurt(t, "refusals")
	// Without auto-creation in the request, asking does not create.
	req := kmsg.NewPtrMetadataRequest()
	req.Version, req.AllowAutoTopicCreation = 4, false
	rt := kmsg.NewMetadataRequestTopic()
	rt.Topic = kmsg.StringPtr(nowhere)
	req.Topics = append(req.Topics, rt)
	for range 2 {
		if got := mustAsk[*kmsg.MetadataResponse](t, dialTo(t, v.b.addr()), req).Topics[0].ErrorCode; got != kerr.UnknownTopicOrPartition.Code {
			t.Errorf("metadata of an unknown topic: error %d", got)
		}
	}
}

func partition77(req kmsg.Request) kmsg.Request {
	switch r := req.(type) {
	case *kmsg.ProduceRequest:
		r.Topics[0].Partitions[0].Partition = 77
	case *kmsg.FetchRequest:
		r.Topics[0].Partitions[0].Partition = 77
	case *kmsg.ListOffsetsRequest:
		r.Topics[0].Partitions[0].Partition = 77
	}
	return req
}

// TestAcksZero: nothing is answered; an error ends the connection, for there is no other way to say it.
func TestAcksZero(t *testing.T) {
	needReal(t, "it does not end the connection")
	v := newVictim(t)
	w := dialTo(t, v.leader)
	for range 3 {
		if err := w.send(produceRequest(v.topic, 7, 0, bytesOf(batchOf("unanswered")))); err != nil {
			t.Fatal(err)
		}
		v.end++
	}
	// The answer to what follows is the first to come. Nothing says that the records are visible by then.
	if _, err := w.ask(kmsg.NewPtrApiVersionsRequest()); err != nil {
		t.Fatalf("after acks=0: %v", err)
	}
	for limit := time.Now().Add(10 * time.Second); endOf(t, v.leader, v.topic) != v.end && time.Now().Before(limit); {
		time.Sleep(5 * time.Millisecond)
	}
	broken := bytesOf(batchOf("broken"))
	broken[20]++
	for name, req := range map[string]*kmsg.ProduceRequest{
		"a wrong CRC":   produceRequest(v.topic, 7, 0, broken),
		"unknown topic": produceRequest(v.topic+".nowhere", 7, 0, bytesOf(batchOf("lost"))),
	} {
		w := dialTo(t, v.leader)
		w.send(req)
		if err := w.closedBy(10 * time.Second); err != nil {
			t.Errorf("acks=0, %s: %v", name, err)
		}
	}
	v.unhurt(t, "acks=0")
}

// TestPipelined: however many requests are on their way, their answers come in their order, a waiting fetch in front included.
func TestPipelined(t *testing.T) {
	v := newVictim(t)
	w := dialTo(t, v.leader)
	var reqs []kmsg.Request
	for i := range 60 {
		switch i % 6 {
		case 0:
			reqs = append(reqs, fetchRequest(v.topic, 11, v.end+10, 0)) // nothing there: refused
		case 1:
			reqs = append(reqs, kmsg.NewPtrApiVersionsRequest())
		case 2:
			reqs = append(reqs, produceRequest(v.topic, 7, -1, bytesOf(batchOf(strconv.Itoa(i)))))
			v.end++
		case 3:
			reqs = append(reqs, listRequest(v.topic, 4, -2))
		case 4:
			reqs = append(reqs, fetchRequest(v.topic, 4, 0, 0))
		case 5:
			m := kmsg.NewPtrMetadataRequest()
			m.Version = 4
			reqs = append(reqs, m)
		}
	}
	reqs[0] = fetchRequest(v.topic, 11, 2, 300*time.Millisecond) // waits at the end
	var all []byte
	for i, req := range reqs {
		all = append(all, frame(req, int32(1000+i))...)
	}
	go w.Write(all)
	base := int64(2)
	for i, req := range reqs {
		resp, err := w.receive(req, int32(1000+i))
		if err != nil {
			t.Fatalf("request %d (%s): %v", i, kmsg.NameForKey(req.Key()), err)
		}
		if p, ok := resp.(*kmsg.ProduceResponse); ok {
			if got := p.Topics[0].Partitions[0]; got.ErrorCode != 0 || got.BaseOffset != base {
				t.Errorf("request %d: base %d, error %d, want base %d", i, got.BaseOffset, got.ErrorCode, base)
			}
			base++
		}
	}
	v.unhurt(t, "pipelining")
}

// TestKafkaPythonProbe: kafka-python 2.0.2 finds out what it talks to by sending ApiVersions v0 and Metadata v0 of all topics at once.
func TestKafkaPythonProbe(t *testing.T) {
	v := newVictim(t)
	for port, addr := range v.ports() {
		w := dialTo(t, addr)
		first, second := kmsg.NewPtrApiVersionsRequest(), kmsg.NewPtrMetadataRequest()
		second.Topics = []kmsg.MetadataRequestTopic{} // of v0: all
		w.Write(append(frame(first, 1), frame(second, 2)...))
		r1, err := w.receive(first, 1)
		if err != nil {
			t.Fatalf("%s port: %v", port, err)
		}
		r2, err := w.receive(second, 2)
		if err != nil {
			t.Fatalf("%s port: %v", port, err)
		}
		if r := r1.(*kmsg.ApiVersionsResponse); r.ErrorCode != 0 || len(r.ApiKeys) < 8 {
			t.Errorf("%s port: ApiVersions: error %d, %d keys", port, r.ErrorCode, len(r.ApiKeys))
		}
		found := false
		for _, rt := range r2.(*kmsg.MetadataResponse).Topics {
			found = found || *rt.Topic == v.topic
		}
		if !found && v.b.fake == nil { // kfake takes it for none
			t.Errorf("%s port: the topic is not in Metadata v0 of all topics", port)
		}
	}
}

// TestVanishingClients: connections that end with requests in flight cost nothing that others need.
func TestVanishingClients(t *testing.T) {
	v := newVictim(t)
	stored := int64(0)
	for round := range 5 {
		var group sync.WaitGroup
		for i := range 100 {
			group.Go(func() {
				w, err := dial([]string{v.b.addr(), v.leader}[i%2])
				if err != nil {
					return
				}
				defer w.Close()
				switch i % 5 {
				case 0, 1, 2:
					w.send(fetchRequest(v.topic, 11, v.end+stored, 20*time.Second))
				case 3:
					w.Conn.(*net.TCPConn).SetLinger(0) // an end by reset
					w.send(kmsg.NewPtrApiVersionsRequest())
				}
				time.Sleep(time.Duration(i) * 100 * time.Microsecond)
			})
		}
		group.Wait()
		v.unhurt(t, fmt.Sprintf("round %d of vanishing clients", round))
	}
}

// TestSlowReader: a client that asks for much and reads nothing does not hold up another.
func TestSlowReader(t *testing.T) {
	v := newVictim(t)
	big := sized(messageBytesMax)
	for range 8 {
		mustProduce(t, dialTo(t, v.leader), v.topic, big)
		v.end++
	}
	for range 16 {
		w := dialTo(t, v.leader)
		w.Conn.(*net.TCPConn).SetReadBuffer(4096)
		go func() {
			for i := range 50 {
				if _, err := w.Write(frame(fetchRequest(v.topic, 11, 2, 0), int32(i))); err != nil {
					return
				}
			}
		}()
	}
	time.Sleep(300 * time.Millisecond)
	for range 5 {
		begun := time.Now()
		v.unhurt(t, "slow readers")
		if took := time.Since(begun); took > 5*time.Second {
			t.Errorf("beside slow readers a few requests took %v", took)
		}
	}
}

// TestDamagedRequests: sound requests with bytes changed, cut off or added end in an answer or the end of the connection, never in harm.
// TestCutBehindTheLastTopic: what stands behind the last topic of a request is
// read too. A request that ends there is malformed, and nothing of it is stored.
func TestCutBehindTheLastTopic(t *testing.T) {
	v := newVictim(t)
	epochs := kmsg.NewPtrOffsetForLeaderEpochRequest()
	epochs.SetVersion(4)
	topic := kmsg.NewOffsetForLeaderEpochRequestTopic()
	topic.Topic = v.topic
	partition := kmsg.NewOffsetForLeaderEpochRequestTopicPartition()
	partition.CurrentLeaderEpoch = -1
	topic.Partitions = append(topic.Partitions, partition)
	epochs.Topics = append(epochs.Topics, topic)
	for name, request := range map[string]kmsg.Request{
		"Produce 12":             produceRequest(v.topic, 12, -1, bytesOf(batchOf("cut", "goods"))),
		"Fetch 12":               fetchRequest(v.topic, 12, 0, 0),
		"ListOffsets 7":          listRequest(v.topic, 7, 0),
		"ListOffsets 10":         listRequest(v.topic, 10, 0), // whose timeout stands there
		"OffsetForLeaderEpoch 4": epochs,
	} {
		t.Run(name, func(t *testing.T) {
			whole := frame(request, 1)
			cut := bytes.Clone(whole[:len(whole)-1])
			binary.BigEndian.PutUint32(cut, uint32(len(cut)-4))
			for _, x := range []struct {
				raw   []byte
				reply bool
			}{{cut, false}, {whole, true}} {
				w, err := dial(v.leader)
				if err != nil {
					t.Fatal(err)
				}
				w.Write(x.raw)
				w.SetReadDeadline(time.Now().Add(10 * time.Second))
				if _, err := w.receiveRaw(); (err == nil) != x.reply {
					t.Errorf("%d of %d bytes: answered %v, wanted %v: %v", len(x.raw), len(whole), err == nil, x.reply, err)
				}
				w.Close()
			}
		})
	}
}

func TestDamagedRequests(t *testing.T) {
	needReal(t, "it panics")
	v := newVictim(t)
	seed := seedOf(t, 1)
	rng := rand.New(rand.NewPCG(seed, 0))
	whole := mustAsk[*kmsg.ApiVersionsResponse](t, dialTo(t, v.b.addr()), kmsg.NewPtrApiVersionsRequest())
	var samples [][]byte
	for _, k := range whole.ApiKeys {
		if req := kmsg.RequestForKey(k.ApiKey); req != nil && k.ApiKey != 19 && k.ApiKey != 20 {
			req.SetVersion(k.MinVersion + int16(rng.IntN(int(k.MaxVersion-k.MinVersion)+1)))
			samples = append(samples, frame(req, 1))
		}
	}
	for _, version := range []int16{3, 8, 9, 12} {
		samples = append(samples, frame(produceRequest(v.topic, version, -1, bytesOf(batchOf("damaged", "goods"))), 1))
	}
	for _, version := range []int16{4, 11, 12} {
		samples = append(samples, frame(fetchRequest(v.topic, version, 0, 0), 1))
	}
	for _, version := range []int16{1, 4, 6, 7} {
		samples = append(samples, frame(listRequest(v.topic, version, 0), 1))
	}
	rounds := 1500
	if testing.Short() {
		rounds = 300
	}
	silent := 0
	var last [][]byte
	defer func() { t.Logf("%d of %d got neither an answer nor an end in time", silent, rounds) }()
	for range rounds {
		raw := bytes.Clone(samples[rng.IntN(len(samples))])
		switch rng.IntN(4) {
		case 0: // cut, with the length set right
			raw = raw[:min(len(raw), 12+rng.IntN(len(raw)))]
		case 1: // added to
			raw = append(raw, make([]byte, rng.IntN(50))...)
		case 2: // a count or length gone wild
			if len(raw) > 16 {
				at := 12 + rng.IntN(len(raw)-15)
				copy(raw[at:], [][]byte{{0x7f, 0xff, 0xff, 0xff}, {0xff, 0xff, 0xff, 0xff}, {0x80, 0, 0, 0}, {0xff, 0xff, 0xff, 0x0f}, {0, 0, 0xff, 0xff}}[rng.IntN(5)])
			}
		case 3:
			for range 1 + rng.IntN(3) {
				raw[4+rng.IntN(len(raw)-4)] = byte(rng.Uint32())
			}
		}
		if k := binary.BigEndian.Uint16(raw[4:]); k == 19 || k == 20 {
			continue // what it would create or delete, it would
		}
		binary.BigEndian.PutUint32(raw, uint32(len(raw)-4))
		w, err := dial([]string{v.b.addr(), v.leader}[rng.IntN(2)])
		if err != nil {
			t.Fatalf("%v; the last requests were\n%x", err, last[max(0, len(last)-3):])
		}
		last = append(last, raw)
		w.Write(raw)
		// Something to answer comes after it, so that a request which rightly has no answer costs no wait.
		w.Write(frame(kmsg.NewPtrApiVersionsRequest(), 2))
		w.SetReadDeadline(time.Now().Add(250 * time.Millisecond)) // a damaged Fetch may rightly wait for days
		for {
			got, err := w.receiveRaw()
			if err != nil || len(got) >= 4 && bytes.Equal(got[:4], be32(2)) {
				if timeout, ok := err.(net.Error); ok && timeout.Timeout() {
					silent++
				}
				break
			}
		}
		w.Close()
	}
	// A change outside of the batch may leave a sound Produce. What counts is that what is stored can be read.
	v.end = endOf(t, v.leader, v.topic)
	v.unhurt(t, "damaged requests")
	rs, err := franz{}.consume(within(t, 30*time.Second), v.b, v.topic, zeroes(1), []int{int(v.end)})
	if err != nil {
		t.Error(err)
	}
	for i, r := range rs {
		if r.offset != int64(i) {
			t.Fatalf("record %d is at offset %d", i, r.offset)
		}
	}
}

// TestStalledConsumers: consumers that ask for much, from everywhere, and read none of it delay no producer, and are closed when memory is needed; a
// consumer that reads gets everything.
func TestStalledConsumers(t *testing.T) {
	needReal(t, "it is about the broker's memory")
	b := ownBroker(t)
	b.again(t, "--arena", "64MiB") // about 30 MB of log memory
	topic := topicName(t)
	leader := createTopic(t, b, topic, 1)
	w := dialTo(t, leader)
	big := bytesOf(batchOf(strings.Repeat("big", 60_000)))
	const history, more = 100, 400 // batches of 180 KB: 18 MB in memory, then 72 MB
	for range history {
		mustProduce(t, w, topic, big)
	}
	var stalled []*wire
	for i := range 100 {
		s := dialTo(t, leader)
		s.Conn.(*net.TCPConn).SetReadBuffer(4096)
		for k := range 4 {
			r := fetchRequest(topic, 11, int64((i*4+k)%history), 0)
			r.MaxBytes = 50 << 20
			r.Topics[0].Partitions[0].PartitionMaxBytes = 10 << 20
			if err := s.send(r); err != nil {
				t.Fatal(err)
			}
		}
		stalled = append(stalled, s)
	}
	for i := range more {
		w.SetDeadline(time.Now().Add(30 * time.Second)) // half of the time that a client has if no other waits
		if base := mustProduce(t, w, topic, big); base != int64(history+i) {
			t.Fatalf("a batch is at %d, want %d", base, history+i)
		}
	}
	good := dialTo(t, leader)
	good.SetDeadline(time.Now().Add(30 * time.Second))
	for at := int64(0); at < history+more; {
		p := mustAsk[*kmsg.FetchResponse](t, good, fetchRequest(topic, 11, at, 0)).Topics[0].Partitions[0]
		if p.ErrorCode != 0 {
			t.Fatalf("offset %d: %v", at, kerr.ErrorForCode(p.ErrorCode))
		}
		for rest := p.RecordBatches; len(rest) >= len(big); rest = rest[len(big):] {
			if !bytes.Equal(rest[61:len(big)], big[61:]) {
				t.Fatalf("offset %d has other bytes", at)
			}
			at++
		}
	}
	for _, s := range stalled {
		s.Close()
	}
}
