package client

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kmsg"

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
	Lost          []lostRow      `json:"lost,omitempty"`
	Configs       []configRow    `json:"configs,omitempty"`
	ConfigsError  string         `json:"configs_error,omitempty"`
}

// lostRow is a range of offsets, from to to - 1, whose acknowledged records are lost, and
// where the first of them was in the broker's data directory.
type lostRow struct {
	Partition int32  `json:"partition"`
	From      int64  `json:"from"`
	To        int64  `json:"to"`
	File      string `json:"file,omitempty"`
	At        int64  `json:"at"`
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
	lost := c.lostRecords(ctx, names)
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
		topic.Lost = lost[name]
		slices.SortFunc(topic.Configs, func(a, b configRow) int { return strings.Compare(a.Name, b.Name) })
		all = append(all, topic)
	}
	return all, nil
}

// lostRecords asks what topics have lost: a configuration that Tailbound has for those who ask
// for it by its name, and other brokers have not.
func (c *client) lostRecords(ctx context.Context, names []string) map[string][]lostRow {
	req := kmsg.NewPtrDescribeConfigsRequest()
	for _, name := range names {
		resource := kmsg.NewDescribeConfigsRequestResource()
		resource.ResourceType, resource.ResourceName, resource.ConfigNames = kmsg.ConfigResourceTypeTopic, name, []string{"lost.records"}
		req.Resources = append(req.Resources, resource)
	}
	lost := map[string][]lostRow{}
	answer, err := req.RequestWith(ctx, c.kafka)
	if err != nil {
		return lost // why topics are not described is said of their other configurations
	}
	for _, resource := range answer.Resources {
		for _, config := range resource.Configs {
			var rows []lostRow
			if config.Value != nil && *config.Value != "" && json.Unmarshal([]byte(*config.Value), &rows) == nil {
				lost[resource.ResourceName] = rows
			}
		}
	}
	return lost
}

func printTopic(table *tabwriter.Writer, topic topicDescription) {
	fmt.Fprintf(table, "%s\t%s, %s, id %s\n", topic.Topic, term.Plural(topic.Partitions, "partition"), term.Plural(topic.Replicas, "replica"), topic.ID)
	table.Flush()
	fmt.Fprintln(table, "\nPARTITION\tLEADER\tEPOCH\tREPLICAS\tSTART\tEND\tRECORDS")
	for _, p := range topic.PartitionRows {
		fmt.Fprintf(table, "%d\t%d\t%d\t%v\t%d\t%d\t%d\t%s\n", p.Partition, p.Leader, p.Epoch, p.Replicas, p.Start, p.End, p.End-p.Start, p.Error)
	}
	table.Flush()
	if len(topic.Lost) > 0 {
		fmt.Fprintln(table, "\nLOST\tOFFSETS\tFILE\tAT")
		for _, l := range topic.Lost {
			offsets := fmt.Sprintf("%d to %d", l.From, l.To-1)
			if l.From == l.To {
				offsets = fmt.Sprintf("perhaps from %d on", l.From)
			}
			fmt.Fprintf(table, "%d\t%s\t%s\t%d\n", l.Partition, offsets, l.File, l.At)
		}
		table.Flush()
		fmt.Fprintln(table, "partitions that have lost records take no more: `tailbound repair` shows the ways to go on")
		table.Flush()
	}
	if topic.ConfigsError != "" {
		fmt.Fprintf(table, "\nits configuration could not be read: %s\n", topic.ConfigsError)
		return
	}
	fmt.Fprintln(table, "\nCONFIG\tVALUE\tSOURCE")
	for _, config := range topic.Configs {
		fmt.Fprintf(table, "%s\t%s\t%s\n", config.Name, config.Value, config.Source)
	}
}
