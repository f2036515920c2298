package client

import (
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/tailbound/tailbound/cmd/tailbound/term"
)

type topicRow struct {
	Topic      string `json:"topic"`
	ID         string `json:"id"`
	Partitions int    `json:"partitions"`
	Replicas   int    `json:"replicas"`
	Internal   bool   `json:"internal,omitempty"`
}

type topicDescription struct {
	topicRow
	PartitionRows []partitionRow `json:"partition_list"`
	Configs       []configRow    `json:"configs,omitempty"`
	ConfigsError  string         `json:"configs_error,omitempty"`
}

type partitionRow struct {
	Partition int32   `json:"partition"`
	Leader    int32   `json:"leader"`
	Epoch     int32   `json:"epoch"`
	Replicas  []int32 `json:"replicas"`
	Start     int64   `json:"start"`
	End       int64   `json:"end"`
	Error     string  `json:"error,omitempty"`
}

type configRow struct {
	Name   string `json:"name"`
	Value  string `json:"value"`
	Source string `json:"source"`
}

func topicDescribe(opts *options) *cobra.Command {
	return &cobra.Command{
		Use:               "describe TOPIC...",
		Aliases:           []string{"info"},
		Short:             "Show partitions, leaders, offsets and configuration of topics",
		Example:           "  tailbound topic describe orders\n  tailbound topic describe orders --output json | jq '.[0].partition_list[].end'",
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: opts.completeTopics,
		RunE: opts.withClient(func(cmd *cobra.Command, conn *client, args []string) error {
			all, err := conn.describeTopics(args)
			if err != nil {
				return err
			}
			return opts.print(cmd.OutOrStdout(), all, func(table *tabwriter.Writer) {
				for i, topic := range all {
					if i > 0 {
						fmt.Fprintln(table)
					}
					printTopic(table, topic)
				}
			})
		}),
	}
}

func (c *client) describeTopics(names []string) ([]topicDescription, error) {
	metadata, err := c.metadata(names...)
	if err != nil {
		return nil, err
	}
	ctx, cancel := c.limited()
	defer cancel()
	starts, err := c.admin.ListStartOffsets(ctx, names...)
	if err != nil && len(starts) == 0 {
		return nil, c.explain(err)
	}
	ends, err := c.admin.ListEndOffsets(ctx, names...)
	if err != nil && len(ends) == 0 {
		return nil, c.explain(err)
	}
	configs, configsErr := c.admin.DescribeTopicConfigs(ctx, names...)
	var all []topicDescription
	for _, name := range names {
		detail := metadata.Topics[name]
		topic := topicDescription{topicRow: topicRow{name, detail.ID.String(), len(detail.Partitions), detail.Partitions.NumReplicas(), detail.IsInternal}}
		for _, partition := range detail.Partitions.Sorted() {
			row := partitionRow{Partition: partition.Partition, Leader: partition.Leader, Epoch: partition.LeaderEpoch, Replicas: partition.Replicas, Start: -1, End: -1}
			start, _ := starts.Lookup(name, partition.Partition)
			end, _ := ends.Lookup(name, partition.Partition)
			for _, e := range []error{partition.Err, start.Err, end.Err} {
				if e != nil && row.Error == "" {
					row.Error = brokerError(e, "").Error()
				}
			}
			if start.Err == nil {
				row.Start = start.Offset
			}
			if end.Err == nil {
				row.End = end.Offset
			}
			topic.PartitionRows = append(topic.PartitionRows, row)
		}
		r, err := configs.On(name, nil)
		if err == nil {
			err = r.Err
		}
		if configsErr != nil {
			err = c.explain(configsErr)
		}
		if err != nil {
			topic.ConfigsError = brokerError(err, r.ErrMessage).Error()
		}
		for _, config := range r.Configs {
			topic.Configs = append(topic.Configs, configRow{config.Key, config.MaybeValue(), config.Source.String()})
		}
		slices.SortFunc(topic.Configs, func(a, b configRow) int { return strings.Compare(a.Name, b.Name) })
		all = append(all, topic)
	}
	return all, nil
}

func printTopic(table *tabwriter.Writer, topic topicDescription) {
	fmt.Fprintf(table, "%s\t%s, %s, id %s\n", topic.Topic, term.Plural(topic.Partitions, "partition"), term.Plural(topic.Replicas, "replica"), topic.ID)
	table.Flush()
	fmt.Fprintln(table, "\nPARTITION\tLEADER\tEPOCH\tREPLICAS\tSTART\tEND\tRECORDS")
	for _, p := range topic.PartitionRows {
		fmt.Fprintf(table, "%d\t%d\t%d\t%v\t%d\t%d\t%d\t%s\n", p.Partition, p.Leader, p.Epoch, p.Replicas, p.Start, p.End, p.End-p.Start, p.Error)
	}
	table.Flush()
	if topic.ConfigsError != "" {
		fmt.Fprintf(table, "\nits configuration could not be read: %s\n", topic.ConfigsError)
		return
	}
	fmt.Fprintln(table, "\nCONFIG\tVALUE\tSOURCE")
	for _, config := range topic.Configs {
		fmt.Fprintf(table, "%s\t%s\t%s\n", config.Name, config.Value, config.Source)
	}
}
