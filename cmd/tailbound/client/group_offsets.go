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

func groupReset(o *options) *cobra.Command {
	want := resetOptions{}
	c := &cobra.Command{
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
		ValidArgsFunction: o.completeGroups,
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
			c, err := o.connect(cmd)
			if err != nil {
				return err
			}
			defer c.close()
			moves, err := c.planReset(cmd, args[0], want)
			if err != nil {
				return err
			}
			return c.commit(cmd.OutOrStdout(), args[0], moves, want.dry)
		},
	}
	f := c.Flags()
	f.StringVar(&want.to, "to", "", "earliest, latest, an offset, +N, -N or @TIME")
	f.Int64Var(&want.shift, "shift", 0, "records forwards, or backwards where negative")
	f.StringVar(&want.file, "file", "", "file of TOPIC,PARTITION,OFFSET lines; - is standard input")
	f.StringArrayVarP(&want.topics, "topic", "t", nil, "TOPIC or TOPIC:PARTITION,...; may be repeated")
	f.BoolVar(&want.dry, "dry-run", false, "only show what would be done")
	return c
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
	for _, r := range ranges {
		if p := wanted[r.topic]; len(p) > 0 && !slices.Contains(p, r.partition) {
			continue
		}
		m := move{Topic: r.topic, Partition: r.partition, Was: -1, Now: r.from}
		if at, ok := committed[r.topic][r.partition]; ok {
			m.Was = at
		} else if len(want.topics) == 0 {
			continue
		}
		if want.to == "" {
			if m.Was < 0 {
				return nil, fmt.Errorf("%s/%d: nothing is committed that could be shifted; --to says where to begin", r.topic, r.partition)
			}
			m.Now = m.Was + want.shift
		}
		m.within(r)
		moves = append(moves, m)
	}
	for name, partitions := range wanted {
		for _, p := range partitions {
			if !slices.ContainsFunc(ranges, func(r partitionRange) bool { return r.topic == name && r.partition == p }) {
				return nil, fmt.Errorf("topic %s has no partition %d", name, p)
			}
		}
	}
	return moves, nil
}

// within limits an offset to the records that the partition has, with a note.
func (m *move) within(r partitionRange) {
	if m.Now < r.start {
		m.Now, m.Note = r.start, fmt.Sprintf("%d is before the start", m.Now)
	} else if m.Now > r.end {
		m.Now, m.Note = r.end, fmt.Sprintf("%d is after the end", m.Now)
	}
}

// topicPartitions reads TOPIC or TOPIC:0,2.
func topicPartitions(text string) (name string, partitions []int32, err error) {
	name, list, ok := strings.Cut(text, ":")
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
	for _, o := range answer.Sorted() {
		if o.Err != nil {
			return nil, fmt.Errorf("group %s, %s/%d: %w", group, o.Topic, o.Partition, brokerError(o.Err, ""))
		}
		if o.At < 0 {
			continue
		}
		if all[o.Topic] == nil {
			all[o.Topic] = map[int32]int64{}
		}
		all[o.Topic][o.Partition] = o.At
	}
	return all, nil
}

// commit commits the moves, or with dry only prints them. The group must have no
// members.
func (c *client) commit(w io.Writer, group string, moves []move, dry bool) error {
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
		for _, m := range moves {
			offsets.AddOffset(m.Topic, m.Partition, m.Now, -1)
		}
		answer, err := c.admin.CommitOffsets(ctx, group, offsets)
		if err != nil {
			return c.explain(brokerError(err, ""))
		}
		for i, m := range moves {
			r, ok := answer.Lookup(m.Topic, m.Partition)
			switch {
			case !ok:
				err = fmt.Errorf("%s/%d: the broker said nothing of it", m.Topic, m.Partition)
			case errors.Is(r.Err, kerr.UnknownMemberID), errors.Is(r.Err, kerr.RebalanceInProgress):
				err = c.groupInUse(group)
			case r.Err != nil:
				err = fmt.Errorf("%s/%d: %w", m.Topic, m.Partition, brokerError(r.Err, ""))
			default:
				continue
			}
			return fmt.Errorf("group %s, %d of %d offsets were moved: %w", group, i, len(moves), err)
		}
	}
	return c.print(w, moves, func(t *tabwriter.Writer) {
		fmt.Fprintln(t, "TOPIC\tPARTITION\tWAS\tNOW\t")
		for _, m := range moves {
			fmt.Fprintf(t, "%s\t%d\t%s\t%d\t%s\n", m.Topic, m.Partition, known(m.Was), m.Now, m.Note)
		}
		if dry {
			t.Flush()
			fmt.Fprintln(t, "nothing was changed (--dry-run)")
		}
	})
}

