package client

import (
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
)

// move is one partition's committed offset, as it was and as it is to be.
type move struct {
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	Was       int64  `json:"was"` // -1: none was committed
	Now       int64  `json:"now"`
	Note      string `json:"note,omitempty"`
}

type resetOptions struct {
	to, file string
	shift    int64
	topics   []string
	dry      bool
}

func groupReset(opts *options) *cobra.Command {
	want := resetOptions{}
	command := &cobra.Command{
		Use:   "reset GROUP",
		Short: "Move a group's offsets",
		Long: `Move a group's offsets. The group must have no members.

Without --topic all topics in which the group has offsets are meant. --to takes
earliest, latest, an offset, +N (after the start), -N (before the end) or @TIME:
@2026-11-21, @2026-11-21T09:30:00Z, @-1h (an hour ago). --shift moves each
offset by so many records. --file takes lines of TOPIC,PARTITION,OFFSET as
` + "`tailbound group offsets export`" + ` writes them. Offsets are kept within what
the partition has.`,
		Example: `  tailbound group reset billing --to earliest --dry-run
  tailbound group reset billing --to @-1h --topic orders
  tailbound group reset billing --topic orders:0,2 --shift -100
  tailbound group reset billing --file offsets.csv`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: opts.completeGroups,
		RunE: func(cmd *cobra.Command, args []string) error {
			ways := 0
			for _, name := range []string{"to", "shift", "file"} {
				if cmd.Flags().Changed(name) {
					ways++
				}
			}
			if ways != 1 {
				return errors.New("give one of --to POSITION, --shift N and --file FILE")
			}
			conn, err := opts.connect(cmd)
			if err != nil {
				return err
			}
			defer conn.close()
			moves, err := conn.planReset(cmd, args[0], want)
			if err != nil {
				return err
			}
			return conn.commit(cmd.OutOrStdout(), args[0], moves, want.dry)
		},
	}
	flags := command.Flags()
	flags.StringVar(&want.to, "to", "", "earliest, latest, an offset, +N, -N or @TIME")
	flags.Int64Var(&want.shift, "shift", 0, "records forwards, or backwards where negative")
	flags.StringVar(&want.file, "file", "", "file of TOPIC,PARTITION,OFFSET lines; - is standard input")
	flags.StringArrayVarP(&want.topics, "topic", "t", nil, "TOPIC or TOPIC:PARTITION,...; may be repeated")
	flags.BoolVar(&want.dry, "dry-run", false, "only show what would be done")
	return command
}

// planReset is the moves of a reset.
func (c *client) planReset(cmd *cobra.Command, group string, want resetOptions) ([]move, error) {
	if want.file != "" {
		if len(want.topics) > 0 {
			return nil, errors.New("--file names its partitions itself: no --topic beside it")
		}
		return c.planImport(cmd, group, want.file)
	}
	committed, err := c.committed(group)
	if err != nil {
		return nil, err
	}
	wanted := map[string][]int32{} // partitions of --topic; an empty list is all of the topic
	var topics []string
	for _, text := range want.topics {
		name, partitions, err := topicPartitions(text)
		if err != nil {
			return nil, err
		}
		if _, ok := wanted[name]; !ok {
			topics = append(topics, name)
		}
		wanted[name] = append(wanted[name], partitions...)
	}
	if len(topics) == 0 {
		for name := range committed {
			topics = append(topics, name)
		}
		slices.Sort(topics)
	}
	if len(topics) == 0 {
		return nil, fmt.Errorf("group %s has no offsets; say with --topic which it is to get", group)
	}
	within := offsetRange{to: position{kind: atEnd}}
	if want.to != "" {
		if within.from, err = parsePosition(want.to); err != nil {
			return nil, fmt.Errorf("--to %q: %w", want.to, err)
		}
	}
	ranges, err := c.ranges(topics, nil, within)
	if err != nil {
		return nil, err
	}
	var moves []move
	for _, span := range ranges {
		if partitions := wanted[span.topic]; len(partitions) > 0 && !slices.Contains(partitions, span.partition) {
			continue
		}
		row := move{Topic: span.topic, Partition: span.partition, Was: -1, Now: span.from}
		if at, ok := committed[span.topic][span.partition]; ok {
			row.Was = at
		} else if len(want.topics) == 0 {
			continue
		}
		if want.to == "" {
			if row.Was < 0 {
				return nil, fmt.Errorf("%s/%d: nothing is committed that could be shifted; --to says where to begin", span.topic, span.partition)
			}
			row.Now = row.Was + want.shift
		}
		row.within(span)
		moves = append(moves, row)
	}
	for name, partitions := range wanted {
		for _, partition := range partitions {
			if !slices.ContainsFunc(ranges, func(span partitionRange) bool { return span.topic == name && span.partition == partition }) {
				return nil, fmt.Errorf("topic %s has no partition %d", name, partition)
			}
		}
	}
	return moves, nil
}

