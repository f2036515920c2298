package main

import (
	"cmp"
	"context"
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
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tailbound/tailbound/cmd/tailbound/term"
)

func groupCommand() *cobra.Command {
	o := new(clientOptions)
	c := &cobra.Command{Use: "group", Short: "List, describe, reset and delete consumer groups; move their offsets",
		Example: "  tailbound group list\n  tailbound group describe billing\n  tailbound group reset billing --to earliest --dry-run"}
	o.flags(c)
	offsets := &cobra.Command{Use: "offsets", Short: "Export and import a group's offsets",
		Example: "  tailbound group offsets export billing > offsets.csv\n  tailbound group offsets import billing offsets.csv --dry-run"}
	offsets.AddCommand(groupExport(o), groupImport(o))
	c.AddCommand(groupList(o), groupDescribe(o), groupLag(o), groupReset(o), groupDelete(o), offsets)
	return c
}

type groupRow struct {
	Group        string `json:"group"`
	Type         string `json:"type"` // classic or consumer; "" where the broker does not say
	State        string `json:"state"`
	ProtocolType string `json:"protocol_type,omitempty"` // what a classic group is of: consumer, connect, ...
	Coordinator  int32  `json:"coordinator"`
}

func groupList(o *clientOptions) *cobra.Command {
	return &cobra.Command{
		Use:     "list",
		Aliases: []string{"ls"},
		Short:   "List groups",
		Example: "  tailbound group list",
		Args:    cobra.NoArgs,
		RunE: o.withClient(func(cmd *cobra.Command, c *client, _ []string) error {
			ctx, cancel := c.limited()
			defer cancel()
			rows, err := c.listGroups(ctx)
			if err != nil {
				return c.explain(brokerError(err, ""))
			}
			return o.print(cmd.OutOrStdout(), rows, func(t *tabwriter.Writer) {
				fmt.Fprintln(t, "GROUP\tTYPE\tSTATE\tCOORDINATOR")
				for _, r := range rows {
					fmt.Fprintf(t, "%s\t%s\t%s\t%d\n", r.Group, cmp.Or(r.Type, "-"), cmp.Or(r.State, "-"), r.Coordinator)
				}
			})
		}),
	}
}

// listGroups asks every node, with the types that kadm leaves away.
func (c *client) listGroups(ctx context.Context) ([]groupRow, error) {
	rows := []groupRow{}
	for _, shard := range c.kafka.RequestSharded(ctx, kmsg.NewPtrListGroupsRequest()) {
		if shard.Err != nil {
			return nil, shard.Err
		}
		r := shard.Resp.(*kmsg.ListGroupsResponse)
		if err := kerr.ErrorForCode(r.ErrorCode); err != nil {
			return nil, err
		}
		for _, g := range r.Groups {
			rows = append(rows, groupRow{g.Group, g.GroupType, g.GroupState, g.ProtocolType, shard.Meta.NodeID})
		}
	}
	slices.SortFunc(rows, func(a, b groupRow) int { return strings.Compare(a.Group, b.Group) })
	return rows, nil
}

// groupDescription is what is known of one group.
type groupDescription struct {
	groupRow
	Protocol   string           `json:"protocol"`
	Members    []memberRow      `json:"members"`
	Lag        int64            `json:"lag"` // of all partitions for which it is known
	Partitions []groupPartition `json:"partitions"`
}

type memberRow struct {
	ID         string   `json:"id"`
	Instance   string   `json:"instance,omitempty"`
	Client     string   `json:"client"`
	Host       string   `json:"host"`
	Partitions []string `json:"partitions"` // TOPIC/NUMBER
}

type groupPartition struct {
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	Committed int64  `json:"committed"` // -1: nothing is
	Start     int64  `json:"start"`     // -1: not known
	End       int64  `json:"end"`
	Lag       int64  `json:"lag"`
	Member    string `json:"member,omitempty"`
	Error     string `json:"error,omitempty"`
}