func groupExport(o *options) *cobra.Command {
	return &cobra.Command{
		Use:               "export GROUP",
		Short:             "Print a group's offsets as lines of TOPIC,PARTITION,OFFSET",
		Long:              "Print a group's offsets as lines of TOPIC,PARTITION,OFFSET, as kafka-consumer-groups has them.",
		Example:           "  tailbound group offsets export billing > offsets.csv",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: o.completeGroups,
		RunE: o.withClient(func(cmd *cobra.Command, c *client, args []string) error {
			committed, err := c.committed(args[0])
			if err != nil {
				return err
			}
			rows := []groupOffset{}
			for topic, partitions := range committed {
				for p, at := range partitions {
					rows = append(rows, groupOffset{topic, p, at})
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
			if o.output != "table" {
				return o.print(cmd.OutOrStdout(), rows, nil)
			}
			w := csv.NewWriter(cmd.OutOrStdout())
			for _, r := range rows {
				w.Write([]string{r.Topic, strconv.Itoa(int(r.Partition)), strconv.FormatInt(r.Offset, 10)})
			}
			w.Flush()
			return w.Error()
		}),
	}
}

type groupOffset struct {
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	Offset    int64  `json:"offset"`
}

func groupImport(o *options) *cobra.Command {
	var dry bool
	c := &cobra.Command{
		Use:               "import GROUP FILE",
		Short:             "Give a group the offsets of a file; the group is made where it is not there",
		Example:           "  tailbound group offsets import billing offsets.csv --dry-run",
		Args:              cobra.ExactArgs(2),
		ValidArgsFunction: o.completeImport,
		RunE: o.withClient(func(cmd *cobra.Command, c *client, args []string) error {
			moves, err := c.planImport(cmd, args[0], args[1])
			if err != nil {
				return err
			}
			return c.commit(cmd.OutOrStdout(), args[0], moves, dry)
		}),
	}
	c.Flags().BoolVar(&dry, "dry-run", false, "only show what would be done")
	return c
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
	for _, r := range rows {
		if !slices.Contains(topics, r.Topic) {
			topics = append(topics, r.Topic)
		}
	}
	ranges, err := c.ranges(topics, nil, offsetRange{to: position{kind: atEnd}})
	if err != nil {
		return nil, err
	}
	var moves []move
	for _, r := range rows {
		i := slices.IndexFunc(ranges, func(x partitionRange) bool { return x.topic == r.Topic && x.partition == r.Partition })
		if i < 0 {
			return nil, fmt.Errorf("%s: topic %s has no partition %d", file, r.Topic, r.Partition)
		}
		m := move{Topic: r.Topic, Partition: r.Partition, Was: -1, Now: r.Offset}
		if at, ok := committed[r.Topic][r.Partition]; ok {
			m.Was = at
		}
		m.within(ranges[i])
		moves = append(moves, m)
	}
	return moves, nil
}

// readOffsets reads lines of TOPIC,PARTITION,OFFSET. file is its name, for errors.
func readOffsets(in io.Reader, file string) ([]groupOffset, error) {
	r := csv.NewReader(in)
	r.FieldsPerRecord = 3
	r.Comment = '#'
	r.TrimLeadingSpace = true
	var rows []groupOffset
	for {
		fields, err := r.Read()
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w (it is lines of TOPIC,PARTITION,OFFSET)", file, err)
		}
		line, _ := r.FieldPos(0)
		p, err1 := strconv.ParseInt(fields[1], 10, 32)
		at, err2 := strconv.ParseInt(fields[2], 10, 64)
		if err1 != nil || err2 != nil || p < 0 || at < 0 {
			return nil, fmt.Errorf("%s:%d: %q: it is TOPIC,PARTITION,OFFSET", file, line, strings.Join(fields, ","))
		}
		if slices.ContainsFunc(rows, func(r groupOffset) bool { return r.Topic == fields[0] && r.Partition == int32(p) }) {
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
