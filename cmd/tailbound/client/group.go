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
	o := &options{version: version}
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
	ProtocolType string `json:"protocol_type,omitempty"` // of a classic group: consumer, connect, ...
	Coordinator  int32  `json:"coordinator"`
}

func groupList(o *options) *cobra.Command {
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

// listGroups asks every node. (kadm's ListGroups does not return the type.)
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

// membersOf are the members of a group of either protocol, as CLIENT@HOST.
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

func groupDelete(o *options) *cobra.Command {
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
	return o.complete(cmd, args, typed, func(c *client) ([]string, error) {
		ctx, cancel := c.limited()
		defer cancel()
		groups, err := c.admin.ListGroups(ctx)
		return groups.Groups(), err
	})
}
