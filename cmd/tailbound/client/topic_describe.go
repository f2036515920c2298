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

func topicDescribe(o *options) *cobra.Command {
	return &cobra.Command{
		Use:               "describe TOPIC...",
		Aliases:           []string{"info"},
		Short:             "Show partitions, leaders, offsets and configuration of topics",
		Example:           "  tailbound topic describe orders\n  tailbound topic describe orders --output json | jq '.[0].partition_list[].end'",
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: o.completeTopics,
		RunE: o.withClient(func(cmd *cobra.Command, c *client, args []string) error {
			all, err := c.describeTopics(args)
			if err != nil {
				return err
			}
			return o.print(cmd.OutOrStdout(), all, func(t *tabwriter.Writer) {
				for i, d := range all {
					if i > 0 {
						fmt.Fprintln(t)
					}
					printTopic(t, d)
				}
			})
		}),
	}
}

func (c *client) describeTopics(names []string) ([]topicDescription, error) {
	m, err := c.metadata(names...)
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
		d := m.Topics[name]
		t := topicDescription{topicRow: topicRow{name, d.ID.String(), len(d.Partitions), d.Partitions.NumReplicas(), d.IsInternal}}
		for _, p := range d.Partitions.Sorted() {
			row := partitionRow{Partition: p.Partition, Leader: p.Leader, Epoch: p.LeaderEpoch, Replicas: p.Replicas, Start: -1, End: -1}
			start, _ := starts.Lookup(name, p.Partition)
			end, _ := ends.Lookup(name, p.Partition)
			for _, e := range []error{p.Err, start.Err, end.Err} {
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
			t.PartitionRows = append(t.PartitionRows, row)
		}
		r, err := configs.On(name, nil)
		if err == nil {
			err = r.Err
		}
		if configsErr != nil {
			err = c.explain(configsErr)
		}
		if err != nil {
			t.ConfigsError = brokerError(err, r.ErrMessage).Error()
		}
		for _, k := range r.Configs {
			t.Configs = append(t.Configs, configRow{k.Key, k.MaybeValue(), k.Source.String()})
		}
		slices.SortFunc(t.Configs, func(a, b configRow) int { return strings.Compare(a.Name, b.Name) })
		all = append(all, t)
	}
	return all, nil
}

func printTopic(t *tabwriter.Writer, d topicDescription) {
	fmt.Fprintf(t, "%s\t%s, %s, id %s\n", d.Topic, term.Plural(d.Partitions, "partition"), term.Plural(d.Replicas, "replica"), d.ID)
	t.Flush()
	fmt.Fprintln(t, "\nPARTITION\tLEADER\tEPOCH\tREPLICAS\tSTART\tEND\tRECORDS")
	for _, p := range d.PartitionRows {
		fmt.Fprintf(t, "%d\t%d\t%d\t%v\t%d\t%d\t%d\t%s\n", p.Partition, p.Leader, p.Epoch, p.Replicas, p.Start, p.End, p.End-p.Start, p.Error)
	}
	t.Flush()
	if d.ConfigsError != "" {
		fmt.Fprintf(t, "\nits configuration could not be read: %s\n", d.ConfigsError)
		return
	}
	fmt.Fprintln(t, "\nCONFIG\tVALUE\tSOURCE")
	for _, k := range d.Configs {
		fmt.Fprintf(t, "%s\t%s\t%s\n", k.Name, k.Value, k.Source)
	}
}