func (c *client) describeGroups(names []string) ([]groupDescription, error) {
	ctx, cancel := c.limited()
	defer cancel()
	lags, err := c.admin.Lag(ctx, names...)
	if err != nil && len(lags) == 0 {
		return nil, c.explain(brokerError(err, ""))
	}
	var all []groupDescription
	for _, name := range names {
		l, ok := lags[name]
		if err := l.Error(); errors.Is(err, kerr.GroupIDNotFound) {
			d, err := c.describeConsumers(ctx, name)
			if err != nil {
				return nil, err
			}
			all = append(all, *d)
			continue
		} else if err != nil {
			return nil, fmt.Errorf("group %s: %w", name, c.explain(brokerError(err, "")))
		}
		if !ok || l.State == "Dead" && len(l.Lag) == 0 {
			return nil, c.unknownGroup(name)
		}
		d := groupDescription{groupRow: groupRow{name, "classic", l.State, l.ProtocolType, l.Coordinator.NodeID}, Protocol: l.Protocol, Members: []memberRow{}, Partitions: []groupPartition{}}
		for _, m := range l.Members {
			row := memberRow{ID: m.MemberID, Client: m.ClientID, Host: m.ClientHost, Partitions: []string{}}
			if m.InstanceID != nil {
				row.Instance = *m.InstanceID
			}
			if a, ok := m.Assigned.AsConsumer(); ok {
				for _, t := range a.Topics {
					for _, p := range t.Partitions {
						row.Partitions = append(row.Partitions, fmt.Sprintf("%s/%d", t.Topic, p))
					}
				}
			}
			slices.Sort(row.Partitions)
			d.Members = append(d.Members, row)
		}
		for _, p := range l.Lag.Sorted() {
			row := groupPartition{Topic: p.Topic, Partition: p.Partition, Committed: p.Commit.At, Start: -1, End: -1, Lag: p.Lag}
			if p.Start.Err == nil {
				row.Start = p.Start.Offset
			}
			if p.End.Err == nil {
				row.End = p.End.Offset
			}
			if p.Err != nil {
				row.Error = brokerError(p.Err, "").Error()
			}
			if p.Member != nil {
				row.Member = p.Member.MemberID
			}
			d.Lag += max(0, p.Lag)
			d.Partitions = append(d.Partitions, row)
		}
		all = append(all, d)
	}
	return all, nil
}

// describeConsumers describes a group of the consumer protocol (KIP-848), which
// those who only know classic groups do not find.
func (c *client) describeConsumers(ctx context.Context, name string) (*groupDescription, error) {
	groups, err := c.admin.DescribeConsumerGroups(ctx, name)
	g, ok := groups[name]
	switch {
	case !ok && err != nil:
		return nil, c.explain(brokerError(err, ""))
	case !ok || errors.Is(g.Err, kerr.GroupIDNotFound):
		return nil, c.unknownGroup(name)
	case g.Err != nil:
		return nil, fmt.Errorf("group %s: %w", name, c.explain(brokerError(g.Err, "")))
	}
	d := &groupDescription{groupRow: groupRow{name, "consumer", g.State, "consumer", g.Coordinator.NodeID}, Protocol: g.AssignorName, Members: []memberRow{}, Partitions: []groupPartition{}}
	committed, err := c.admin.FetchOffsets(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("group %s: %w", name, c.explain(brokerError(err, "")))
	}
	of := committed.Partitions()
	member := map[string]map[int32]string{}
	for _, m := range g.Members {
		row := memberRow{ID: m.MemberID, Client: m.ClientID, Host: m.ClientHost, Partitions: []string{}}
		if m.InstanceID != nil {
			row.Instance = *m.InstanceID
		}
		for topic, parts := range m.Assignment {
			for p := range parts {
				row.Partitions = append(row.Partitions, fmt.Sprintf("%s/%d", topic, p))
				of.Add(topic, p)
				if member[topic] == nil {
					member[topic] = map[int32]string{}
				}
				member[topic][p] = m.MemberID
			}
		}
		slices.Sort(row.Partitions)
		d.Members = append(d.Members, row)
	}
	if len(of) == 0 {
		return d, nil
	}
	starts, err := c.admin.ListStartOffsets(ctx, of.Topics()...)
	if err != nil && len(starts) == 0 {
		return nil, c.explain(brokerError(err, ""))
	}
	ends, err := c.admin.ListEndOffsets(ctx, of.Topics()...)
	if err != nil && len(ends) == 0 {
		return nil, c.explain(brokerError(err, ""))
	}
	for _, t := range of.Sorted() {
		for _, p := range t.Partitions {
			row := groupPartition{Topic: t.Topic, Partition: p, Committed: -1, Start: -1, End: -1, Lag: -1, Member: member[t.Topic][p]}
			if o, ok := committed.Lookup(t.Topic, p); ok && o.Err == nil {
				row.Committed = o.At
			}
			start, ok := starts.Lookup(t.Topic, p)
			end, too := ends.Lookup(t.Topic, p)
			switch {
			case !ok || !too:
				row.Error = "its offsets are not known"
			case start.Err != nil || end.Err != nil:
				row.Error = brokerError(cmp.Or(start.Err, end.Err), "").Error()
			default:
				row.Start, row.End = start.Offset, end.Offset
				row.Lag = max(0, row.End-max(row.Committed, row.Start))
				d.Lag += row.Lag
			}
			d.Partitions = append(d.Partitions, row)
		}
	}
	return d, nil
}

