package client

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sys/unix"

	"github.com/tailbound/tailbound/cmd/tailbound/term"
)

type produceOptions struct {
	key, keyDelimiter, format, codec, acks string
	headers                                []string
	partition                              int32
	rate                                   float64
	count                                  int64
	whole, verbose, create, tombstone      bool
	batchBytes                             term.ByteSize
}

func produceCommand(version string) *cobra.Command {
	o, want := &options{version: version}, produceOptions{batchBytes: 1000012}
	c := &cobra.Command{
		Use:   "produce TOPIC [FILE...]",
		Short: "Write records, one for each line of standard input or of files",
		Long: `Write records, one for each line of standard input or of files, and wait until
the broker has acknowledged every one. What was written is summed up on
standard error, or printed with --output json.

--format takes what rpk and kgo know for lines that are more than a value, such
as '%k %v\n', or json for lines as consume --format json prints them.`,
		Example: `  seq 1000 | tailbound produce numbers
  tailbound produce orders -k customer-17 -H source=cli <<< '{"total": 12}'
  tailbound produce orders --format '%k=%v\n' orders.txt
  tailbound produce images --whole *.png -z zstd
  tailbound consume old -e -f json | tailbound produce new -f json`,
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: o.completeProduce,
		RunE:              func(cmd *cobra.Command, args []string) error { return produce(cmd, o, want, args[0], args[1:]) },
	}
	o.flags(c)
	f := c.Flags()
	f.StringVarP(&want.key, "key", "k", "", "key of every record")
	f.StringVarP(&want.keyDelimiter, "key-delimiter", "K", "", "a line is key and value with this between")
	f.StringArrayVarP(&want.headers, "header", "H", nil, "KEY=VALUE of every record; may be repeated")
	f.Int32VarP(&want.partition, "partition", "p", -1, "write to this partition (-1: by key, else spread)")
	f.StringVarP(&want.codec, "compression", "z", "none", "none, gzip, snappy, lz4 or zstd")
	f.StringVar(&want.acks, "acks", "all", "all, 1, or 0 (no answer is awaited)")
	f.Var(&want.batchBytes, "max-message-bytes", "largest record batch that is sent, at most 64MiB")
	f.Float64Var(&want.rate, "rate", 0, "records a second at most (0: as fast as it goes)")
	f.Int64VarP(&want.count, "num", "n", 0, "end after so many records")
	f.StringVarP(&want.format, "format", "f", "", "what a record looks like, or json")
	f.BoolVar(&want.whole, "whole", false, "each file, or all of standard input, is one record")
	f.BoolVar(&want.create, "create", false, "have the broker create the topic where it allows that")
	f.BoolVarP(&want.tombstone, "tombstone", "Z", false, "an empty value is none")
	f.BoolVarP(&want.verbose, "verbose", "v", false, "print partition and offset of each record")
	return c
}

// completeProduce completes a topic's name, then files.
func (o *options) completeProduce(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveDefault // files
	}
	return o.completeTopics(cmd, args, typed)
}

// produced is the summary of what was written.
type produced struct {
	Topic      string              `json:"topic"`
	Records    int64               `json:"records"`
	Bytes      int64               `json:"bytes"`
	Seconds    float64             `json:"seconds"`
	Failed     int64               `json:"failed"`
	Partitions []producedPartition `json:"partitions"`
}

type producedPartition struct {
	Partition int32 `json:"partition"`
	Records   int64 `json:"records"`
	First     int64 `json:"first"` // offsets; -1 without acks
	Last      int64 `json:"last"`
}

