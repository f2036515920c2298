package client

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/signal"
	"regexp"
	"slices"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sys/unix"
)

type consumeOptions struct {
	from, to, format, group string
	grepKey, grep           string
	partitions              []int32
	count                   int64
	atEnd                   bool
}

func consumeCommand(version string) *cobra.Command {
	opts, want := &options{version: version}, consumeOptions{}
	command := &cobra.Command{
		Use:   "consume TOPIC...",
		Short: "Print records",
		Long: `Print records, by default all there are, each value on a line, and then what
comes, until interrupted. --exit-at-end ends where the partitions ended when it
began; --to ends there. On the way to an end, nothing coming for --timeout is an
error; without an end the command waits for its broker.

--from and --to take start, end, an offset, +N (after the start), -N (before
the end) or @TIME: @2026-11-21, @2026-11-21T09:30:00Z, @-1h (an hour ago), or
milliseconds since 1970.

--format takes what rpk and kgo know: %t topic, %p partition, %o offset, %k
key, %v value, %h{%k=%v } headers, %d{strftime[%F %T]} time, %i a count; or
json for a line of JSON each, in which "base64": true says that key and values
are in base64, as one of them is no text.`,
		Example: `  tailbound consume orders --exit-at-end
  tailbound consume orders --from @-10m --format '%p/%o %k: %v\n'
  tailbound consume orders -p 0 --from -5 -n 5 --format json
  tailbound consume orders --grep-key '^customer-17$' -e`,
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: opts.completeTopics,
		RunE:              func(cmd *cobra.Command, args []string) error { return consume(cmd, opts, want, args) },
	}
	opts.flags(command)
	flags := command.Flags()
	flags.StringVarP(&want.from, "from", "o", "start", "where to begin (also --offset)")
	flags.StringVar(&want.to, "to", "", "where to end; what is there is not printed")
	flags.Int32SliceVarP(&want.partitions, "partitions", "p", nil, "only these partitions")
	flags.Int64VarP(&want.count, "num", "n", 0, "end after so many records")
	flags.BoolVarP(&want.atEnd, "exit-at-end", "e", false, "end where the partitions end now")
	flags.StringVarP(&want.format, "format", "f", "%v\\n", "how a record is printed, or json")
	flags.StringVarP(&want.group, "group", "g", "", "consume as a member of a group, and commit what was printed")
	flags.StringVar(&want.grepKey, "grep-key", "", "only records whose key matches a regular expression")
	flags.StringVar(&want.grep, "grep", "", "only records whose value matches a regular expression")
	flags.SetNormalizeFunc(func(_ *pflag.FlagSet, name string) pflag.NormalizedName {
		if name == "offset" {
			name = "from"
		}
		return pflag.NormalizedName(name)
	})
	return command
}

// consumption is a consume under way.
type consumption struct {
	want   consumeOptions
	conn   *client
	print  func(io.Writer, *kgo.Record) error
	keys   matcher
	values matcher
	out    *bufio.Writer
	// left is the end offsets of partitions that are not finished. nil: they have no
	// end.
	left     map[string]map[int32]int64
	printed  int64
	said     map[string]bool            // errors that were reported
	next     map[string]map[int32]int64 // offsets behind the records that came; at first, where to begin
	patience *patience
	heardAt  time.Time // when the last records came, or it began
}

// consume prints records until there are no more, or until it is interrupted:
//
//	connect(); assign(); for !over { poll(); print(); commit() }
func consume(cmd *cobra.Command, opts *options, want consumeOptions, topics []string) (err error) {
	if opts.output != "table" && !cmd.Flags().Changed("format") {
		if opts.output != "json" {
			return fmt.Errorf("--output %s: records are printed with --format, or as json", opts.output)
		}
		want.format = "json"
	}
	if cmd.Flags().Changed("group") && want.group == "" {
		return errors.New("--group is empty: give a group's name, or leave it away")
	}
	c := consumption{want: want, said: map[string]bool{}, patience: newPatience(cmd.ErrOrStderr())}
	if c.print, err = recordPrinter(want.format); err != nil {
		return err
	}
	if c.keys, err = pattern("--grep-key", want.grepKey); err != nil {
		return err
	}
	if c.values, err = pattern("--grep", want.grep); err != nil {
		return err
	}
	within, err := want.within()
	if err != nil {
		return err
	}
	more, err := want.clientOptions(within, topics)
	if err != nil {
		return err
	}
	if c.conn, err = opts.connect(cmd, append(more, kgo.WithHooks(c.patience))...); err != nil {
		return err
	}
	defer c.conn.kafka.CloseAllowingRebalance()
	if want.group == "" {
		ranges, err := c.conn.ranges(topics, want.partitions, within)
		if err != nil {
			return err
		}
		c.left = c.conn.assign(ranges, want.to != "" || want.atEnd)
		for _, span := range ranges {
			c.came(span.topic, span.partition, span.from)
		}
		if c.left != nil && len(c.left) == 0 {
			return nil
		}
	} else if _, err := c.conn.metadata(topics...); err != nil {
		return err
	}
	// Until here a signal ends the process.
	ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, unix.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal ends it at once
	c.out = bufio.NewWriterSize(&interruptibleWriter{ctx: ctx, to: cmd.OutOrStdout()}, 64<<10)
	defer c.out.Flush()
	c.heardAt = time.Now()
	for {
		if over, err := c.poll(ctx); err != nil || over {
			return err
		}
	}
}

