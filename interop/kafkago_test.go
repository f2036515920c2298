package interop

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"sync"
	"time"

	"github.com/segmentio/kafka-go"
)

// segment is github.com/segmentio/kafka-go. It has two engines: Writer and Client, which negotiate versions, and Conn, under Reader, which knows a few.
// Readers serve topics of few partitions here, the Client's Fetch those of many.
type segment struct{}

func (segment) tells() (produced, consumed nullness) {
	return nullness{true, true}, nullness{false, false}
}

// client makes a Client with a view of the cluster of its own: the default one is shared and may be seconds old.
func (segment) client(b *broker) (c *kafka.Client, end func()) {
	addr, _ := net.ResolveTCPAddr("tcp", b.addr())
	transport := &kafka.Transport{MetadataTTL: 200 * time.Millisecond}
	return &kafka.Client{Addr: addr, Timeout: 15 * time.Second, Transport: transport}, transport.CloseIdleConnections
}

// byPartition sends each message to the partition that its record names.
type byPartition struct{}

func (byPartition) Balance(m kafka.Message, _ ...int) int {
	return int(m.WriterData.(segmentMark).partition)
}

type segmentMark struct {
	index     int
	partition int32
}

func (s segment) produce(ctx context.Context, b *broker, topic string, o produceOptions, rs []record) ([]int64, error) {
	offsets := make([]int64, len(rs))
	for i := range offsets {
		offsets[i] = -1
	}
	var mu sync.Mutex
	c, end := s.client(b)
	defer end()
	w := &kafka.Writer{
		Addr: c.Addr, Topic: topic, Balancer: byPartition{}, BatchTimeout: 5 * time.Millisecond, AllowAutoTopicCreation: true, Transport: c.Transport,
		RequiredAcks:    kafka.RequiredAcks(o.acks),
		Compression:     map[string]kafka.Compression{"gzip": kafka.Gzip, "snappy": kafka.Snappy, "lz4": kafka.Lz4, "zstd": kafka.Zstd}[o.codec],
		WriteBackoffMin: 20 * time.Millisecond, WriteBackoffMax: 200 * time.Millisecond,
		Completion: func(ms []kafka.Message, err error) {
			mu.Lock()
			defer mu.Unlock()
			for _, m := range ms {
				if err == nil && o.acks != 0 {
					offsets[m.WriterData.(segmentMark).index] = m.Offset
				}
			}
		},
	}
	if o.bytesMax != 0 {
		w.BatchBytes = int64(o.bytesMax)
	}
	ms := make([]kafka.Message, len(rs))
	for i, r := range rs {
		ms[i] = kafka.Message{Key: r.key, Value: r.value, Time: time.UnixMilli(r.timeMS), WriterData: segmentMark{i, r.partition}}
		for _, h := range r.headers {
			ms[i].Headers = append(ms[i].Headers, kafka.Header{Key: h.key, Value: h.value})
		}
	}
	err := w.WriteMessages(ctx, ms...)
	if e := w.Close(); err == nil {
		err = e
	}
	mu.Lock()
	defer mu.Unlock()
	return offsets, segmentError(err)
}

func segmentError(err error) error {
	var many kafka.WriteErrors
	if errors.As(err, &many) {
		for _, e := range many {
			if e != nil {
				err = e
				break
			}
		}
	}
	var tooLarge kafka.MessageTooLargeError
	if errors.As(err, &tooLarge) {
		return err // the client's own judgement, not the broker's
	}
	var k kafka.Error
	if errors.As(err, &k) {
		return refusal(k)
	}
	return err
}

func (s segment) consume(ctx context.Context, b *broker, topic string, from []int64, count []int) ([]record, error) {
	read := s.read
	if len(from) > 8 {
		c, end := s.client(b)
		defer end()
		read = func(ctx context.Context, _ *broker, topic string, partition int, from int64, count int) ([]record, error) {
			return s.fetch(ctx, c, topic, partition, from, count)
		}
	}
	type result struct {
		rs  []record
		err error
	}
	results := make(chan result)
	turn := make(chan struct{}, 8)
	running := 0
	for p := range from {
		if count[p] == 0 {
			continue
		}
		running++
		go func() {
			turn <- struct{}{}
			defer func() { <-turn }()
			rs, err := read(ctx, b, topic, p, from[p], count[p])
			if err != nil {
				err = fmt.Errorf("partition %d, %d of %d records: %w", p, len(rs), count[p], err)
			}
			results <- result{rs, err}
		}()
	}
	var got []record
	var err error
	for range running {
		r := <-results
		got = append(got, r.rs...)
		if err == nil {
			err = r.err
		}
	}
	return got, err
}

