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
	opts := &options{version: version}
	command := &cobra.Command{Use: "topic", Short: "Create, list, describe, alter, delete and purge topics",
		Example: "  tailbound topic create orders -p 6 -c retention.ms=604800000\n  tailbound topic describe orders\n  tailbound topic list 'orders-*' --output json"}
	opts.flags(command)
	command.AddCommand(topicCreate(opts), topicList(opts), topicDescribe(opts), topicAlter(opts), topicDelete(opts), topicPurge(opts))
	return command
}

func topicCreate(opts *options) *cobra.Command {
	var partitions int32
	var replicas int16
	var configs []string
	var dry, ifMissing bool
	command := &cobra.Command{
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
			conn, err := opts.connect(cmd)
			if err != nil {
				return err
			}
			defer conn.close()
			ctx, cancel := conn.limited()
			defer cancel()
			create, done := conn.admin.CreateTopics, "created"
			if dry {
				create, done = conn.admin.ValidateCreateTopics, "could be created"
			}
			made, err := create(ctx, partitions, replicas, set, args...)
			if err != nil {
				return conn.explain(err)
			}
			var all []outcome
			for _, name := range args {
				resp := made[name]
				row := outcome{Name: name, Done: done}
				switch {
				case ifMissing && errors.Is(resp.Err, kerr.TopicAlreadyExists):
					row.Done = "was there already"
				case resp.Err != nil:
					row.Error = brokerError(resp.Err, resp.ErrMessage).Error() + configStep(resp.Err, set)
					if errors.Is(resp.Err, kerr.TopicAlreadyExists) {
						row.Error += "; --if-not-exists takes it as it is, `tailbound topic describe " + name + "` shows it"
					}
				case resp.NumPartitions > 0:
					row.Done = fmt.Sprintf("%s, %s", done, term.Plural(int(resp.NumPartitions), "partition"))
				}
				all = append(all, row)
			}
			return opts.printOutcomes(cmd.OutOrStdout(), all)
		},
	}
	flags := command.Flags()
	flags.Int32VarP(&partitions, "partitions", "p", -1, "how many partitions (-1: the broker's default)")
	flags.Int16VarP(&replicas, "replicas", "r", -1, "replication factor (-1: the broker's default)")
	flags.StringArrayVarP(&configs, "config", "c", nil, "KEY=VALUE of the topic's configuration; may be repeated")
	command.RegisterFlagCompletionFunc("config", completeConfigs("="))
	flags.BoolVar(&ifMissing, "if-not-exists", false, "no error for a topic that is there")
	flags.BoolVar(&dry, "dry-run", false, "only ask whether it could be done")
	return command
}

func topicList(opts *options) *cobra.Command {
	var internal bool
	command := &cobra.Command{
		Use:     "list [PATTERN...]",
		Aliases: []string{"ls"},
		Short:   "List topics; a pattern is a name with * and ?",
		Example: "  tailbound topic list\n  tailbound topic list 'orders-*'",
		RunE: opts.withClient(func(cmd *cobra.Command, conn *client, args []string) error {
			metadata, err := conn.metadata()
			if err != nil {
				return err
			}
			rows := []topicRow{}
			for _, detail := range metadata.Topics.Sorted() {
				if detail.IsInternal && !internal {
					continue
				}
				matched := len(args) == 0
				for _, p := range args {
					hit, err := path.Match(p, detail.Topic)
					if err != nil {
						return fmt.Errorf("pattern %q: %w", p, err)
					}
					matched = matched || hit
				}
				if matched {
					rows = append(rows, topicRow{detail.Topic, detail.ID.String(), len(detail.Partitions), detail.Partitions.NumReplicas(), detail.IsInternal})
				}
			}
			return opts.print(cmd.OutOrStdout(), rows, func(table *tabwriter.Writer) {
				fmt.Fprintln(table, "TOPIC\tPARTITIONS\tREPLICAS")
				for _, row := range rows {
					fmt.Fprintf(table, "%s\t%d\t%d\n", row.Topic, row.Partitions, row.Replicas)
				}
			})
		}),
	}
	command.Flags().BoolVarP(&internal, "internal", "i", false, "internal topics too")
	return command
}