// within limits an offset to the records that the partition has, with a note.
func (m *move) within(span partitionRange) {
	if m.Now < span.start {
		m.Now, m.Note = span.start, fmt.Sprintf("%d is before the start", m.Now)
	} else if m.Now > span.end {
		m.Now, m.Note = span.end, fmt.Sprintf("%d is after the end", m.Now)
	}
}

// topicPartitions reads TOPIC or TOPIC:0,2.
func topicPartitions(text string) (name string, partitions []int32, err error) {
	name, list, ok := strings.Cut(text, ":")
	if name == "" {
		return "", nil, fmt.Errorf("--topic %q: it is TOPIC or TOPIC:PARTITION,PARTITION", text)
	}
	if !ok {
		return name, nil, nil
	}
	for _, word := range strings.Split(list, ",") {
		p, err := strconv.ParseInt(word, 10, 32)
		if err != nil || p < 0 {
			return "", nil, fmt.Errorf("--topic %q: %q is no partition", text, word)
		}
		partitions = append(partitions, int32(p))
	}
	return name, partitions, nil
}

// committed is a group's committed offsets, by topic and partition; none for a group
// that does not exist.
func (c *client) committed(group string) (map[string]map[int32]int64, error) {
	ctx, cancel := c.limited()
	defer cancel()
	answer, err := c.admin.FetchOffsets(ctx, group)
	if err != nil && !errors.Is(err, kerr.GroupIDNotFound) {
		return nil, fmt.Errorf("group %s: %w", group, c.explain(brokerError(err, "")))
	}
	all := map[string]map[int32]int64{}
	for _, committed := range answer.Sorted() {
		if committed.Err != nil {
			return nil, fmt.Errorf("group %s, %s/%d: %w", group, committed.Topic, committed.Partition, brokerError(committed.Err, ""))
		}
		if committed.At < 0 {
			continue
		}
		if all[committed.Topic] == nil {
			all[committed.Topic] = map[int32]int64{}
		}
		all[committed.Topic][committed.Partition] = committed.At
	}
	return all, nil
}

// commit commits the moves, or with dry only prints them. The group must have no
// members.
func (c *client) commit(out io.Writer, group string, moves []move, dry bool) error {
	ctx, cancel := c.limited()
	defer cancel()
	members, err := c.membersOf(ctx, group)
	if err != nil {
		return c.explain(brokerError(err, ""))
	}
	if len(members) > 0 {
		return c.groupInUse(group)
	}
	if !dry {
		offsets := kadm.Offsets{}
		for _, row := range moves {
			offsets.AddOffset(row.Topic, row.Partition, row.Now, -1)
		}
		answer, err := c.admin.CommitOffsets(ctx, group, offsets)
		if err != nil {
			return c.explain(brokerError(err, ""))
		}
		for i, row := range moves {
			resp, ok := answer.Lookup(row.Topic, row.Partition)
			switch {
			case !ok:
				err = fmt.Errorf("%s/%d: the broker said nothing of it", row.Topic, row.Partition)
			case errors.Is(resp.Err, kerr.UnknownMemberID), errors.Is(resp.Err, kerr.RebalanceInProgress):
				err = c.groupInUse(group)
			case resp.Err != nil:
				err = fmt.Errorf("%s/%d: %w", row.Topic, row.Partition, brokerError(resp.Err, ""))
			default:
				continue
			}
			return fmt.Errorf("group %s, %d of %d offsets were moved: %w", group, i, len(moves), err)
		}
	}
	return c.print(out, moves, func(table *tabwriter.Writer) {
		fmt.Fprintln(table, "TOPIC\tPARTITION\tWAS\tNOW\t")
		for _, row := range moves {
			fmt.Fprintf(table, "%s\t%d\t%s\t%d\t%s\n", row.Topic, row.Partition, known(row.Was), row.Now, row.Note)
		}
		if dry {
			table.Flush()
			fmt.Fprintln(table, "nothing was changed (--dry-run)")
		}
	})
}