// membersOf are a group's members, whatever its protocol, as CLIENT@HOST.
func (c *client) membersOf(ctx context.Context, group string) (who []string, err error) {
	groups, err := c.admin.DescribeGroups(ctx, group)
	if err != nil && len(groups) == 0 {
		return nil, err
	}
	for _, m := range groups[group].Members {
		who = append(who, m.ClientID+"@"+m.ClientHost)
	}
	if errors.Is(groups[group].Err, kerr.GroupIDNotFound) {
		consumers, err := c.admin.DescribeConsumerGroups(ctx, group)
		if err != nil && len(consumers) == 0 {
			return nil, err
		}
		for _, m := range consumers[group].Members {
			who = append(who, m.ClientID+"@"+m.ClientHost)
		}
	}
	return who, nil
}

func (c *client) unknownGroup(name string) error {
	ctx, cancel := c.limited()
	defer cancel()
	groups, err := c.admin.ListGroups(ctx)
	if err != nil {
		return fmt.Errorf("there is no group %q", name)
	}
	if near := term.Nearest(name, groups.Groups()); near != "" {
		return fmt.Errorf("there is no group %q; did you mean %q?", name, near)
	}
	return fmt.Errorf("there is no group %q; `tailbound group list` shows all", name)
}

func groupDescribe(o *clientOptions) *cobra.Command {
	return &cobra.Command{
		Use:               "describe GROUP...",
		Aliases:           []string{"info"},
		Short:             "Show a group's state, members, offsets and lag",
		Example:           "  tailbound group describe billing",
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: o.completeGroups,
		RunE: func(cmd *cobra.Command, args []string) error {
			return o.showGroups(cmd, args, func(t *tabwriter.Writer, d groupDescription) {
				fmt.Fprintf(t, "%s\t%s, %s, %s, coordinator %d, lag %d\n", d.Group, d.Type, d.State, term.Plural(len(d.Members), "member"), d.Coordinator, d.Lag)
				t.Flush()
				if len(d.Members) > 0 {
					fmt.Fprintln(t, "\nMEMBER\tINSTANCE\tCLIENT\tHOST\tPARTITIONS")
					for _, m := range d.Members {
						fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", m.ID, m.Instance, m.Client, m.Host, strings.Join(m.Partitions, " "))
					}
					t.Flush()
				}
				fmt.Fprintln(t)
				printLag(t, d)
			})
		},
	}
}

func groupLag(o *clientOptions) *cobra.Command {
	return &cobra.Command{
		Use:               "lag GROUP...",
		Short:             "Show how far groups are behind",
		Example:           "  tailbound group lag billing --output json | jq '.[0].lag'",
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: o.completeGroups,
		RunE: func(cmd *cobra.Command, args []string) error {
			return o.showGroups(cmd, args, func(t *tabwriter.Writer, d groupDescription) {
				fmt.Fprintf(t, "%s\tlag %d\n", d.Group, d.Lag)
				t.Flush()
				printLag(t, d)
			})
		},
	}
}

func (o *clientOptions) showGroups(cmd *cobra.Command, names []string, show func(*tabwriter.Writer, groupDescription)) error {
	c, err := o.connect(cmd)
	if err != nil {
		return err
	}
	defer c.close()
	all, err := c.describeGroups(names)
	if err != nil {
		return err
	}
	return o.print(cmd.OutOrStdout(), all, func(t *tabwriter.Writer) {
		for i, d := range all {
			if i > 0 {
				fmt.Fprintln(t)
			}
			show(t, d)
		}
	})
}

func printLag(t *tabwriter.Writer, d groupDescription) {
	fmt.Fprintln(t, "TOPIC\tPARTITION\tCOMMITTED\tEND\tLAG\tMEMBER")
	for _, p := range d.Partitions {
		fmt.Fprintf(t, "%s\t%d\t%s\t%s\t%s\t%s%s\n", p.Topic, p.Partition, known(p.Committed), known(p.End), known(p.Lag), p.Member, p.Error)
	}
}

// known is a number, or - for -1.
func known(n int64) string {
	if n < 0 {
		return "-"
	}
	return strconv.FormatInt(n, 10)
}

