package client

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"regexp"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
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
	o, want := &options{version: version}, consumeOptions{}
	c := &cobra.Command{
		Use:   "consume TOPIC...",
		Short: "Print records",
		Long: `Print records, by default all there are, each value on a line, and then what
comes, until interrupted. --exit-at-end ends where the partitions ended when it
began; --to ends there.

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
		ValidArgsFunction: o.completeTopics,
		RunE:              func(cmd *cobra.Command, args []string) error { return consume(cmd, o, want, args) },
	}
	o.flags(c)
	f := c.Flags()
	f.StringVarP(&want.from, "from", "o", "start", "where to begin (also --offset)")
	f.StringVar(&want.to, "to", "", "where to end; what is there is not printed")
	f.Int32SliceVarP(&want.partitions, "partitions", "p", nil, "only these partitions")
	f.Int64VarP(&want.count, "num", "n", 0, "end after so many records")
	f.BoolVarP(&want.atEnd, "exit-at-end", "e", false, "end where the partitions end now")
	f.StringVarP(&want.format, "format", "f", "%v\\n", "how a record is printed, or json")
	f.StringVarP(&want.group, "group", "g", "", "consume as a member of a group, and commit what was printed")
	f.StringVar(&want.grepKey, "grep-key", "", "only records whose key matches a regular expression")
	f.StringVar(&want.grep, "grep", "", "only records whose value matches a regular expression")
	f.SetNormalizeFunc(func(_ *pflag.FlagSet, name string) pflag.NormalizedName {
		if name == "offset" {
			name = "from"
		}
		return pflag.NormalizedName(name)
	})
	return c
}

func consume(cmd *cobra.Command, o *options, want consumeOptions, topics []string) error {
	if o.output != "table" && !cmd.Flags().Changed("format") {
		if o.output != "json" {
			return fmt.Errorf("--output %s: records are printed with --format, or as json", o.output)
		}
		want.format = "json"
	}
	print, err := recordPrinter(want.format)
	if err != nil {
		return err
	}
	keys, err := pattern("--grep-key", want.grepKey)
	if err != nil {
		return err
	}
	values, err := pattern("--grep", want.grep)
	if err != nil {
		return err
	}
	within, err := want.within()
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, unix.SIGTERM)
	defer stop()
	more := []kgo.Opt{kgo.FetchMaxWait(500 * time.Millisecond), patient(cmd.ErrOrStderr()), kgo.KeepRetryableFetchErrors()}
	if want.group != "" {
		if len(want.partitions) > 0 || want.to != "" || want.atEnd {
			return errors.New("--group takes what the group gives it: no --partitions, --to or --exit-at-end beside it")
		}
		// A group begins at --from only where it has committed nothing.
		reset := kgo.NewOffset().AtStart()
		switch within.from.kind {
		case atStart:
		case atEnd:
			reset = kgo.NewOffset().AtEnd()
		default:
			return errors.New("--from with --group is start or end; `tailbound group reset` moves a group")
		}
		more = append(more, kgo.ConsumerGroup(want.group), kgo.ConsumeTopics(topics...), kgo.ConsumeResetOffset(reset), kgo.DisableAutoCommit(), kgo.BlockRebalanceOnPoll())
	} else {
		more = append(more, kgo.KeepControlRecords())
	}
	c, err := o.connect(cmd, more...)
	if err != nil {
		return err
	}
	defer c.kafka.CloseAllowingRebalance()
	var left map[string]map[int32]int64 // end offsets of partitions that are not finished; nil: they have no end
	if want.group == "" {
		ranges, err := c.ranges(topics, want.partitions, within)
		if err != nil {
			return err
		}
		left = c.assign(ranges, want.to != "" || want.atEnd)
		if left != nil && len(left) == 0 {
			return nil
		}
	} else if _, err := c.metadata(topics...); err != nil {
		return err
	}
	out := bufio.NewWriterSize(cmd.OutOrStdout(), 64<<10)
	defer out.Flush()
	printed := int64(0)
	said := map[string]bool{}
	for {
		fetches := c.kafka.PollFetches(ctx)
		if ctx.Err() != nil || fetches.IsClientClosed() {
			return out.Flush()
		}
		if err := c.fetchError(fetches, left != nil, said); err != nil {
			out.Flush()
			return err
		}
		over, err := false, error(nil)
		var done []*kgo.Record
		fetches.EachRecord(func(r *kgo.Record) {
			if over || err != nil {
				return
			}
			end, bounded := left[r.Topic][r.Partition]
			if left != nil && !bounded || bounded && r.Offset >= end {
				over = c.arrived(left, r.Topic, r.Partition)
				return
			}
			if !r.Attrs.IsControl() && keys.match(r.Key) && values.match(r.Value) {
				err = print(out, r)
				printed++
			}
			done = append(done, r)
			over = want.count > 0 && printed == want.count
			if bounded && r.Offset+1 >= end {
				over = c.arrived(left, r.Topic, r.Partition) || over
			}
		})
		if err == nil {
			err = out.Flush()
		}
		if errors.Is(err, unix.EPIPE) {
			return nil // the reader of the pipe has closed it, as head does
		}
		if want.group != "" {
			if err == nil {
				err = c.kafka.CommitRecords(ctx, done...)
			}
			c.kafka.AllowRebalance()
		}
		if err != nil || over {
			return err
		}
	}
}

// within is the range of --from and --to.
func (x *consumeOptions) within() (w offsetRange, err error) {
	if w.from, err = parsePosition(x.from); err != nil {
		return w, fmt.Errorf("--from %q: %w", x.from, err)
	}
	w.to.kind = atEnd
	if x.to != "" {
		if w.to, err = parsePosition(x.to); err != nil {
			return w, fmt.Errorf("--to %q: %w", x.to, err)
		}
	}
	return w, nil
}

// assign makes the client consume ranges. If they are bounded it returns the end of
// each that is not empty, otherwise nil.
func (c *client) assign(ranges []partitionRange, bounded bool) (left map[string]map[int32]int64) {
	assigned := map[string]map[int32]kgo.Offset{}
	if bounded {
		left = map[string]map[int32]int64{}
	}
	for _, r := range ranges {
		if bounded {
			if r.from >= r.to {
				continue
			}
			if left[r.topic] == nil {
				left[r.topic] = map[int32]int64{}
			}
			left[r.topic][r.partition] = r.to
		}
		if assigned[r.topic] == nil {
			assigned[r.topic] = map[int32]kgo.Offset{}
		}
		assigned[r.topic][r.partition] = kgo.NewOffset().At(r.from)
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
// printed once, and said remembers it.
func (c *client) fetchError(fetches kgo.Fetches, bounded bool, said map[string]bool) error {
	for _, e := range fetches.Errors() {
		var lost *kgo.ErrDataLoss
		switch {
		case errors.As(e.Err, &lost):
			fmt.Fprintf(os.Stderr, "tailbound: %s/%d: %v\n", e.Topic, e.Partition, e.Err)
		case errors.Is(e.Err, kerr.KafkaStorageError), errors.Is(e.Err, kerr.CorruptMessage):
			err := fmt.Errorf("%s/%d: %w", e.Topic, e.Partition, brokerError(e.Err, ""))
			if bounded {
				return err
			}
			if text := err.Error(); !said[text] {
				said[text] = true
				fmt.Fprintf(os.Stderr, "tailbound: %s; trying again\n", text)
			}
		case errors.Is(e.Err, context.Canceled), kerr.IsRetriable(e.Err):
		case e.Topic != "":
			return fmt.Errorf("%s/%d: %w", e.Topic, e.Partition, c.explain(brokerError(e.Err, "")))
		default:
			return c.explain(brokerError(e.Err, ""))
		}
	}
	return nil
}

// matcher matches bytes with a regular expression; without one it matches all.
type matcher struct{ *regexp.Regexp }

// pattern is the matcher of a flag.
func pattern(flag, text string) (matcher, error) {
	if text == "" {
		return matcher{}, nil
	}
	r, err := regexp.Compile(text)
	if err != nil {
		return matcher{}, fmt.Errorf("%s %q: %w", flag, text, err)
	}
	return matcher{r}, nil
}

func (m matcher) match(b []byte) bool { return m.Regexp == nil || m.Match(b) }
