package interop

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"os"
	"runtime"
	"strconv"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kbin"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// messageBytesMax is Kafka's default for message.max.bytes: the size of a whole record batch.
const messageBytesMax = 1048588

func lockThread() { runtime.LockOSThread() }

// A wire is one connection on which the test says every byte itself.
type wire struct {
	net.Conn
	correlation int32
}

func dial(addr string) (*wire, error) {
	c, err := net.DialTimeout("tcp", addr, 5*time.Second)
	if err != nil {
		return nil, err
	}
	c.SetDeadline(time.Now().Add(30 * time.Second))
	return &wire{Conn: c}, nil
}

func dialTo(t *testing.T, addr string) *wire {
	t.Helper()
	w, err := dial(addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close() })
	return w
}

// ask sends a request of the version it carries and returns its response.
func (w *wire) ask(req kmsg.Request) (kmsg.Response, error) {
	if err := w.send(req); err != nil {
		return nil, err
	}
	return w.receive(req, w.correlation)
}

func (w *wire) send(req kmsg.Request) error {
	w.correlation++
	_, err := w.Write(frame(req, w.correlation))
	return err
}

func frame(req kmsg.Request, correlation int32) []byte {
	return kmsg.NewRequestFormatter(kmsg.FormatterClientID("interop")).AppendRequest(nil, req, correlation)
}

// receive reads the next response, which must be the one to req.
func (w *wire) receive(req kmsg.Request, correlation int32) (kmsg.Response, error) {
	body, err := w.receiveRaw()
	if err != nil {
		return nil, err
	}
	r := kbin.Reader{Src: body}
	if got := r.Int32(); got != correlation {
		return nil, fmt.Errorf("response to request %d where that to %d was due", got, correlation)
	}
	resp := req.ResponseKind()
	if resp.IsFlexible() && resp.Key() != 18 { // ApiVersions always has a response header v0
		kmsg.SkipTags(&r)
	}
	if err := r.Complete(); err != nil {
		return nil, err
	}
	if err := formed(req.Key(), req.GetVersion(), r.Src, nil); err != nil && !useFake() {
		return nil, err
	}
	return resp, resp.ReadFrom(r.Src)
}

