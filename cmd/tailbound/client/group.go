package client

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tailbound/tailbound/cmd/tailbound/term"
)

func groupCommand(version string) *cobra.Command {
	opts := &options{version: version}
	command := &cobra.Command{Use: "group", Short: "List, describe, reset and delete consumer groups; move their offsets",
		Example: "  tailbound group list\n  tailbound group describe billing\n  tailbound group reset billing --to earliest --dry-run"}
	opts.flags(command)
	offsets := &cobra.Command{Use: "offsets", Short: "Export and import a group's offsets",
		Example: "  tailbound group offsets export billing > offsets.csv\n  tailbound group offsets import billing offsets.csv --dry-run"}
	offsets.AddCommand(groupExport(opts), groupImport(opts))
	command.AddCommand(groupList(opts), groupDescribe(opts), groupLag(opts), groupReset(opts), groupDelete(opts), offsets)
	return command
}

type groupRow struct {
	Group        string `json:"group"`
	Type         string `json:"type"` // classic or consumer; "" where the broker does not say
	State        string `json:"state"`
	ProtocolType string `json:"protocol_type,omitempty"` // of a classic group: consumer, connect, ...
	Coordinator  int32  `json:"coordinator"`
}

func groupList(opts *options) *cobra.Command {
	return &cobra.Command{
		Use:     "list",
		Aliases: []string{"ls"},
		Short:   "List groups",
		Example: "  tailbound group list",
		Args:    cobra.NoArgs,
		RunE: opts.withClient(func(cmd *cobra.Command, conn *client, _ []string) error {
			ctx, cancel := conn.limited()
			defer cancel()
			rows, err := conn.listGroups(ctx)
			if err != nil {
				return conn.explain(brokerError(err, ""))
			}
			return opts.print(cmd.OutOrStdout(), rows, func(table *tabwriter.Writer) {
				fmt.Fprintln(table, "GROUP\tTYPE\tSTATE\tCOORDINATOR")
				for _, row := range rows {
					fmt.Fprintf(table, "%s\t%s\t%s\t%d\n", row.Group, cmp.Or(row.Type, "-"), cmp.Or(row.State, "-"), row.Coordinator)
				}
			})
		}),
	}
}

// listGroups asks every node. (kadm's ListGroups does not return the type.)
func (c *client) listGroups(ctx context.Context) ([]groupRow, error) {
	rows := []groupRow{}
	for _, shard := range c.kafka.RequestSharded(ctx, kmsg.NewPtrListGroupsRequest()) {
		if shard.Err != nil {
			return nil, shard.Err
		}
		resp := shard.Resp.(*kmsg.ListGroupsResponse)
		if err := kerr.ErrorForCode(resp.ErrorCode); err != nil {
			return nil, err
		}
		for _, g := range resp.Groups {
			rows = append(rows, groupRow{g.Group, g.GroupType, g.GroupState, g.ProtocolType, shard.Meta.NodeID})
		}
	}
	slices.SortFunc(rows, func(a, b groupRow) int { return strings.Compare(a.Group, b.Group) })
	return rows, nil
}

// membersOf are the members of a group of either protocol, as CLIENT@HOST.
func (c *client) membersOf(ctx context.Context, group string) (who []string, err error) {
	groups, err := c.admin.DescribeGroups(ctx, group)
	if err != nil && len(groups) == 0 {
		return nil, err
	}
	for _, each := range groups[group].Members {
		who = append(who, each.ClientID+"@"+each.ClientHost)
	}
	if errors.Is(groups[group].Err, kerr.GroupIDNotFound) {
		consumers, err := c.admin.DescribeConsumerGroups(ctx, group)
		if err != nil && len(consumers) == 0 {
			return nil, err
		}
		for _, each := range consumers[group].Members {
			who = append(who, each.ClientID+"@"+each.ClientHost)
		}
	}
	return who, nil
}

// unknownGroup is the error for a group that does not exist.
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

func groupDelete(opts *options) *cobra.Command {
	return &cobra.Command{
		Use:               "delete GROUP...",
		Aliases:           []string{"rm"},
		Short:             "Delete groups that have no members, and their offsets",
		Example:           "  tailbound group delete billing-test",
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: opts.completeGroups,
		RunE: opts.withClient(func(cmd *cobra.Command, conn *client, args []string) error {
			ctx, cancel := conn.limited()
			defer cancel()
			gone, err := conn.admin.DeleteGroups(ctx, args...)
			if err != nil && len(gone) == 0 {
				return conn.explain(brokerError(err, ""))
			}
			var all []outcome
			for _, name := range args {
				row := outcome{Name: name, Done: "deleted"}
				r, ok := gone[name]
				switch {
				case !ok:
					row.Error = "the broker said nothing of it"
				case errors.Is(r.Err, kerr.GroupIDNotFound):
					row.Error = conn.unknownGroup(name).Error()
				case errors.Is(r.Err, kerr.NonEmptyGroup):
					row.Error = conn.groupInUse(name).Error()
				case r.Err != nil:
					row.Error = brokerError(r.Err, "").Error()
				}
				all = append(all, row)
			}
			return opts.printOutcomes(cmd.OutOrStdout(), all)
		}),
	}
}

// groupInUse is the error for a group that has members; it lists them.
func (c *client) groupInUse(name string) error {
	ctx, cancel := c.limited()
	defer cancel()
	who, err := c.membersOf(ctx, name)
	if err != nil {
		return fmt.Errorf("group %s is in use; stop its members first", name)
	}
	return fmt.Errorf("group %s is in use; stop its members first: %s", name, strings.Join(who, " "))
}

// completeGroups is the shell's completion of group names.
func (o *options) completeGroups(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
	return o.complete(cmd, args, typed, func(conn *client) ([]string, error) {
		ctx, cancel := conn.limited()
		defer cancel()
		groups, err := conn.admin.ListGroups(ctx)
		return groups.Groups(), err
	})
}
