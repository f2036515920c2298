package client

import (
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/tailbound/tailbound/cmd/tailbound/term"
)

func topicCommand(version string) *cobra.Command {
	o := &options{version: version}
	c := &cobra.Command{Use: "topic", Short: "Create, list, describe, alter, delete and purge topics",
		Example: "  tailbound topic create orders -p 6 -c retention.ms=604800000\n  tailbound topic describe orders\n  tailbound topic list 'orders-*' --output json"}
	o.flags(c)
	c.AddCommand(topicCreate(o), topicList(o), topicDescribe(o), topicAlter(o), topicDelete(o), topicPurge(o))
	return c
}

func topicCreate(o *options) *cobra.Command {
	var partitions int32
	var replicas int16
	var configs []string
	var dry, ifMissing bool
	c := &cobra.Command{
		Use:   "create TOPIC...",
		Short: "Create topics",
		Example: `  tailbound topic create orders -p 6
  tailbound topic create audit -c retention.ms=604800000 -c max.message.bytes=65536`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			set, err := keyValues("--config", configs)
			if err != nil {
				return err
			}
			c, err := o.connect(cmd)
			if err != nil {
				return err
			}
			defer c.close()
			ctx, cancel := c.limited()
			defer cancel()
			create, done := c.admin.CreateTopics, "created"
			if dry {
				create, done = c.admin.ValidateCreateTopics, "could be created"
			}
			made, err := create(ctx, partitions, replicas, set, args...)
			if err != nil {
				return c.explain(err)
			}
			var all []outcome
			for _, name := range args {
				r := made[name]
				x := outcome{Name: name, Done: done}
				switch {
				case ifMissing && errors.Is(r.Err, kerr.TopicAlreadyExists):
					x.Done = "was there already"
				case r.Err != nil:
					x.Error = brokerError(r.Err, r.ErrMessage).Error() + configStep(r.Err, set)
					if errors.Is(r.Err, kerr.TopicAlreadyExists) {
						x.Error += "; --if-not-exists takes it as it is, `tailbound topic describe " + name + "` shows it"
					}
				case r.NumPartitions > 0:
					x.Done = fmt.Sprintf("%s, %s", done, term.Plural(int(r.NumPartitions), "partition"))
				}
				all = append(all, x)
			}
			return o.printOutcomes(cmd.OutOrStdout(), all)
		},
	}
	f := c.Flags()
	f.Int32VarP(&partitions, "partitions", "p", -1, "how many partitions (-1: the broker's default)")
	f.Int16VarP(&replicas, "replicas", "r", -1, "replication factor (-1: the broker's default)")
	f.StringArrayVarP(&configs, "config", "c", nil, "KEY=VALUE of the topic's configuration; may be repeated")
	c.RegisterFlagCompletionFunc("config", completeConfigs("="))
	f.BoolVar(&ifMissing, "if-not-exists", false, "no error for a topic that is there")
	f.BoolVar(&dry, "dry-run", false, "only ask whether it could be done")
	return c
}

func topicList(o *options) *cobra.Command {
	var internal bool
	c := &cobra.Command{
		Use:     "list [PATTERN...]",
		Aliases: []string{"ls"},
		Short:   "List topics; a pattern is a name with * and ?",
		Example: "  tailbound topic list\n  tailbound topic list 'orders-*'",
		RunE: o.withClient(func(cmd *cobra.Command, c *client, args []string) error {
			m, err := c.metadata()
			if err != nil {
				return err
			}
			rows := []topicRow{}
			for _, d := range m.Topics.Sorted() {
				if d.IsInternal && !internal {
					continue
				}
				matched := len(args) == 0
				for _, p := range args {
					hit, err := path.Match(p, d.Topic)
					if err != nil {
						return fmt.Errorf("pattern %q: %w", p, err)
					}
					matched = matched || hit
				}
				if matched {
					rows = append(rows, topicRow{d.Topic, d.ID.String(), len(d.Partitions), d.Partitions.NumReplicas(), d.IsInternal})
				}
			}
			return o.print(cmd.OutOrStdout(), rows, func(t *tabwriter.Writer) {
				fmt.Fprintln(t, "TOPIC\tPARTITIONS\tREPLICAS")
				for _, r := range rows {
					fmt.Fprintf(t, "%s\t%d\t%d\n", r.Topic, r.Partitions, r.Replicas)
				}
			})
		}),
	}
	c.Flags().BoolVarP(&internal, "internal", "i", false, "internal topics too")
	return c
}

func topicAlter(o *options) *cobra.Command {
	var set, remove []string
	var partitions int
	var dry bool
	c := &cobra.Command{
		Use:   "alter TOPIC...",
		Short: "Change configurations, or add partitions",
		Example: `  tailbound topic alter orders --set retention.ms=86400000 --delete max.message.bytes
  tailbound topic alter orders --partitions 12`,
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: o.completeTopics,
		RunE: func(cmd *cobra.Command, args []string) error {
			values, err := keyValues("--set", set)
			if err != nil {
				return err
			}
			if len(values)+len(remove) == 0 && partitions == 0 {
				return errors.New("nothing to alter: give --set KEY=VALUE, --delete KEY or --partitions N")
			}
			c, err := o.connect(cmd)
			if err != nil {
				return err
			}
			defer c.close()
			if _, err := c.metadata(args...); err != nil {
				return err
			}
			all, err := c.alterTopics(args, values, remove, partitions, dry)
			if err != nil {
				return err
			}
			return o.printOutcomes(cmd.OutOrStdout(), all)
		},
	}
	f := c.Flags()
	f.StringArrayVarP(&set, "set", "s", nil, "KEY=VALUE to set; may be repeated")
	f.StringArrayVarP(&remove, "delete", "d", nil, "KEY to bring back to its default; may be repeated")
	c.RegisterFlagCompletionFunc("set", completeConfigs("="))
	c.RegisterFlagCompletionFunc("delete", completeConfigs(""))
	f.IntVarP(&partitions, "partitions", "p", 0, "how many partitions there are to be in all; more than now")
	f.BoolVar(&dry, "dry-run", false, "only ask whether it could be done")
	return c
}