// receiveRaw reads one frame and returns what follows its length.
func (w *wire) receiveRaw() ([]byte, error) {
	var length [4]byte
	if _, err := io.ReadFull(w, length[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(length[:])
	if n > 64<<20 {
		return nil, fmt.Errorf("a response of %d bytes", n)
	}
	body := make([]byte, n)
	_, err := io.ReadFull(w, body)
	return body, err
}

// closedBy says whether the peer closes the connection, without another byte, within limit.
func (w *wire) closedBy(limit time.Duration) error {
	w.SetReadDeadline(time.Now().Add(limit))
	var b [256]byte
	n, err := w.Read(b[:])
	var timeout net.Error
	switch {
	case n > 0:
		return fmt.Errorf("answered %q", b[:n])
	case errors.As(err, &timeout) && timeout.Timeout():
		return fmt.Errorf("still open after %v", limit)
	}
	return nil
}

func mustAsk[R kmsg.Response](t *testing.T, w *wire, req kmsg.Request) R {
	t.Helper()
	resp, err := w.ask(req)
	if err != nil {
		t.Fatalf("%s v%d: %v", kmsg.NameForKey(req.Key()), req.GetVersion(), err)
	}
	return resp.(R)
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// batchOf builds a v2 record batch of the given values, without compression.
func batchOf(values ...string) kmsg.RecordBatch {
	now := time.Now().UnixMilli()
	b := kmsg.RecordBatch{
		PartitionLeaderEpoch: -1, Magic: 2, LastOffsetDelta: int32(len(values) - 1), FirstTimestamp: now, MaxTimestamp: now,
		ProducerID: -1, ProducerEpoch: -1, FirstSequence: -1, NumRecords: int32(len(values)),
	}
	for i, v := range values {
		r := kmsg.Record{OffsetDelta: int32(i), Value: []byte(v)}
		r.Length = int32(len(r.AppendTo(nil)) - 1) // of everything after the length itself, which is one byte while it is 0
		b.Records = r.AppendTo(b.Records)
	}
	return b
}

// bytesOf encodes a batch, with its length and CRC set right.
func bytesOf(b kmsg.RecordBatch) []byte {
	raw := b.AppendTo(nil)
	binary.BigEndian.PutUint32(raw[8:], uint32(len(raw)-12))
	return seal(raw)
}

// seal sets the CRC of a batch right.
func seal(raw []byte) []byte {
	binary.BigEndian.PutUint32(raw[17:], crc32.Checksum(raw[21:], castagnoli))
	return raw
}

// produceRequest asks for records to be appended to partition 0 of topic.
func produceRequest(topic string, version, acks int16, records []byte) *kmsg.ProduceRequest {
	req := kmsg.NewPtrProduceRequest()
	req.Version, req.Acks, req.TimeoutMillis = version, acks, 10000
	p := kmsg.NewProduceRequestTopicPartition()
	p.Records = records
	rt := kmsg.NewProduceRequestTopic()
	rt.Topic, rt.Partitions = topic, append(rt.Partitions, p)
	req.Topics = append(req.Topics, rt)
	return req
}

// fetchRequest asks for partition 0 of topic from offset on.
func fetchRequest(topic string, version int16, offset int64, wait time.Duration) *kmsg.FetchRequest {
	req := kmsg.NewPtrFetchRequest()
	req.Version, req.MaxWaitMillis, req.MinBytes, req.MaxBytes = version, int32(wait.Milliseconds()), 1, 8<<20
	req.SessionEpoch = -1
	p := kmsg.NewFetchRequestTopicPartition()
	p.FetchOffset, p.PartitionMaxBytes, p.CurrentLeaderEpoch = offset, 8<<20, -1
	rt := kmsg.NewFetchRequestTopic()
	rt.Topic, rt.Partitions = topic, append(rt.Partitions, p)
	req.Topics = append(req.Topics, rt)
	return req
}

// listRequest asks for the offset of partition 0 of topic at a time; -1 is the end, -2 the start, -3 the newest record.
func listRequest(topic string, version int16, at int64) *kmsg.ListOffsetsRequest {
	req := kmsg.NewPtrListOffsetsRequest()
	req.Version, req.ReplicaID = version, -1
	p := kmsg.NewListOffsetsRequestTopicPartition()
	p.Timestamp, p.CurrentLeaderEpoch = at, -1
	rt := kmsg.NewListOffsetsRequestTopic()
	rt.Topic, rt.Partitions = topic, append(rt.Partitions, p)
	req.Topics = append(req.Topics, rt)
	return req
}

// metadata asks for one topic, or for all when topic is empty.
func metadata(t *testing.T, w *wire, topic string) *kmsg.MetadataResponse {
	t.Helper()
	req := kmsg.NewPtrMetadataRequest()
	req.Version = 4
	if topic != "" {
		rt := kmsg.NewMetadataRequestTopic()
		rt.Topic = kmsg.StringPtr(topic)
		req.Topics = append(req.Topics, rt)
	}
	return mustAsk[*kmsg.MetadataResponse](t, w, req)
}

// createTopic creates a topic and returns the address of the node that leads its partition 0.
func createTopic(t *testing.T, b *broker, topic string, partitions int32) (leader string) {
	t.Helper()
	w := dialTo(t, b.addr())
	m := metadata(t, w, "")
	for _, n := range m.Brokers {
		if n.NodeID == m.ControllerID {
			w = dialTo(t, fmt.Sprintf("%s:%d", n.Host, n.Port))
		}
	}
	req := kmsg.NewPtrCreateTopicsRequest()
	req.Version, req.TimeoutMillis = 4, 10000
	rt := kmsg.NewCreateTopicsRequestTopic()
	rt.Topic, rt.NumPartitions, rt.ReplicationFactor = topic, partitions, 1
	req.Topics = append(req.Topics, rt)
	resp := mustAsk[*kmsg.CreateTopicsResponse](t, w, req)
	if code := resp.Topics[0].ErrorCode; code != 0 {
		t.Fatalf("CreateTopics %s: error %d", topic, code)
	}
	return leaderOf(t, b, topic, 0)
}

func leaderOf(t *testing.T, b *broker, topic string, partition int32) string {
	t.Helper()
	w := dialTo(t, b.addr())
	for limit := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		m := metadata(t, w, topic)
		for _, p := range m.Topics[0].Partitions {
			if m.Topics[0].ErrorCode != 0 || p.Partition != partition || p.ErrorCode != 0 {
				continue
			}
			for _, n := range m.Brokers {
				if n.NodeID == p.Leader {
					return fmt.Sprintf("%s:%d", n.Host, n.Port)
				}
			}
		}
		if time.Now().After(limit) {
			t.Fatalf("no leader of %s/%d in %+v", topic, partition, m)
		}
	}
}

// endOf is the end offset of partition 0 of topic, asked of its leader.
func endOf(t *testing.T, leader, topic string) int64 {
	t.Helper()
	resp := mustAsk[*kmsg.ListOffsetsResponse](t, dialTo(t, leader), listRequest(topic, 4, -1))
	p := resp.Topics[0].Partitions[0]
	if p.ErrorCode != 0 {
		t.Fatalf("ListOffsets %s: error %d", topic, p.ErrorCode)
	}
	return p.Offset
}

// seedOf is the seed of a test's choices: of INTEROP_SEED, else a new one in the long run, else the suite's.
func seedOf(t *testing.T, suite uint64) (seed uint64) {
	t.Helper()
	seed = suite
	if os.Getenv("TAILBOUND_TESTS") == "long" {
		seed = uint64(time.Now().UnixNano())
	}
	if s := os.Getenv("INTEROP_SEED"); s != "" {
		var err error
		if seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatalf("INTEROP_SEED: %v", err)
		}
	}
	t.Logf("INTEROP_SEED=%d", seed)
	return seed
}