func groupExport(opts *options) *cobra.Command {
	return &cobra.Command{
		Use:               "export GROUP",
		Short:             "Print a group's offsets as lines of TOPIC,PARTITION,OFFSET",
		Long:              "Print a group's offsets as lines of TOPIC,PARTITION,OFFSET, as kafka-consumer-groups has them.",
		Example:           "  tailbound group offsets export billing > offsets.csv",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: opts.completeGroups,
		RunE: opts.withClient(func(cmd *cobra.Command, conn *client, args []string) error {
			committed, err := conn.committed(args[0])
			if err != nil {
				return err
			}
			rows := []groupOffset{}
			for topic, partitions := range committed {
				for partition, at := range partitions {
					rows = append(rows, groupOffset{topic, partition, at})
				}
			}
			if len(rows) == 0 {
				return fmt.Errorf("group %s has no offsets", args[0])
			}
			slices.SortFunc(rows, func(a, b groupOffset) int {
				if a.Topic != b.Topic {
					return strings.Compare(a.Topic, b.Topic)
				}
				return int(a.Partition - b.Partition)
			})
			if opts.output != "table" {
				return opts.print(cmd.OutOrStdout(), rows, nil)
			}
			table := csv.NewWriter(cmd.OutOrStdout())
			for _, offset := range rows {
				table.Write([]string{offset.Topic, strconv.Itoa(int(offset.Partition)), strconv.FormatInt(offset.Offset, 10)})
			}
			table.Flush()
			return table.Error()
		}),
	}
}

type groupOffset struct {
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	Offset    int64  `json:"offset"`
}

func groupImport(opts *options) *cobra.Command {
	var dry bool
	command := &cobra.Command{
		Use:               "import GROUP FILE",
		Short:             "Give a group the offsets of a file; the group is made where it is not there",
		Example:           "  tailbound group offsets import billing offsets.csv --dry-run",
		Args:              cobra.ExactArgs(2),
		ValidArgsFunction: opts.completeImport,
		RunE: opts.withClient(func(cmd *cobra.Command, conn *client, args []string) error {
			moves, err := conn.planImport(cmd, args[0], args[1])
			if err != nil {
				return err
			}
			return conn.commit(cmd.OutOrStdout(), args[0], moves, dry)
		}),
	}
	command.Flags().BoolVar(&dry, "dry-run", false, "only show what would be done")
	return command
}

// planImport is the moves that a file of TOPIC,PARTITION,OFFSET lines asks for.
func (c *client) planImport(cmd *cobra.Command, group, file string) ([]move, error) {
	in := cmd.InOrStdin()
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		in = f
	}
	rows, err := readOffsets(in, file)
	if err != nil {
		return nil, err
	}
	committed, err := c.committed(group)
	if err != nil {
		return nil, err
	}
	var topics []string
	for _, offset := range rows {
		if !slices.Contains(topics, offset.Topic) {
			topics = append(topics, offset.Topic)
		}
	}
	ranges, err := c.ranges(topics, nil, offsetRange{to: position{kind: atEnd}})
	if err != nil {
		return nil, err
	}
	var moves []move
	for _, offset := range rows {
		i := slices.IndexFunc(ranges, func(span partitionRange) bool {
			return span.topic == offset.Topic && span.partition == offset.Partition
		})
		if i < 0 {
			return nil, fmt.Errorf("%s: topic %s has no partition %d", file, offset.Topic, offset.Partition)
		}
		row := move{Topic: offset.Topic, Partition: offset.Partition, Was: -1, Now: offset.Offset}
		if at, ok := committed[offset.Topic][offset.Partition]; ok {
			row.Was = at
		}
		row.within(ranges[i])
		moves = append(moves, row)
	}
	return moves, nil
}

// readOffsets reads lines of TOPIC,PARTITION,OFFSET. file is its name, for errors.
func readOffsets(in io.Reader, file string) ([]groupOffset, error) {
	lines := csv.NewReader(withoutMark(in))
	lines.FieldsPerRecord = 3
	lines.Comment = '#'
	lines.TrimLeadingSpace = true
	var rows []groupOffset
	for {
		fields, err := lines.Read()
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w (it is lines of TOPIC,PARTITION,OFFSET)", file, err)
		}
		line, _ := lines.FieldPos(0)
		p, err1 := strconv.ParseInt(fields[1], 10, 32)
		at, err2 := strconv.ParseInt(fields[2], 10, 64)
		if err1 != nil || err2 != nil || p < 0 || at < 0 || fields[0] == "" {
			return nil, fmt.Errorf("%s:%d: %q: it is TOPIC,PARTITION,OFFSET", file, line, strings.Join(fields, ","))
		}
		if slices.ContainsFunc(rows, func(offset groupOffset) bool { return offset.Topic == fields[0] && offset.Partition == int32(p) }) {
			return nil, fmt.Errorf("%s:%d: %s/%d is there twice", file, line, fields[0], p)
		}
		rows = append(rows, groupOffset{fields[0], int32(p), at})
	}
	if len(rows) == 0 {
		return nil, fmt.Errorf("%s has no offsets", file)
	}
	return rows, nil
}

// completeImport completes a group's name, then a file.
func (o *options) completeImport(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveDefault // a file
	}
	return o.completeGroups(cmd, args, typed)
}