// read consumes with a Reader.
func (s segment) read(ctx context.Context, b *broker, topic string, partition int, from int64, count int) (rs []record, err error) {
	r := kafka.NewReader(kafka.ReaderConfig{
		Brokers: []string{b.addr()}, Topic: topic, Partition: partition, MaxWait: 500 * time.Millisecond, MaxBytes: 8 << 20,
		ReadBackoffMin: 5 * time.Millisecond, ReadBackoffMax: 50 * time.Millisecond,
	})
	defer r.Close()
	if from == atEnd {
		from = kafka.LastOffset
	}
	if err := r.SetOffset(from); err != nil {
		return nil, err
	}
	for len(rs) < count {
		m, err := r.ReadMessage(ctx)
		if err != nil {
			return rs, segmentError(err)
		}
		rs = append(rs, segmentRecord(int32(m.Partition), m.Offset, m.Time, m.Key, m.Value, m.Headers))
	}
	return rs, nil
}

func segmentRecord(partition int32, offset int64, at time.Time, key, value []byte, hs []kafka.Header) record {
	r := record{partition: partition, offset: offset, timeMS: at.UnixMilli(), key: key, value: value}
	for _, h := range hs {
		r.headers = append(r.headers, header{h.Key, h.Value})
	}
	return r
}

// fetch consumes with a Client.
func (s segment) fetch(ctx context.Context, c *kafka.Client, topic string, partition int, from int64, count int) (rs []record, err error) {
	if from == atEnd {
		from = kafka.LastOffset
	}
	for len(rs) < count {
		resp, err := c.Fetch(ctx, &kafka.FetchRequest{Topic: topic, Partition: partition, Offset: from, MinBytes: 1, MaxBytes: 8 << 20, MaxWait: 500 * time.Millisecond})
		if err == nil {
			err = resp.Error
		}
		if err != nil {
			return rs, segmentError(err)
		}
		for len(rs) < count {
			m, err := resp.Records.ReadRecord()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				return rs, err
			}
			key, err := kafka.ReadAll(m.Key)
			if err != nil {
				return rs, err
			}
			value, err := kafka.ReadAll(m.Value)
			if err != nil {
				return rs, err
			}
			if m.Offset < from {
				continue
			}
			rs = append(rs, segmentRecord(int32(partition), m.Offset, m.Time, key, value, m.Headers))
			from = m.Offset + 1
		}
	}
	return rs, nil
}

func (s segment) offsetAt(ctx context.Context, b *broker, topic string, partition int32, timeMS int64) (int64, error) {
	c, end := s.client(b)
	defer end()
	resp, err := c.ListOffsets(ctx, &kafka.ListOffsetsRequest{
		Topics: map[string][]kafka.OffsetRequest{topic: {kafka.TimeOffsetOf(int(partition), time.UnixMilli(timeMS))}},
	})
	if err != nil {
		return 0, segmentError(err)
	}
	p := resp.Topics[topic][0]
	if p.Error != nil {
		return 0, segmentError(p.Error)
	}
	found := int64(math.MaxInt64)
	for o := range p.Offsets {
		found = min(found, o)
	}
	if found == math.MaxInt64 {
		return -1, nil
	}
	return found, nil
}

func (s segment) create(ctx context.Context, b *broker, topic string, partitions, replication int) error {
	c, end := s.client(b)
	defer end()
	req := &kafka.CreateTopicsRequest{Topics: []kafka.TopicConfig{{Topic: topic, NumPartitions: partitions, ReplicationFactor: replication}}}
	resp, err := c.CreateTopics(ctx, req)
	for errors.Is(err, kafka.BrokerNotAvailable) && ctx.Err() == nil { // its pool says so while it has the brokers' names and no connections for them yet
		time.Sleep(10 * time.Millisecond)
		resp, err = c.CreateTopics(ctx, req)
	}
	if err != nil {
		return err
	}
	return segmentError(resp.Errors[topic])
}

func (s segment) remove(ctx context.Context, b *broker, topic string) error {
	c, end := s.client(b)
	defer end()
	resp, err := c.DeleteTopics(ctx, &kafka.DeleteTopicsRequest{Topics: []string{topic}})
	if err != nil {
		return err
	}
	return segmentError(resp.Errors[topic])
}
