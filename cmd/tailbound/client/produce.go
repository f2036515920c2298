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
	silence                                time.Duration // how long the broker may acknowledge nothing
}

const (
	// silenceMax is how long the broker may acknowledge nothing, unless --timeout
	// was given: a restart of the broker is shorter.
	silenceMax = 30 * time.Second
	// partingMax is the same after a signal.
	partingMax = 2 * time.Second
)

func produceCommand(version string) *cobra.Command {
	opts, want := &options{version: version}, produceOptions{batchBytes: 1000012}
	command := &cobra.Command{
		Use:   "produce TOPIC [FILE...]",
		Short: "Write records, one for each line of standard input or of files",
		Long: `Write records, one for each line of standard input or of files, and wait until
the broker has acknowledged every one. What was written is summed up on
standard error, or printed with --output json. Where the broker acknowledges
nothing for 30 s, or for --timeout if that is given, the command fails. On
Ctrl-C or SIGTERM it reads no more, and waits for what was sent.

--format takes what rpk and kgo know for lines that are more than a value, such
as '%k %v\n', or json for lines as consume --format json prints them.`,
		Example: `  seq 1000 | tailbound produce numbers
  tailbound produce orders -k customer-17 -H source=cli <<< '{"total": 12}'
  tailbound produce orders --format '%k=%v\n' orders.txt
  tailbound produce images --whole *.png -z zstd
  tailbound consume old -e -f json | tailbound produce new -f json`,
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: opts.completeProduce,
		RunE: func(cmd *cobra.Command, args []string) error {
			want.silence = silenceMax
			if cmd.Flags().Changed("timeout") {
				want.silence = opts.timeout
			}
			return produce(cmd, opts, want, args[0], args[1:])
		},
	}
	opts.flags(command)
	flags := command.Flags()
	flags.StringVarP(&want.key, "key", "k", "", "key of every record")
	flags.StringVarP(&want.keyDelimiter, "key-delimiter", "K", "", "a line is key and value with this between")
	flags.StringArrayVarP(&want.headers, "header", "H", nil, "KEY=VALUE of every record; may be repeated")
	flags.Int32VarP(&want.partition, "partition", "p", -1, "write to this partition (-1: by key, else spread)")
	flags.StringVarP(&want.codec, "compression", "z", "none", "none, gzip, snappy, lz4 or zstd")
	flags.StringVar(&want.acks, "acks", "all", "all, 1, or 0 (no answer is awaited)")
	flags.Var(&want.batchBytes, "max-message-bytes", "largest record batch that is sent, at most 64MiB")
	flags.Float64Var(&want.rate, "rate", 0, "records a second at most (0: as fast as it goes)")
	flags.Int64VarP(&want.count, "num", "n", 0, "end after so many records")
	flags.StringVarP(&want.format, "format", "f", "", "what a record looks like, or json")
	flags.BoolVar(&want.whole, "whole", false, "each file, or all of standard input, is one record")
	flags.BoolVar(&want.create, "create", false, "have the broker create the topic where it allows that")
	flags.BoolVarP(&want.tombstone, "tombstone", "Z", false, "an empty value is none")
	flags.BoolVarP(&want.verbose, "verbose", "v", false, "print partition and offset of each record")
	return command
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

// kafkaOptions are the client's. None limits how long a record may take:
// kgo.RecordDeliveryTimeout counts from the record's own time, so that a record that
// is older than the limit is never sent. producing.watch limits it instead.
func (x *produceOptions) kafkaOptions(topic string) ([]kgo.Opt, error) {
	options := []kgo.Opt{kgo.DefaultProduceTopic(topic), kgo.UnknownTopicRetries(3)}
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

// produce writes the records of its sources and waits until all are acknowledged:
//
//	connect(); for each source { for each record { send() } }; await every acknowledgement
//
// A signal ends the sending, and silence of the broker the awaiting.
func produce(cmd *cobra.Command, opts *options, want produceOptions, topic string, files []string) error {
	options, err := want.kafkaOptions(topic)
	if err != nil {
		return err
	}
	patience := newPatience(cmd.ErrOrStderr())
	options = append(options, kgo.WithHooks(patience))
	var headers []kgo.RecordHeader
	for _, h := range want.headers {
		k, v, ok := strings.Cut(h, "=")
		if !ok {
			return fmt.Errorf("--header %q: it is KEY=VALUE", h)
		}
		headers = append(headers, kgo.RecordHeader{Key: k, Value: []byte(v)})
	}
	sources := []source{{"standard input", cmd.InOrStdin()}}
	started := producing{want: want, patience: patience, out: bufio.NewWriter(cmd.OutOrStdout()), byPartition: map[int32]*producedPartition{}}
	if len(files) > 0 {
		sources = nil
		if !want.verbose {
			started.bar = term.NewProgress(os.Stderr, "writing")
		}
		for _, name := range files {
			file, err := os.Open(name)
			if err != nil {
				return err
			}
			defer file.Close()
			if about, err := file.Stat(); err != nil || !about.Mode().IsRegular() {
				started.bar = nil // a pipe's size is not known
			} else {
				started.bytes += about.Size()
			}
			sources = append(sources, source{name, file})
		}
	}
	conn, err := opts.connect(cmd, options...)
	if err != nil {
		return err
	}
	defer conn.close()
	if !want.create {
		metadata, err := conn.metadata(topic)
		if err != nil {
			return err
		}
		if n := len(metadata.Topics[topic].Partitions); int(want.partition) >= n {
			return fmt.Errorf("topic %s has no partition %d; it has %s, from 0", topic, want.partition, term.Plural(n, "partition"))
		}
	}
	// Until here a signal ends the process.
	ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, unix.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal ends it at once
	started.c, started.began, started.sum.Topic = conn, time.Now(), topic
	sending, giveUp := context.WithCancel(cmd.Context())
	defer giveUp()
	reading, enough := context.WithCancel(ctx)
	defer enough()
	started.enough = enough
	go started.watch(ctx, sending, giveUp)
	for _, input := range sources {
		input.r = &counted{newInterruptible(reading, input.r), &started.bytesRead}
		if err = started.all(reading, sending, input, headers); err != nil {
			break
		}
	}
	if e := conn.kafka.Flush(sending); err == nil {
		err = e
	}
	started.bar.End()
	if e := started.report(cmd.ErrOrStderr()); err == nil {
		err = e
	}
	if failed, sent, first := started.failures(); errors.Is(first, errSilence) {
		return fmt.Errorf("%d of %d records were not acknowledged: %w", failed, sent, first)
	} else if first != nil {
		return fmt.Errorf("%d of %d records were not written; the first: %w", failed, sent, conn.explain(brokerError(first, "")))
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

func (c *counted) Read(text []byte) (int, error) {
	n, err := c.Reader.Read(text)
	*c.n += int64(n)
	return n, err
}

// producing is one run of produce. promise runs on kgo's goroutines and watch on one
// of its own; mu guards what they use.
type producing struct {
	c        *client
	want     produceOptions
	patience *patience
	began    time.Time
	read     int64
	enough   func() // ends the reading

	bar              *term.Progress // of files: bytesRead of bytes
	bytesRead, bytes int64

	mu          sync.Mutex
	out         *bufio.Writer
	sum         produced
	byPartition map[int32]*producedPartition
	sent        int64     // records that were given to the client
	heardAt     time.Time // the last result, or the first record for which there was none to wait
	first       error
}

// watch gives up sending where no result comes for too long though some are awaited.
// signalled ends with a signal, after which that is a shorter time.
func (p *producing) watch(signalled, sending context.Context, giveUp func()) {
	limit, done := p.want.silence, signalled.Done()
	for {
		select {
		case <-sending.Done():
			return
		case <-done:
			limit, done = min(limit, partingMax), nil
			p.mu.Lock()
			p.heardAt = time.Now()
			p.mu.Unlock()
		case <-time.After(min(limit/8, time.Second)):
		}
		p.mu.Lock()
		silent := p.sent > p.sum.Records+p.sum.Failed && time.Since(p.heardAt) > limit
		if silent {
			p.fail(p.patience.silence(limit))
		}
		p.mu.Unlock()
		if silent {
			giveUp()
			return
		}
	}
}

// fail keeps the first error, after which no more is read. The caller holds mu.
func (p *producing) fail(err error) {
	if p.first == nil {
		p.first = err
		p.enough()
	}
}

// failures are how many of the records sent were not written, and the first error. A
// record whose result did not come counts: it may have been written or not.
func (p *producing) failures() (failed, sent int64, first error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.sent - p.sum.Records, p.sent, p.first
}

// all writes all records of one source. reading ends before that with a signal or the
// first failure, sending where the broker is silent.
func (p *producing) all(reading, sending context.Context, input source, headers []kgo.RecordHeader) error {
	next, err := p.want.reader(input)
	if err != nil {
		return err
	}
	for {
		if p.want.count > 0 && p.read == p.want.count {
			return nil
		}
		record, err := next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("%s: %w", input.name, err)
		}
		p.read++
		record.Headers = append(record.Headers, headers...)
		if p.want.key != "" {
			record.Key = []byte(p.want.key)
		}
		if p.want.partition >= 0 {
			record.Partition = p.want.partition
		}
		if p.want.tombstone && len(record.Value) == 0 {
			record.Value = nil
		}
		if p.want.rate > 0 {
			due := p.began.Add(time.Duration(float64(p.read-1) / p.want.rate * 1e9))
			select {
			case <-time.After(time.Until(due)):
			case <-reading.Done():
				return reading.Err()
			}
		}
		if reading.Err() != nil {
			return reading.Err()
		}
		if !writable(record.Timestamp) {
			return fmt.Errorf("%s: record %d: its time %s cannot be written by this client: it writes those of 1678 to 2261", input.name, p.read, record.Timestamp.UTC().Format(time.RFC3339))
		}
		p.mu.Lock()
		if p.sent == p.sum.Records+p.sum.Failed {
			p.heardAt = time.Now()
		}
		p.sent++
		p.mu.Unlock()
		p.c.kafka.Produce(sending, record, p.promise)
		p.bar.At(p.bytesRead, p.bytes)
	}
}

// promise takes the result of one record.
func (p *producing) promise(record *kgo.Record, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.heardAt = time.Now()
	if err != nil {
		p.sum.Failed++
		p.fail(err)
		return
	}
	p.sum.Records++
	p.sum.Bytes += int64(len(record.Key) + len(record.Value))
	part := p.byPartition[record.Partition]
	if part == nil {
		part = &producedPartition{Partition: record.Partition, First: record.Offset}
		p.byPartition[record.Partition] = part
	}
	part.Records++
	part.Last = record.Offset
	if p.want.verbose {
		fmt.Fprintf(p.out, "%d/%d\n", record.Partition, record.Offset)
	}
}

// report prints the summary: to standard error as text, or as --output says.
func (p *producing) report(out io.Writer) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sum.Seconds, p.sum.Failed = time.Since(p.began).Seconds(), p.sent-p.sum.Records
	p.sum.Partitions = []producedPartition{}
	for i := int32(0); len(p.sum.Partitions) < len(p.byPartition); i++ {
		if part := p.byPartition[i]; part != nil {
			p.sum.Partitions = append(p.sum.Partitions, *part)
		}
	}
	if p.c.output != "table" {
		if err := p.c.print(p.out, p.sum, nil); err != nil {
			return err
		}
	} else {
		fmt.Fprintf(out, "%s, %s to %s in %s\n", term.Plural(int(p.sum.Records), "record"), term.Plural(int(p.sum.Bytes), "byte"), p.sum.Topic, time.Duration(p.sum.Seconds*1e9).Round(time.Millisecond))
	}
	return p.out.Flush()
}

// writable says whether kgo writes a time as it is: it counts nanoseconds in 64 bits. The
// zero time is now.
func writable(t time.Time) bool { return t.IsZero() || t.Year() >= 1678 && t.Year() <= 2261 }

// reader is a function that reads the next record of a source, io.EOF at the end.
func (x *produceOptions) reader(input source) (func() (*kgo.Record, error), error) {
	switch {
	case x.whole:
		over := false
		return func() (*kgo.Record, error) {
			if over {
				return nil, io.EOF
			}
			over = true
			text, err := io.ReadAll(input.r)
			return &kgo.Record{Value: text}, err
		}, nil
	case x.format == "json":
		decoder := json.NewDecoder(withoutMark(input.r))
		return func() (*kgo.Record, error) {
			var fields recordJSON
			if err := decoder.Decode(&fields); err != nil {
				return nil, err
			}
			return fromJSON(fields)
		}, nil
	case x.format != "":
		r, err := kgo.NewRecordReader(input.r, x.format)
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
	lines := bufio.NewReaderSize(input.r, 64<<10)
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