func (x *produceOptions) kafkaOptions(topic string) ([]kgo.Opt, error) {
	options := []kgo.Opt{kgo.DefaultProduceTopic(topic), kgo.RecordDeliveryTimeout(30 * time.Second), kgo.UnknownTopicRetries(3)}
	switch x.codec {
	case "none":
		options = append(options, kgo.ProducerBatchCompression(kgo.NoCompression()))
	case "gzip":
		options = append(options, kgo.ProducerBatchCompression(kgo.GzipCompression()))
	case "snappy":
		options = append(options, kgo.ProducerBatchCompression(kgo.SnappyCompression()))
	case "lz4":
		options = append(options, kgo.ProducerBatchCompression(kgo.Lz4Compression()))
	case "zstd":
		options = append(options, kgo.ProducerBatchCompression(kgo.ZstdCompression()))
	default:
		return nil, fmt.Errorf("--compression %q: it is none, gzip, snappy, lz4 or zstd", x.codec)
	}
	if x.batchBytes < 1<<10 || x.batchBytes > 64<<20 {
		return nil, fmt.Errorf("--max-message-bytes %d: it is 1024 to %d", x.batchBytes, 64<<20)
	}
	options = append(options, kgo.ProducerBatchMaxBytes(int32(x.batchBytes)))
	switch x.acks {
	case "all", "-1":
	case "1":
		options = append(options, kgo.RequiredAcks(kgo.LeaderAck()), kgo.DisableIdempotentWrite())
	case "0":
		options = append(options, kgo.RequiredAcks(kgo.NoAck()), kgo.DisableIdempotentWrite())
	default:
		return nil, fmt.Errorf("--acks %q: it is all, 1 or 0", x.acks)
	}
	if x.partition >= 0 {
		options = append(options, kgo.RecordPartitioner(kgo.ManualPartitioner()))
	}
	if x.create {
		options = append(options, kgo.AllowAutoTopicCreation())
	}
	return options, nil
}

func produce(cmd *cobra.Command, o *options, want produceOptions, topic string, files []string) error {
	options, err := want.kafkaOptions(topic)
	options = append(options, patient(cmd.ErrOrStderr()))
	if err != nil {
		return err
	}
	var headers []kgo.RecordHeader
	for _, h := range want.headers {
		k, v, ok := strings.Cut(h, "=")
		if !ok {
			return fmt.Errorf("--header %q: it is KEY=VALUE", h)
		}
		headers = append(headers, kgo.RecordHeader{Key: k, Value: []byte(v)})
	}
	sources := []source{{"standard input", cmd.InOrStdin()}}
	p := producing{want: want, out: bufio.NewWriter(cmd.OutOrStdout()), byPartition: map[int32]*producedPartition{}}
	if len(files) > 0 {
		sources = nil
		if !want.verbose {
			p.bar = term.NewProgress(os.Stderr, "writing")
		}
		for _, name := range files {
			f, err := os.Open(name)
			if err != nil {
				return err
			}
			defer f.Close()
			if about, err := f.Stat(); err != nil || !about.Mode().IsRegular() {
				p.bar = nil // a pipe's size is not known
			} else {
				p.bytes += about.Size()
			}
			sources = append(sources, source{name, &counted{f, &p.bytesRead}})
		}
	}
	ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, unix.SIGTERM)
	defer stop()
	c, err := o.connect(cmd, options...)
	if err != nil {
		return err
	}
	defer c.close()
	if !want.create {
		m, err := c.metadata(topic)
		if err != nil {
			return err
		}
		if n := len(m.Topics[topic].Partitions); int(want.partition) >= n {
			return fmt.Errorf("topic %s has no partition %d; it has %s, from 0", topic, want.partition, term.Plural(n, "partition"))
		}
	}
	p.c, p.began, p.sum.Topic = c, time.Now(), topic
	for _, s := range sources {
		if err = p.all(ctx, s, headers); err != nil {
			break
		}
	}
	stop() // a second interrupt ends at once
	if e := c.kafka.Flush(cmd.Context()); err == nil {
		err = e
	}
	p.bar.End()
	if e := p.report(cmd.ErrOrStderr()); err == nil {
		err = e
	}
	if p.first != nil {
		return fmt.Errorf("%d of %d records were not written; the first: %w", p.sum.Failed, p.sum.Failed+p.sum.Records, c.explain(brokerError(p.first, "")))
	}
	if errors.Is(err, context.Canceled) {
		return term.ExitStatus(130)
	}
	return err
}

type source struct {
	name string
	r    io.Reader
}

// counted is a reader that counts bytes.
type counted struct {
	io.Reader
	n *int64
}

func (c *counted) Read(b []byte) (int, error) {
	n, err := c.Reader.Read(b)
	*c.n += int64(n)
	return n, err
}

// producing is one run of produce. promise runs on kgo's goroutines; mu guards what
// it uses.
type producing struct {
	c     *client
	want  produceOptions
	began time.Time
	read  int64

	bar              *term.Progress // of files: bytesRead of bytes
	bytesRead, bytes int64

	mu          sync.Mutex
	out         *bufio.Writer
	sum         produced
	byPartition map[int32]*producedPartition
	first       error
}