func groupDelete(o *clientOptions) *cobra.Command {
	return &cobra.Command{
		Use:               "delete GROUP...",
		Aliases:           []string{"rm"},
		Short:             "Delete groups that have no members, and their offsets",
		Example:           "  tailbound group delete billing-test",
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: o.completeGroups,
		RunE: o.withClient(func(cmd *cobra.Command, c *client, args []string) error {
			ctx, cancel := c.limited()
			defer cancel()
			gone, err := c.admin.DeleteGroups(ctx, args...)
			if err != nil && len(gone) == 0 {
				return c.explain(brokerError(err, ""))
			}
			var all []outcome
			for _, name := range args {
				x := outcome{Name: name, Done: "deleted"}
				r, ok := gone[name]
				switch {
				case !ok:
					x.Error = "the broker said nothing of it"
				case errors.Is(r.Err, kerr.GroupIDNotFound):
					x.Error = c.unknownGroup(name).Error()
				case errors.Is(r.Err, kerr.NonEmptyGroup):
					x.Error = c.groupInUse(name).Error()
				case r.Err != nil:
					x.Error = brokerError(r.Err, "").Error()
				}
				all = append(all, x)
			}
			return o.printOutcomes(cmd.OutOrStdout(), all)
		}),
	}
}

// groupInUse says who has to stop first.
func (c *client) groupInUse(name string) error {
	ctx, cancel := c.limited()
	defer cancel()
	who, err := c.membersOf(ctx, name)
	if err != nil {
		return fmt.Errorf("group %s is in use; stop its members first", name)
	}
	return fmt.Errorf("group %s is in use; stop its members first: %s", name, strings.Join(who, " "))
}

// move is one partition's offset in a group, as it was and as it is to be.
type move struct {
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	Was       int64  `json:"was"` // -1: nothing was committed
	Now       int64  `json:"now"`
	Note      string `json:"note,omitempty"`
}

type resetOptions struct {
	to, file string
	shift    int64
	topics   []string
	dry      bool
}

func groupReset(o *clientOptions) *cobra.Command {
	x := resetOptions{}
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
			moves, err := c.planReset(cmd, args[0], x)
			if err != nil {
				return err
			}
			return c.commit(cmd.OutOrStdout(), args[0], moves, x.dry)
		},
	}
	f := c.Flags()
	f.StringVar(&x.to, "to", "", "earliest, latest, an offset, +N, -N or @TIME")
	f.Int64Var(&x.shift, "shift", 0, "records forwards, or backwards where negative")
	f.StringVar(&x.file, "file", "", "file of TOPIC,PARTITION,OFFSET lines; - is standard input")
	f.StringArrayVarP(&x.topics, "topic", "t", nil, "TOPIC or TOPIC:PARTITION,...; may be repeated")
	f.BoolVar(&x.dry, "dry-run", false, "only show what would be done")
	return c
}

// planReset finds what a reset is to do.
func (c *client) planReset(cmd *cobra.Command, group string, x resetOptions) ([]move, error) {
	if x.file != "" {
		if len(x.topics) > 0 {
			return nil, errors.New("--file names its partitions itself: no --topic beside it")
		}
		return c.planImport(cmd, group, x.file)
	}
	committed, err := c.committed(group)
	if err != nil {
		return nil, err
	}
	wanted := map[string][]int32{} // no partitions: those committed, or all where none is
	var topics []string
	for _, text := range x.topics {
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
	if x.to != "" {
		if within.from, err = parsePosition(x.to); err != nil {
			return nil, fmt.Errorf("--to %q: %w", x.to, err)
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
		} else if len(x.topics) == 0 {
			continue
		}
		if x.to == "" {
			if m.Was < 0 {
				return nil, fmt.Errorf("%s/%d: nothing is committed that could be shifted; --to says where to begin", r.topic, r.partition)
			}
			m.Now = m.Was + x.shift
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

// within keeps an offset where the partition has records, and says so.
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

// committed is what a group has committed, by topic and partition. A group
// that is not there has nothing.
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

// commit does the moves, unless they are only to be shown.
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

func groupExport(o *clientOptions) *cobra.Command {
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

func groupImport(o *clientOptions) *cobra.Command {
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

// planImport reads TOPIC,PARTITION,OFFSET lines.
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

// completeGroups is the shell's completion of group names.
func (o *clientOptions) completeGroups(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
	return o.complete(cmd, args, typed, func(c *client) ([]string, error) {
		ctx, cancel := c.limited()
		defer cancel()
		groups, err := c.admin.ListGroups(ctx)
		return groups.Groups(), err
	})
}

func (o *clientOptions) completeImport(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveDefault // a file
	}
	return o.completeGroups(cmd, args, typed)
}