// clientOptions are the options of a client that consumes: as a member of a group, or
// for itself.
func (x *consumeOptions) clientOptions(within offsetRange, topics []string) ([]kgo.Opt, error) {
	all := []kgo.Opt{kgo.FetchMaxWait(500 * time.Millisecond), kgo.KeepRetryableFetchErrors()}
	if x.group == "" {
		return append(all, kgo.KeepControlRecords()), nil
	}
	if len(x.partitions) > 0 || x.to != "" || x.atEnd {
		return nil, errors.New("--group takes what the group gives it: no --partitions, --to or --exit-at-end beside it")
	}
	// A group begins at --from only if it has committed nothing.
	reset := kgo.NewOffset().AtStart()
	switch within.from.kind {
	case atStart:
	case atEnd:
		reset = kgo.NewOffset().AtEnd()
	default:
		return nil, errors.New("--from with --group is start or end; `tailbound group reset` moves a group")
	}
	return append(all, kgo.ConsumerGroup(x.group), kgo.ConsumeTopics(topics...), kgo.ConsumeResetOffset(reset), kgo.DisableAutoCommit(), kgo.BlockRebalanceOnPoll()), nil
}

// poll prints the records of one answer, and commits them for a group. over: no more
// are to be printed.
func (c *consumption) poll(ctx context.Context) (over bool, err error) {
	polling := ctx
	if c.left != nil {
		var cancel context.CancelFunc
		polling, cancel = context.WithDeadline(ctx, c.heardAt.Add(c.conn.timeout))
		defer cancel()
	}
	fetches := c.conn.kafka.PollFetches(polling)
	if ctx.Err() != nil || fetches.IsClientClosed() {
		return true, c.out.Flush()
	}
	if polling.Err() != nil && fetches.NumRecords() == 0 {
		c.out.Flush()
		return c.silent(ctx)
	}
	if err := c.fetchError(fetches); err != nil {
		c.out.Flush()
		return false, err
	}
	var done []*kgo.Record
	fetches.EachRecord(func(record *kgo.Record) {
		if over || err != nil {
			return
		}
		var within bool
		if within, over, err = c.take(record); within {
			done = append(done, record)
		}
	})
	if err == nil {
		err = c.out.Flush()
	}
	if len(done) > 0 {
		c.heardAt = time.Now()
	}
	if errors.Is(err, unix.EPIPE) || errors.Is(err, errUnread) {
		return true, nil // the reader of the pipe has closed it, as head does, or does not read after a signal
	}
	if c.want.group != "" {
		if err == nil {
			err = c.conn.kafka.CommitRecords(ctx, done...)
		}
		c.conn.kafka.AllowRebalance()
	}
	return over, err
}

// silent is asked where nothing came for --timeout on the way to an end. over: there
// is nothing left to come, as the rest was deleted meanwhile.
func (c *consumption) silent(ctx context.Context) (over bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, min(c.conn.timeout, 2*time.Second))
	defer cancel()
	starts, err := c.conn.admin.ListStartOffsets(ctx, slices.Collect(maps.Keys(c.left))...)
	if err == nil {
		err = starts.Error()
	}
	if err != nil {
		return false, c.patience.silence(c.conn.timeout)
	}
	found := false
	starts.Each(func(start kadm.ListedOffset) {
		if end, ok := c.left[start.Topic][start.Partition]; ok && start.Offset >= end {
			found = true
			over = c.conn.arrived(c.left, start.Topic, start.Partition) || over
		}
	})
	if !found {
		return false, c.patience.silence(c.conn.timeout)
	}
	c.heardAt = time.Now()
	return over, nil
}

// take prints a record if it is wanted. within: it is in the range that is consumed.
// over: no more are to be printed.
func (c *consumption) take(record *kgo.Record) (within, over bool, err error) {
	c.came(record.Topic, record.Partition, record.Offset+1)
	end, bounded := c.left[record.Topic][record.Partition]
	if c.left != nil && !bounded || bounded && record.Offset >= end {
		return false, c.conn.arrived(c.left, record.Topic, record.Partition), nil
	}
	if !record.Attrs.IsControl() && c.keys.match(record.Key) && c.values.match(record.Value) {
		err = c.print(c.out, record)
		c.printed++
	}
	over = c.want.count > 0 && c.printed == c.want.count
	if bounded && record.Offset+1 >= end {
		over = c.conn.arrived(c.left, record.Topic, record.Partition) || over
	}
	return true, over, err
}