func topicAlter(opts *options) *cobra.Command {
	var set, remove []string
	var partitions int
	var dry bool
	command := &cobra.Command{
		Use:   "alter TOPIC...",
		Short: "Change configurations, or add partitions",
		Example: `  tailbound topic alter orders --set retention.ms=86400000 --delete max.message.bytes
  tailbound topic alter orders --partitions 12`,
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: opts.completeTopics,
		RunE: func(cmd *cobra.Command, args []string) error {
			values, err := keyValues("--set", set)
			if err != nil {
				return err
			}
			if len(values)+len(remove) == 0 && partitions == 0 {
				return errors.New("nothing to alter: give --set KEY=VALUE, --delete KEY or --partitions N")
			}
			conn, err := opts.connect(cmd)
			if err != nil {
				return err
			}
			defer conn.close()
			if _, err := conn.metadata(args...); err != nil {
				return err
			}
			all, err := conn.alterTopics(args, values, remove, partitions, dry)
			if err != nil {
				return err
			}
			return opts.printOutcomes(cmd.OutOrStdout(), all)
		},
	}
	flags := command.Flags()
	flags.StringArrayVarP(&set, "set", "s", nil, "KEY=VALUE to set; may be repeated")
	flags.StringArrayVarP(&remove, "delete", "d", nil, "KEY to bring back to its default; may be repeated")
	command.RegisterFlagCompletionFunc("set", completeConfigs("="))
	command.RegisterFlagCompletionFunc("delete", completeConfigs(""))
	flags.IntVarP(&partitions, "partitions", "p", 0, "how many partitions there are to be in all; more than now")
	flags.BoolVar(&dry, "dry-run", false, "only ask whether it could be done")
	return command
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
		for _, resp := range answer {
			if resp.Err != nil {
				failures[resp.Name] = fmt.Errorf("%w%s", brokerError(resp.Err, resp.ErrMessage), configStep(resp.Err, set))
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
		for _, resp := range answer {
			if resp.Err != nil && failures[resp.Topic] == nil {
				failures[resp.Topic] = fmt.Errorf("partitions: %w", brokerError(resp.Err, resp.ErrMessage))
			}
		}
	}
	var all []outcome
	for _, name := range names {
		row := outcome{Name: name, Done: done}
		if err := failures[name]; err != nil {
			row = outcome{Name: name, Error: err.Error()}
		}
		all = append(all, row)
	}
	return all, nil
}

func topicDelete(opts *options) *cobra.Command {
	return &cobra.Command{
		Use:               "delete TOPIC...",
		Aliases:           []string{"rm"},
		Short:             "Delete topics and all their records",
		Example:           "  tailbound topic delete orders",
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: opts.completeTopics,
		RunE: opts.withClient(func(cmd *cobra.Command, conn *client, args []string) error {
			ctx, cancel := conn.limited()
			defer cancel()
			gone, err := conn.admin.DeleteTopics(ctx, args...)
			if err != nil {
				return conn.explain(err)
			}
			var all []outcome
			for _, name := range args {
				row := outcome{Name: name, Done: "deleted"}
				switch r := gone[name]; {
				case errors.Is(r.Err, kerr.UnknownTopicOrPartition):
					err, _ := conn.noTopic(name)
					row.Error = err.Error()
				case r.Err != nil:
					row.Error = brokerError(r.Err, r.ErrMessage).Error()
				}
				all = append(all, row)
			}
			return opts.printOutcomes(cmd.OutOrStdout(), all)
		}),
	}
}

func topicPurge(opts *options) *cobra.Command {
	var partitions []int32
	var before string
	var dry bool
	command := &cobra.Command{
		Use:     "purge TOPIC",
		Aliases: []string{"trim-prefix"},
		Short:   "Remove a topic's records, all or those before an offset or a time; the topic stays",
		Example: `  tailbound topic purge orders
  tailbound topic purge orders --before 1000 -p 0
  tailbound topic purge orders --before @2026-11-01`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: opts.completeTopics,
		RunE: func(cmd *cobra.Command, args []string) error {
			to, err := parsePosition(before)
			if err != nil {
				return fmt.Errorf("--before %q: %w", before, err)
			}
			conn, err := opts.connect(cmd)
			if err != nil {
				return err
			}
			defer conn.close()
			ranges, err := conn.ranges(args, partitions, offsetRange{from: position{kind: atStart}, to: to})
			if err != nil {
				return err
			}
			var all []outcome
			offsets := kadm.Offsets{}
			for _, span := range ranges {
				offsets.Add(kadm.Offset{Topic: span.topic, Partition: span.partition, At: span.to})
				all = append(all, outcome{Name: fmt.Sprintf("%s/%d", span.topic, span.partition), Done: fmt.Sprintf("would begin at %d, begins at %d", span.to, span.from)})
			}
			if !dry {
				ctx, cancel := conn.limited()
				defer cancel()
				answer, err := conn.admin.DeleteRecords(ctx, offsets)
				if err != nil && len(answer) == 0 {
					return conn.explain(err)
				}
				for i, span := range ranges {
					deleted, ok := answer.Lookup(span.topic, span.partition)
					switch {
					case !ok:
						all[i].Error = "the broker said nothing of it"
					case deleted.Err != nil:
						all[i].Error = brokerError(deleted.Err, "").Error()
					default:
						all[i].Done = fmt.Sprintf("begins at %d, began at %d", deleted.LowWatermark, span.from)
					}
				}
			}
			return opts.printOutcomes(cmd.OutOrStdout(), all)
		},
	}
	flags := command.Flags()
	flags.Int32SliceVarP(&partitions, "partitions", "p", nil, "only these partitions")
	flags.StringVar(&before, "before", "end", "remove what is before: end, an offset, or @TIME")
	flags.BoolVar(&dry, "dry-run", false, "only show what would be done")
	return command
}
