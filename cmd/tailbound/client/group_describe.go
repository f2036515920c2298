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
		lag, ok := lags[name]
		if err := lag.Error(); errors.Is(err, kerr.GroupIDNotFound) {
			group, err := c.describeConsumers(ctx, name)
			if err != nil {
				return nil, err
			}
			all = append(all, *group)
			continue
		} else if err != nil {
			return nil, fmt.Errorf("group %s: %w", name, c.explain(brokerError(err, "")))
		}
		if !ok || lag.State == "Dead" && len(lag.Lag) == 0 {
			return nil, c.unknownGroup(name)
		}
		group := groupDescription{groupRow: groupRow{name, "classic", lag.State, lag.ProtocolType, lag.Coordinator.NodeID}, Protocol: lag.Protocol, Members: []memberRow{}, Partitions: []groupPartition{}}
		for _, each := range lag.Members {
			row := memberRow{ID: each.MemberID, Client: each.ClientID, Host: each.ClientHost, Partitions: []string{}}
			if each.InstanceID != nil {
				row.Instance = *each.InstanceID
			}
			if assignment, ok := each.Assigned.AsConsumer(); ok {
				for _, t := range assignment.Topics {
					for _, partition := range t.Partitions {
						row.Partitions = append(row.Partitions, fmt.Sprintf("%s/%d", t.Topic, partition))
					}
				}
			}
			slices.Sort(row.Partitions)
			group.Members = append(group.Members, row)
		}
		for _, p := range lag.Lag.Sorted() {
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
			group.Lag += max(0, p.Lag)
			group.Partitions = append(group.Partitions, row)
		}
		all = append(all, group)
	}
	return all, nil
}

// describeConsumers describes a group of the consumer protocol (KIP-848), which the
// requests for classic groups do not find.
func (c *client) describeConsumers(ctx context.Context, name string) (*groupDescription, error) {
	groups, err := c.admin.DescribeConsumerGroups(ctx, name)
	described, ok := groups[name]
	switch {
	case !ok && err != nil:
		return nil, c.explain(brokerError(err, ""))
	case !ok || errors.Is(described.Err, kerr.GroupIDNotFound):
		return nil, c.unknownGroup(name)
	case described.Err != nil:
		return nil, fmt.Errorf("group %s: %w", name, c.explain(brokerError(described.Err, "")))
	}
	group := &groupDescription{groupRow: groupRow{name, "consumer", described.State, "consumer", described.Coordinator.NodeID}, Protocol: described.AssignorName, Members: []memberRow{}, Partitions: []groupPartition{}}
	committed, err := c.admin.FetchOffsets(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("group %s: %w", name, c.explain(brokerError(err, "")))
	}
	of := committed.Partitions()
	member := map[string]map[int32]string{}
	for _, each := range described.Members {
		row := memberRow{ID: each.MemberID, Client: each.ClientID, Host: each.ClientHost, Partitions: []string{}}
		if each.InstanceID != nil {
			row.Instance = *each.InstanceID
		}
		for topic, parts := range each.Assignment {
			for partition := range parts {
				row.Partitions = append(row.Partitions, fmt.Sprintf("%s/%d", topic, partition))
				of.Add(topic, partition)
				if member[topic] == nil {
					member[topic] = map[int32]string{}
				}
				member[topic][partition] = each.MemberID
			}
		}
		slices.Sort(row.Partitions)
		group.Members = append(group.Members, row)
	}
	if len(of) == 0 {
		return group, nil
	}
	starts, err := c.admin.ListStartOffsets(ctx, of.Topics()...)
	if err != nil && len(starts) == 0 {
		return nil, c.explain(brokerError(err, ""))
	}
	ends, err := c.admin.ListEndOffsets(ctx, of.Topics()...)
	if err != nil && len(ends) == 0 {
		return nil, c.explain(brokerError(err, ""))
	}
	for _, topic := range of.Sorted() {
		for _, partition := range topic.Partitions {
			row := groupPartition{Topic: topic.Topic, Partition: partition, Committed: -1, Start: -1, End: -1, Lag: -1, Member: member[topic.Topic][partition]}
			if o, ok := committed.Lookup(topic.Topic, partition); ok && o.Err == nil {
				row.Committed = o.At
			}
			start, ok := starts.Lookup(topic.Topic, partition)
			end, too := ends.Lookup(topic.Topic, partition)
			switch {
			case !ok || !too:
				row.Error = "its offsets are not known"
			case start.Err != nil || end.Err != nil:
				row.Error = brokerError(cmp.Or(start.Err, end.Err), "").Error()
			default:
				row.Start, row.End = start.Offset, end.Offset
				row.Lag = max(0, row.End-max(row.Committed, row.Start))
				group.Lag += row.Lag
			}
			group.Partitions = append(group.Partitions, row)
		}
	}
	return group, nil
}