// came notes the next offset of a partition.
func (c *consumption) came(topic string, partition int32, next int64) {
	if c.next == nil {
		c.next = map[string]map[int32]int64{}
	}
	if c.next[topic] == nil {
		c.next[topic] = map[int32]int64{}
	}
	c.next[topic][partition] = next
}

// within is the range of --from and --to.
func (x *consumeOptions) within() (span offsetRange, err error) {
	if span.from, err = parsePosition(x.from); err != nil {
		return span, fmt.Errorf("--from %q: %w", x.from, err)
	}
	span.to.kind = atEnd
	if x.to != "" {
		if span.to, err = parsePosition(x.to); err != nil {
			return span, fmt.Errorf("--to %q: %w", x.to, err)
		}
	}
	return span, nil
}

// assign makes the client consume ranges. If they are bounded it returns the end of
// each that is not empty, otherwise nil.
func (c *client) assign(ranges []partitionRange, bounded bool) (left map[string]map[int32]int64) {
	assigned := map[string]map[int32]kgo.Offset{}
	if bounded {
		left = map[string]map[int32]int64{}
	}
	for _, span := range ranges {
		if bounded {
			if span.from >= span.to {
				continue
			}
			if left[span.topic] == nil {
				left[span.topic] = map[int32]int64{}
			}
			left[span.topic][span.partition] = span.to
		}
		if assigned[span.topic] == nil {
			assigned[span.topic] = map[int32]kgo.Offset{}
		}
		assigned[span.topic][span.partition] = kgo.NewOffset().At(span.from)
	}
	c.kafka.AddConsumePartitions(assigned)
	return left
}

// arrived finishes a partition and returns whether it was the last.
func (c *client) arrived(left map[string]map[int32]int64, topic string, partition int32) bool {
	if _, ok := left[topic][partition]; ok {
		c.kafka.PauseFetchPartitions(map[string][]int32{topic: {partition}})
		if delete(left[topic], partition); len(left[topic]) == 0 {
			delete(left, topic)
		}
	}
	return len(left) == 0
}

// fetchError is the error that ends a consumer, if there is one. Errors that kgo
// retries do not, except for records that the broker's storage cannot read: with an
// end the consumer would never reach it, so it is an error; without one it is
// printed once.
func (c *consumption) fetchError(fetches kgo.Fetches) error {
	for _, fetch := range fetches.Errors() {
		var lost *kgo.ErrDataLoss
		var code *kerr.Error
		switch {
		case errors.As(fetch.Err, &lost):
			fmt.Fprintf(os.Stderr, "tailbound: %s/%d: %v\n", fetch.Topic, fetch.Partition, fetch.Err)
		case errors.Is(fetch.Err, kerr.KafkaStorageError), errors.Is(fetch.Err, kerr.CorruptMessage):
			err := fmt.Errorf("%s/%d: %w", fetch.Topic, fetch.Partition, brokerError(fetch.Err, ""))
			if c.left != nil {
				return err
			}
			if text := err.Error(); !c.said[text] {
				c.said[text] = true
				fmt.Fprintf(os.Stderr, "tailbound: %s; trying again\n", text)
			}
		case errors.Is(fetch.Err, context.Canceled), kerr.IsRetriable(fetch.Err):
		case errors.As(fetch.Err, &code):
			return fmt.Errorf("%s/%d: %w", fetch.Topic, fetch.Partition, brokerError(fetch.Err, ""))
		case fetch.Topic != "": // the connection was good, what came over it is not
			return c.unreadable(fetch.Topic, fetch.Partition, fetch.Err)
		default:
			return c.conn.explain(fetch.Err)
		}
	}
	return nil
}

// unreadable is the error for records that the client cannot take apart, such as a
// compressed batch that is cut short.
func (c *consumption) unreadable(topic string, partition int32, err error) error {
	if next, ok := c.next[topic][partition]; ok {
		return fmt.Errorf("%s/%d: the record batch with offset %d cannot be read: %w; `tailbound consume %s -p %d --from` with a later offset goes on behind it", topic, partition, next, err, topic, partition)
	}
	return fmt.Errorf("%s/%d: the next record batch cannot be read: %w", topic, partition, err)
}

// matcher matches bytes with a regular expression; without one it matches all.
type matcher struct{ *regexp.Regexp }

// pattern is the matcher of a flag.
func pattern(flag, text string) (matcher, error) {
	if text == "" {
		return matcher{}, nil
	}
	pattern, err := regexp.Compile(text)
	if err != nil {
		return matcher{}, fmt.Errorf("%s %q: %w", flag, text, err)
	}
	return matcher{pattern}, nil
}

func (m matcher) match(text []byte) bool { return m.Regexp == nil || m.Match(text) }
