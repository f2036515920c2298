package client

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/tailbound/tailbound/cmd/tailbound/term"
)

// groupDescription is one group with members, offsets and lag.
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
	Committed int64  `json:"committed"` // -1: none
	Start     int64  `json:"start"`     // -1: unknown
	End       int64  `json:"end"`
	Lag       int64  `json:"lag"`
	Member    string `json:"member,omitempty"`
	Error     string `json:"error,omitempty"`
}

// describeGroups describes groups of either protocol.
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

// describeConsumers describes a group of the consumer protocol (KIP-848), which the
// requests for classic groups do not find.
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

func groupDescribe(o *options) *cobra.Command {
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

func groupLag(o *options) *cobra.Command {
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

func (o *options) showGroups(cmd *cobra.Command, names []string, show func(*tabwriter.Writer, groupDescription)) error {
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

// known is a number as text, - for -1.
func known(n int64) string {
	if n < 0 {
		return "-"
	}
	return strconv.FormatInt(n, 10)
}