func groupDescribe(opts *options) *cobra.Command {
	return &cobra.Command{
		Use:               "describe GROUP...",
		Aliases:           []string{"info"},
		Short:             "Show a group's state, members, offsets and lag",
		Example:           "  tailbound group describe billing",
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: opts.completeGroups,
		RunE: func(cmd *cobra.Command, args []string) error {
			return opts.showGroups(cmd, args, func(table *tabwriter.Writer, group groupDescription) {
				fmt.Fprintf(table, "%s\t%s, %s, %s, coordinator %d, lag %d\n", group.Group, group.Type, group.State, term.Plural(len(group.Members), "member"), group.Coordinator, group.Lag)
				table.Flush()
				if len(group.Members) > 0 {
					fmt.Fprintln(table, "\nMEMBER\tINSTANCE\tCLIENT\tHOST\tPARTITIONS")
					for _, m := range group.Members {
						fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\n", m.ID, m.Instance, m.Client, m.Host, strings.Join(m.Partitions, " "))
					}
					table.Flush()
				}
				fmt.Fprintln(table)
				printLag(table, group)
			})
		},
	}
}

func groupLag(opts *options) *cobra.Command {
	return &cobra.Command{
		Use:               "lag GROUP...",
		Short:             "Show how far groups are behind",
		Example:           "  tailbound group lag billing --output json | jq '.[0].lag'",
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: opts.completeGroups,
		RunE: func(cmd *cobra.Command, args []string) error {
			return opts.showGroups(cmd, args, func(table *tabwriter.Writer, group groupDescription) {
				fmt.Fprintf(table, "%s\tlag %d\n", group.Group, group.Lag)
				table.Flush()
				printLag(table, group)
			})
		},
	}
}

func (o *options) showGroups(cmd *cobra.Command, names []string, show func(*tabwriter.Writer, groupDescription)) error {
	conn, err := o.connect(cmd)
	if err != nil {
		return err
	}
	defer conn.close()
	all, err := conn.describeGroups(names)
	if err != nil {
		return err
	}
	return o.print(cmd.OutOrStdout(), all, func(table *tabwriter.Writer) {
		for i, group := range all {
			if i > 0 {
				fmt.Fprintln(table)
			}
			show(table, group)
		}
	})
}

func printLag(table *tabwriter.Writer, group groupDescription) {
	fmt.Fprintln(table, "TOPIC\tPARTITION\tCOMMITTED\tEND\tLAG\tMEMBER")
	for _, partition := range group.Partitions {
		fmt.Fprintf(table, "%s\t%d\t%s\t%s\t%s\t%s%s\n", partition.Topic, partition.Partition, known(partition.Committed), known(partition.End), known(partition.Lag), partition.Member, partition.Error)
	}
}

// known is a number as text, - for -1.
func known(n int64) string {
	if n < 0 {
		return "-"
	}
	return strconv.FormatInt(n, 10)
}
