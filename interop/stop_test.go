package interop

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// obstacles is what clients can do to delay a stop, each on connections of its own.
var obstacles = []struct {
	name string
	do   func(t *testing.T, b *broker, leader, topic string)
}{
	{"a consumer reads nothing", func(t *testing.T, b *broker, leader, topic string) { stall(t, leader, topic, 1) }},
	{"a hundred consumers read nothing", func(t *testing.T, b *broker, leader, topic string) { stall(t, leader, topic, 100) }},
	{"a consumer reads a few bytes at a time", func(t *testing.T, b *broker, leader, topic string) {
		for _, w := range stall(t, leader, topic, 1) {
			go func() {
				for one := make([]byte, 64); ; time.Sleep(10 * time.Millisecond) {
					if _, err := w.Read(one); err != nil {
						return
					}
				}
			}()
		}
	}},
	{"half a request", func(t *testing.T, b *broker, leader, topic string) {
		for _, addr := range []string{b.addr(), leader} {
			whole := frame(fetchRequest(topic, 11, 0, 0), 1)
			for _, n := range []int{1, 5, len(whole) - 1} {
				dialTo(t, addr).Write(whole[:n])
			}
		}
	}},
	{"connections that send nothing", func(t *testing.T, b *broker, leader, topic string) {
		for range 50 {
			dialTo(t, b.addr())
			dialTo(t, leader)
		}
	}},
	{"an answer of the control shard is not read, at its own node and at another", func(t *testing.T, b *broker, leader, topic string) {
		for _, addr := range []string{b.addr(), leader} {
			w := dialTo(t, addr)
			w.Conn.(*net.TCPConn).SetReadBuffer(4096)
			var all []byte
			for i := range int32(60) {
				r := kmsg.NewPtrDescribeConfigsRequest()
				r.Version, r.IncludeDocumentation, r.IncludeSynonyms = 4, true, true
				q := kmsg.NewDescribeConfigsRequestResource()
				q.ResourceType = kmsg.ConfigResourceTypeBroker
				q.ResourceName = "0"
				r.Resources = append(r.Resources, q)
				all = append(all, frame(r, i)...)
			}
			w.Write(all)
		}
	}},
	{"a long poll, and many requests behind it", func(t *testing.T, b *broker, leader, topic string) {
		w := dialTo(t, leader)
		poll := fetchRequest(topic, 11, endOf(t, leader, topic), 0)
		poll.MaxWaitMillis, poll.MinBytes = 1<<30, 1<<20
		all := frame(poll, 1)
		for i := range int32(200) {
			all = append(all, frame(poll, 2+i)...)
		}
		w.Write(all)
	}},
	{"thousands of topics are being created", func(t *testing.T, b *broker, leader, topic string) {
		for _, addr := range []string{b.addr(), leader} {
			topics.Add(1)
			r := kmsg.NewPtrCreateTopicsRequest()
			r.Version, r.TimeoutMillis = 5, 600_000
			for i := range 1500 {
				q := kmsg.NewCreateTopicsRequestTopic()
				q.Topic, q.NumPartitions, q.ReplicationFactor = fmt.Sprintf("made-%d-%d", topics.Load(), i), 1, 1
				r.Topics = append(r.Topics, q)
			}
			dialTo(t, addr).Write(frame(r, 1))
		}
	}},
}

// stall has consumers fetch far more than socket buffers hold, and read nothing of it.
func stall(t *testing.T, leader, topic string, count int) (all []*wire) {
	for range count {
		w := dialTo(t, leader)
		w.Conn.(*net.TCPConn).SetReadBuffer(4096)
		for range 4 {
			r := fetchRequest(topic, 11, 0, 0)
			r.MaxBytes = 50 << 20
			r.Topics[0].Partitions[0].PartitionMaxBytes = 50 << 20
			if err := w.send(r); err != nil {
				t.Fatal(err)
			}
		}
		all = append(all, w)
	}
	return all
}

// TestStopWhateverClientsDo: a stop is clean and ends in time whatever clients do, and loses nothing that was acknowledged.
func TestStopWhateverClientsDo(t *testing.T) {
	needReal(t, "it is no process")
	b := ownBroker(t)
	topic := topicName(t)
	leader := createTopic(t, b, topic, 1)
	big := bytesOf(batchOf(string(bytes.Repeat([]byte("big"), 60_000))))
	const batches = 100 // 18 MB
	w := dialTo(t, leader)
	for range batches {
		mustProduce(t, w, topic, big)
	}
	stop := func(what string) {
		t.Helper()
		time.Sleep(200 * time.Millisecond) // the broker has received most of what was sent
		began := time.Now()
		if err := b.stop(); err != nil { // the exit status is 0 only after a clean stop
			t.Fatalf("%s: %v", what, err)
		}
		t.Logf("%s: stopped in %v", what, time.Since(began).Round(time.Millisecond))
		if err := b.check(); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if err := b.start(); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if end := endOf(t, leader, topic); end != batches {
			t.Fatalf("%s: the log ends at %d, %d were acknowledged", what, end, batches)
		}
	}
	for _, o := range obstacles {
		if os.Getenv("TAILBOUND_TESTS") != "long" && o.name != "a hundred consumers read nothing" {
			continue
		}
		o.do(t, b, leader, topic)
		stop(o.name)
	}
	for _, o := range obstacles {
		o.do(t, b, leader, topic)
	}
	stop("all of it at once")
}