func (c *client) alterTopics(names []string, set map[string]*string, remove []string, partitions int, dry bool) ([]outcome, error) {
	ctx, cancel := c.limited()
	defer cancel()
	done := "altered"
	if dry {
		done = "could be altered"
	}
	failures := map[string]error{}
	if len(set)+len(remove) > 0 {
		var changes []kadm.AlterConfig
		for _, k := range slices.Sorted(maps.Keys(set)) {
			changes = append(changes, kadm.AlterConfig{Op: kadm.SetConfig, Name: k, Value: set[k]})
		}
		for _, k := range remove {
			changes = append(changes, kadm.AlterConfig{Op: kadm.DeleteConfig, Name: k})
		}
		alter := c.admin.AlterTopicConfigs
		if dry {
			alter = c.admin.ValidateAlterTopicConfigs
		}
		answer, err := alter(ctx, changes, names...)
		if err != nil {
			return nil, c.explain(err)
		}
		for _, r := range answer {
			if r.Err != nil {
				failures[r.Name] = fmt.Errorf("%w%s", brokerError(r.Err, r.ErrMessage), configStep(r.Err, set))
			}
		}
	}
	if partitions > 0 {
		update := c.admin.UpdatePartitions
		if dry {
			update = c.admin.ValidateUpdatePartitions
		}
		answer, err := update(ctx, partitions, names...)
		if err != nil {
			return nil, c.explain(err)
		}
		for _, r := range answer {
			if r.Err != nil && failures[r.Topic] == nil {
				failures[r.Topic] = fmt.Errorf("partitions: %w", brokerError(r.Err, r.ErrMessage))
			}
		}
	}
	var all []outcome
	for _, name := range names {
		x := outcome{Name: name, Done: done}
		if err := failures[name]; err != nil {
			x = outcome{Name: name, Error: err.Error()}
		}
		all = append(all, x)
	}
	return all, nil
}

func topicDelete(o *options) *cobra.Command {
	return &cobra.Command{
		Use:               "delete TOPIC...",
		Aliases:           []string{"rm"},
		Short:             "Delete topics and all their records",
		Example:           "  tailbound topic delete orders",
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: o.completeTopics,
		RunE: o.withClient(func(cmd *cobra.Command, c *client, args []string) error {
			ctx, cancel := c.limited()
			defer cancel()
			gone, err := c.admin.DeleteTopics(ctx, args...)
			if err != nil {
				return c.explain(err)
			}
			var all []outcome
			for _, name := range args {
				x := outcome{Name: name, Done: "deleted"}
				switch r := gone[name]; {
				case errors.Is(r.Err, kerr.UnknownTopicOrPartition):
					err, _ := c.noTopic(name)
					x.Error = err.Error()
				case r.Err != nil:
					x.Error = brokerError(r.Err, r.ErrMessage).Error()
				}
				all = append(all, x)
			}
			return o.printOutcomes(cmd.OutOrStdout(), all)
		}),
	}
}

func topicPurge(o *options) *cobra.Command {
	var partitions []int32
	var before string
	var dry bool
	c := &cobra.Command{
		Use:     "purge TOPIC",
		Aliases: []string{"trim-prefix"},
		Short:   "Remove a topic's records, all or those before an offset or a time; the topic stays",
		Example: `  tailbound topic purge orders
  tailbound topic purge orders --before 1000 -p 0
  tailbound topic purge orders --before @2026-11-01`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: o.completeTopics,
		RunE: func(cmd *cobra.Command, args []string) error {
			to, err := parsePosition(before)
			if err != nil {
				return fmt.Errorf("--before %q: %w", before, err)
			}
			c, err := o.connect(cmd)
			if err != nil {
				return err
			}
			defer c.close()
			ranges, err := c.ranges(args, partitions, offsetRange{from: position{kind: atStart}, to: to})
			if err != nil {
				return err
			}
			var all []outcome
			offsets := kadm.Offsets{}
			for _, r := range ranges {
				offsets.Add(kadm.Offset{Topic: r.topic, Partition: r.partition, At: r.to})
				all = append(all, outcome{Name: fmt.Sprintf("%s/%d", r.topic, r.partition), Done: fmt.Sprintf("would begin at %d, begins at %d", r.to, r.from)})
			}
			if !dry {
				ctx, cancel := c.limited()
				defer cancel()
				answer, err := c.admin.DeleteRecords(ctx, offsets)
				if err != nil && len(answer) == 0 {
					return c.explain(err)
				}
				for i, r := range ranges {
					a, ok := answer.Lookup(r.topic, r.partition)
					switch {
					case !ok:
						all[i].Error = "the broker said nothing of it"
					case a.Err != nil:
						all[i].Error = brokerError(a.Err, "").Error()
					default:
						all[i].Done = fmt.Sprintf("begins at %d, began at %d", a.LowWatermark, r.from)
					}
				}
			}
			return o.printOutcomes(cmd.OutOrStdout(), all)
		},
	}
	f := c.Flags()
	f.Int32SliceVarP(&partitions, "partitions", "p", nil, "only these partitions")
	f.StringVar(&before, "before", "end", "remove what is before: end, an offset, or @TIME")
	f.BoolVar(&dry, "dry-run", false, "only show what would be done")
	return c
}