// all writes all records of one source. After a failed record it stops.
func (p *producing) all(ctx context.Context, s source, headers []kgo.RecordHeader) error {
	next, err := p.want.reader(s)
	if err != nil {
		return err
	}
	for {
		if p.want.count > 0 && p.read == p.want.count {
			return nil
		}
		r, err := next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		p.read++
		r.Headers = append(r.Headers, headers...)
		if p.want.key != "" {
			r.Key = []byte(p.want.key)
		}
		if p.want.partition >= 0 {
			r.Partition = p.want.partition
		}
		if p.want.tombstone && len(r.Value) == 0 {
			r.Value = nil
		}
		if p.want.rate > 0 {
			due := p.began.Add(time.Duration(float64(p.read-1) / p.want.rate * 1e9))
			select {
			case <-time.After(time.Until(due)):
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		p.c.kafka.Produce(p.c.ctx, r, p.promise)
		p.bar.At(p.bytesRead, p.bytes)
		if p.failed() {
			return nil
		}
	}
}

func (p *producing) failed() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.first != nil
}

// promise takes the result of one record.
func (p *producing) promise(r *kgo.Record, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err != nil {
		p.sum.Failed++
		if p.first == nil {
			p.first = err
		}
		return
	}
	p.sum.Records++
	p.sum.Bytes += int64(len(r.Key) + len(r.Value))
	x := p.byPartition[r.Partition]
	if x == nil {
		x = &producedPartition{Partition: r.Partition, First: r.Offset}
		p.byPartition[r.Partition] = x
	}
	x.Records++
	x.Last = r.Offset
	if p.want.verbose {
		fmt.Fprintf(p.out, "%d/%d\n", r.Partition, r.Offset)
	}
}

// report prints the summary: to standard error as text, or as --output says.
func (p *producing) report(w io.Writer) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sum.Seconds = time.Since(p.began).Seconds()
	p.sum.Partitions = []producedPartition{}
	for i := int32(0); len(p.sum.Partitions) < len(p.byPartition); i++ {
		if x := p.byPartition[i]; x != nil {
			p.sum.Partitions = append(p.sum.Partitions, *x)
		}
	}
	if p.c.output != "table" {
		if err := p.c.print(p.out, p.sum, nil); err != nil {
			return err
		}
	} else {
		fmt.Fprintf(w, "%s, %s to %s in %s\n", term.Plural(int(p.sum.Records), "record"), term.Plural(int(p.sum.Bytes), "byte"), p.sum.Topic, time.Duration(p.sum.Seconds*1e9).Round(time.Millisecond))
	}
	return p.out.Flush()
}

// reader is a function that reads the next record of a source, io.EOF at the end.
func (x *produceOptions) reader(s source) (func() (*kgo.Record, error), error) {
	switch {
	case x.whole:
		over := false
		return func() (*kgo.Record, error) {
			if over {
				return nil, io.EOF
			}
			over = true
			b, err := io.ReadAll(s.r)
			return &kgo.Record{Value: b}, err
		}, nil
	case x.format == "json":
		decoder := json.NewDecoder(s.r)
		return func() (*kgo.Record, error) {
			var j recordJSON
			if err := decoder.Decode(&j); err != nil {
				return nil, err
			}
			return fromJSON(j)
		}, nil
	case x.format != "":
		r, err := kgo.NewRecordReader(s.r, x.format)
		if err != nil {
			return nil, fmt.Errorf("--format %q: %w", x.format, err)
		}
		return func() (*kgo.Record, error) {
			k, err := r.ReadRecord()
			if errors.Is(err, io.ErrUnexpectedEOF) {
				return nil, fmt.Errorf("it ends within a record of the format %q", x.format)
			}
			return k, err
		}, nil
	}
	lines := bufio.NewReaderSize(s.r, 64<<10)
	number := 0
	return func() (*kgo.Record, error) {
		line, err := lines.ReadBytes('\n')
		if err == io.EOF && len(line) > 0 {
			err = nil // the last line may have no newline
		}
		if err != nil {
			return nil, err
		}
		number++
		line = bytes.TrimSuffix(line, []byte("\n"))
		if x.keyDelimiter == "" {
			return &kgo.Record{Value: line}, nil
		}
		k, v, ok := bytes.Cut(line, []byte(x.keyDelimiter))
		if !ok {
			return nil, fmt.Errorf("line %d has no %q between key and value", number, x.keyDelimiter)
		}
		return &kgo.Record{Key: k, Value: v}, nil
	}, nil
}
