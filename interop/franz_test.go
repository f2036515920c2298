package interop

import (
	"context"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// franz is github.com/twmb/franz-go.
type franz struct{ extra []kgo.Opt }

func (f franz) dial(b *broker, opts ...kgo.Opt) (*kgo.Client, error) {
	// a broker that is killed while a client connects ends its first read, which kgo takes for a want of TLS unless told otherwise
	base := []kgo.Opt{kgo.AlwaysRetryEOF(), kgo.SeedBrokers(b.addr()), kgo.MetadataMinAge(50 * time.Millisecond), kgo.RetryBackoffFn(func(int) time.Duration { return 50 * time.Millisecond })}
	return kgo.NewClient(append(append(base, f.extra...), opts...)...)
}

func (f franz) tells() (produced, consumed nullness) {
	return nullness{true, true}, nullness{true, true}
}

func (f franz) produce(ctx context.Context, b *broker, topic string, o produceOptions, rs []record) ([]int64, error) {
	codec := map[string]kgo.CompressionCodec{
		"": kgo.NoCompression(), "none": kgo.NoCompression(), "gzip": kgo.GzipCompression(), "snappy": kgo.SnappyCompression(),
		"lz4": kgo.Lz4Compression(), "zstd": kgo.ZstdCompression(),
	}[o.codec]
	opts := []kgo.Opt{
		kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerBatchCompression(codec), kgo.AllowAutoTopicCreation(), kgo.ProducerLinger(2 * time.Millisecond),
		kgo.RequiredAcks(map[int]kgo.Acks{0: kgo.NoAck(), 1: kgo.LeaderAck(), -1: kgo.AllISRAcks()}[o.acks]),
	}
	if !o.idempotent || o.acks != -1 {
		opts = append(opts, kgo.DisableIdempotentWrite())
	}
	if o.bytesMax != 0 {
		opts = append(opts, kgo.ProducerBatchMaxBytes(int32(o.bytesMax)))
	}
	cl, err := f.dial(b, opts...)
	if err != nil {
		return nil, err
	}
	defer cl.Close()
	offsets := make([]int64, len(rs))
	done := make(chan error, len(rs))
	for i, r := range rs {
		kr := &kgo.Record{Topic: topic, Partition: r.partition, Key: r.key, Value: r.value, Timestamp: time.UnixMilli(r.timeMS)}
		for _, h := range r.headers {
			kr.Headers = append(kr.Headers, kgo.RecordHeader{Key: h.key, Value: h.value})
		}
		cl.Produce(ctx, kr, func(kr *kgo.Record, err error) {
			offsets[i] = kr.Offset
			if o.acks == 0 {
				offsets[i] = -1
			}
			done <- err
		})
	}
	for range rs {
		if e := <-done; e != nil {
			err = e
		}
	}
	return offsets, err
}

func (f franz) consume(ctx context.Context, b *broker, topic string, from []int64, count []int) ([]record, error) {
	start := make(map[int32]kgo.Offset)
	for p, o := range from {
		if count[p] == 0 {
			continue
		}
		start[int32(p)] = kgo.NewOffset().At(o)
		if o == atEnd {
			start[int32(p)] = kgo.NewOffset().AtEnd()
		}
	}
	cl, err := f.dial(b, kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: start}), kgo.FetchMaxWait(time.Second))
	if err != nil {
		return nil, err
	}
	defer cl.Close()
	var got []record
	seen := make([]int, len(count))
	for want := sum(count); want > 0; {
		fetches := cl.PollFetches(ctx)
		if ctx.Err() != nil {
			return got, fmt.Errorf("%d records still missing: %w", want, ctx.Err())
		}
		if err := fetches.Err(); err != nil {
			return got, err
		}
		fetches.EachRecord(func(r *kgo.Record) {
			if seen[r.Partition] == count[r.Partition] {
				return
			}
			seen[r.Partition]++
			want--
			c := record{partition: r.Partition, offset: r.Offset, timeMS: r.Timestamp.UnixMilli(), key: r.Key, value: r.Value}
			for _, h := range r.Headers {
				c.headers = append(c.headers, header{h.Key, h.Value})
			}
			got = append(got, c)
		})
	}
	return got, nil
}

func (f franz) admin(b *broker) (*kadm.Client, error) {
	cl, err := f.dial(b)
	if err != nil {
		return nil, err
	}
	return kadm.NewClient(cl), nil
}

func (f franz) offsetAt(ctx context.Context, b *broker, topic string, partition int32, timeMS int64) (int64, error) {
	adm, err := f.admin(b)
	if err != nil {
		return 0, err
	}
	defer adm.Close()
	// kadm turns "none" into the end offset by asking again, so the end means none here.
	l, err := adm.ListOffsetsAfterMilli(ctx, timeMS, topic)
	if err != nil {
		return 0, err
	}
	o, ok := l.Lookup(topic, partition)
	if !ok || o.Err != nil {
		return 0, fmt.Errorf("no offset: %w", o.Err)
	}
	ends, err := adm.ListEndOffsets(ctx, topic)
	if err != nil {
		return 0, err
	}
	if end, ok := ends.Lookup(topic, partition); ok && end.Offset == o.Offset {
		return -1, nil
	}
	return o.Offset, nil
}

func (f franz) create(ctx context.Context, b *broker, topic string, partitions, replication int) error {
	adm, err := f.admin(b)
	if err != nil {
		return err
	}
	defer adm.Close()
	_, err = adm.CreateTopic(ctx, int32(partitions), int16(replication), nil, topic)
	return err
}

func (f franz) remove(ctx context.Context, b *broker, topic string) error {
	adm, err := f.admin(b)
	if err != nil {
		return err
	}
	defer adm.Close()
	_, err = adm.DeleteTopic(ctx, topic)
	return err
}
