package interop

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/IBM/sarama"
)

// samsa is github.com/IBM/sarama.
type samsa struct{}

func (samsa) tells() (produced, consumed nullness) {
	return nullness{true, true}, nullness{true, true}
}

func (samsa) config() *sarama.Config {
	c := sarama.NewConfig()
	c.ClientID = "interop"
	c.Producer.Return.Successes, c.Producer.Return.Errors = true, true
	c.Producer.Partitioner = sarama.NewManualPartitioner
	c.Consumer.Return.Errors = true
	c.Consumer.MaxWaitTime = 250 * time.Millisecond
	c.Consumer.Fetch.Max = 8 << 20
	c.Metadata.Retry.Max, c.Metadata.Retry.Backoff = 20, 100*time.Millisecond
	return c
}

func (s samsa) produce(ctx context.Context, b *broker, topic string, o produceOptions, rs []record) ([]int64, error) {
	c := s.config()
	c.Producer.RequiredAcks = sarama.RequiredAcks(o.acks)
	c.Producer.Compression = map[string]sarama.CompressionCodec{
		"": sarama.CompressionNone, "none": sarama.CompressionNone, "gzip": sarama.CompressionGZIP, "snappy": sarama.CompressionSnappy,
		"lz4": sarama.CompressionLZ4, "zstd": sarama.CompressionZSTD,
	}[o.codec]
	if o.idempotent && o.acks == -1 {
		c.Producer.Idempotent, c.Net.MaxOpenRequests = true, 1
	}
	if o.bytesMax != 0 {
		c.Producer.MaxMessageBytes = o.bytesMax
	}
	p, err := sarama.NewAsyncProducer([]string{b.addr()}, c)
	if err != nil {
		return nil, err
	}
	defer p.Close()
	go func() {
		for i, r := range rs {
			m := &sarama.ProducerMessage{Topic: topic, Partition: r.partition, Timestamp: time.UnixMilli(r.timeMS), Metadata: i}
			if r.key != nil {
				m.Key = sarama.ByteEncoder(r.key)
			}
			if r.value != nil {
				m.Value = sarama.ByteEncoder(r.value)
			}
			for _, h := range r.headers {
				m.Headers = append(m.Headers, sarama.RecordHeader{Key: []byte(h.key), Value: h.value})
			}
			select {
			case p.Input() <- m:
			case <-ctx.Done():
				return
			}
		}
	}()
	offsets := make([]int64, len(rs))
	for range rs {
		select {
		case m := <-p.Successes():
			offsets[m.Metadata.(int)] = m.Offset
			if o.acks == 0 {
				offsets[m.Metadata.(int)] = -1
			}
		case e := <-p.Errors():
			err = saramaError(e.Err)
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return offsets, err
}

func saramaError(err error) error {
	var k sarama.KError
	var te *sarama.TopicError
	switch {
	case errors.As(err, &te):
		k = te.Err
	case !errors.As(err, &k):
		return err
	}
	if k == sarama.ErrNoError {
		return nil
	}
	return refusal(k)
}

func (s samsa) consume(ctx context.Context, b *broker, topic string, from []int64, count []int) ([]record, error) {
	c, err := sarama.NewConsumer([]string{b.addr()}, s.config())
	if err != nil {
		return nil, err
	}
	defer c.Close()
	type result struct {
		rs  []record
		err error
	}
	results := make(chan result)
	running := 0
	for p := range from {
		if count[p] == 0 {
			continue
		}
		start := from[p]
		if start == atEnd {
			start = sarama.OffsetNewest
		}
		pc, err := c.ConsumePartition(topic, int32(p), start)
		if err != nil {
			return nil, err
		}
		running++
		go func() {
			var r result
			for len(r.rs) < count[p] && r.err == nil {
				select {
				case m := <-pc.Messages():
					r.rs = append(r.rs, saramaRecord(m))
				case e := <-pc.Errors():
					r.err = e
				case <-ctx.Done():
					r.err = fmt.Errorf("partition %d: %d of %d records: %w", p, len(r.rs), count[p], ctx.Err())
				}
			}
			pc.AsyncClose()
			for range pc.Messages() {
			}
			results <- r
		}()
	}
	var got []record
	for range running {
		r := <-results
		got = append(got, r.rs...)
		if err == nil {
			err = r.err
		}
	}
	return got, err
}

func saramaRecord(m *sarama.ConsumerMessage) record {
	r := record{partition: m.Partition, offset: m.Offset, timeMS: m.Timestamp.UnixMilli(), key: m.Key, value: m.Value}
	for _, h := range m.Headers {
		r.headers = append(r.headers, header{string(h.Key), h.Value})
	}
	return r
}

func (s samsa) offsetAt(ctx context.Context, b *broker, topic string, partition int32, timeMS int64) (int64, error) {
	c, err := sarama.NewClient([]string{b.addr()}, s.config())
	if err != nil {
		return 0, err
	}
	defer c.Close()
	return c.GetOffset(topic, partition, timeMS)
}

func (s samsa) create(ctx context.Context, b *broker, topic string, partitions, replication int) error {
	a, err := sarama.NewClusterAdmin([]string{b.addr()}, s.config())
	if err != nil {
		return err
	}
	defer a.Close()
	return saramaError(a.CreateTopic(topic, &sarama.TopicDetail{NumPartitions: int32(partitions), ReplicationFactor: int16(replication)}, false))
}

func (s samsa) remove(ctx context.Context, b *broker, topic string) error {
	a, err := sarama.NewClusterAdmin([]string{b.addr()}, s.config())
	if err != nil {
		return err
	}
	defer a.Close()
	return saramaError(a.DeleteTopic(topic))
}
