package client

import (
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tailbound/tailbound/cmd/tailbound/term"
)

func clusterCommand(version string) *cobra.Command {
	opts := &options{version: version}
	command := &cobra.Command{Use: "cluster", Short: "Show what brokers there are, and whether all is well",
		Example: "  tailbound cluster info\n  tailbound cluster health"}
	opts.flags(command)
	command.AddCommand(clusterInfo(opts), clusterHealth(opts))
	return command
}

type clusterDescription struct {
	ID         string      `json:"id"`
	Controller int32       `json:"controller"`
	Topics     int         `json:"topics"`
	Partitions int         `json:"partitions"`
	Brokers    []brokerRow `json:"brokers"`
}

type brokerRow struct {
	Node    int32   `json:"node"`
	Address string  `json:"address"`
	Rack    string  `json:"rack,omitempty"`
	Leads   int     `json:"leads"` // partitions
	Millis  float64 `json:"answer_ms,omitempty"`
	Error   string  `json:"error,omitempty"`
}

// describeCluster asks the brokers of --brokers in turn, at those addresses: the
// addresses that they advertise may be what is wrong.
func (c *client) describeCluster() (clusterDescription, *kmsg.MetadataResponse, error) {
	request := kmsg.NewPtrMetadataRequest()
	var metadata *kmsg.MetadataResponse
	var err error
	for _, seed := range c.kafka.SeedBrokers() {
		ctx, cancel := c.limited()
		var answer kmsg.Response
		answer, err = seed.RetriableRequest(ctx, request)
		cancel()
		if err == nil {
			metadata = answer.(*kmsg.MetadataResponse)
			break
		}
	}
	if metadata == nil {
		return clusterDescription{}, nil, c.explain(err)
	}
	cluster := clusterDescription{Controller: metadata.ControllerID, Topics: len(metadata.Topics), Brokers: []brokerRow{}}
	if metadata.ClusterID != nil {
		cluster.ID = *metadata.ClusterID
	}
	leads := map[int32]int{}
	for _, topic := range metadata.Topics {
		cluster.Partitions += len(topic.Partitions)
		for _, partition := range topic.Partitions {
			leads[partition.Leader]++
		}
	}
	for _, broker := range metadata.Brokers {
		row := brokerRow{Node: broker.NodeID, Address: net.JoinHostPort(broker.Host, strconv.Itoa(int(broker.Port))), Leads: leads[broker.NodeID]}
		if broker.Rack != nil {
			row.Rack = *broker.Rack
		}
		cluster.Brokers = append(cluster.Brokers, row)
	}
	slices.SortFunc(cluster.Brokers, func(a, broker brokerRow) int { return int(a.Node - broker.Node) })
	return cluster, metadata, nil
}

func clusterInfo(opts *options) *cobra.Command {
	return &cobra.Command{
		Use:     "info",
		Short:   "Show the cluster's id and its nodes; each data shard is one",
		Example: "  tailbound cluster info\n  tailbound cluster info --output json | jq '.brokers[].address'",
		Args:    cobra.NoArgs,
		RunE: opts.withClient(func(cmd *cobra.Command, conn *client, _ []string) error {
			cluster, _, err := conn.describeCluster()
			if err != nil {
				return err
			}
			return opts.print(cmd.OutOrStdout(), cluster, func(table *tabwriter.Writer) {
				fmt.Fprintf(table, "cluster %s, controller node %d, %s, %s\n\n", cluster.ID, cluster.Controller, term.Plural(cluster.Topics, "topic"), term.Plural(cluster.Partitions, "partition"))
				fmt.Fprintln(table, "NODE\tADDRESS\tLEADS")
				for _, broker := range cluster.Brokers {
					fmt.Fprintf(table, "%d\t%s\t%d\n", broker.Node, broker.Address, broker.Leads)
				}
			})
		}),
	}
}

type clusterCheck struct {
	Healthy  bool        `json:"healthy"`
	Brokers  []brokerRow `json:"brokers"`
	Problems []string    `json:"problems"`
}

func clusterHealth(opts *options) *cobra.Command {
	return &cobra.Command{
		Use:   "health",
		Short: "Ask every node, and look at every partition; exit status 1 where something is wrong",
		Long: `Ask every node at the address it advertises, as clients do, and look at every
partition: that it has a leader, and that its replicas are in sync.

Exit status: 0 where all is well, 1 where something is not.`,
		Example: "  tailbound cluster health || systemctl status tailbound",
		Args:    cobra.NoArgs,
		RunE: opts.withClient(func(cmd *cobra.Command, conn *client, _ []string) error {
			cluster, metadata, err := conn.describeCluster()
			if err != nil {
				return err
			}
			check := clusterCheck{Brokers: cluster.Brokers, Problems: []string{}}
			for i := range check.Brokers {
				broker := &check.Brokers[i]
				begin := time.Now()
				if err := conn.ask(broker.Node); err != nil {
					broker.Error = err.Error()
					check.Problems = append(check.Problems, fmt.Sprintf("node %d does not answer on %s, where clients are told to find it (serve --advertise, and a port for each data shard): %s", broker.Node, broker.Address, broker.Error))
					continue
				}
				broker.Millis = float64(time.Since(begin).Microseconds()) / 1e3
			}
			check.Problems = append(check.Problems, partitionProblems(metadata)...)
			check.Healthy = len(check.Problems) == 0
			err = opts.print(cmd.OutOrStdout(), check, func(table *tabwriter.Writer) {
				fmt.Fprintln(table, "NODE\tADDRESS\tANSWERED IN")
				for _, broker := range check.Brokers {
					answer := fmt.Sprintf("%.2f ms", broker.Millis)
					if broker.Error != "" {
						answer = "NO ANSWER"
					}
					fmt.Fprintf(table, "%d\t%s\t%s\n", broker.Node, broker.Address, answer)
				}
				table.Flush()
				if check.Healthy {
					fmt.Fprintf(table, "\nall is well: %s, %s\n", term.Plural(cluster.Topics, "topic"), term.Plural(cluster.Partitions, "partition"))
				} else {
					fmt.Fprintf(table, "\n%s\n", strings.Join(check.Problems, "\n"))
				}
			})
			if err == nil && !check.Healthy {
				return term.ExitStatus(1)
			}
			return err
		}),
	}
}

// partitionProblems are topics and partitions with errors, without a leader, or with
// replicas that are not in sync.
func partitionProblems(metadata *kmsg.MetadataResponse) (all []string) {
	for _, topic := range metadata.Topics {
		name := "(without a name)"
		if topic.Topic != nil {
			name = *topic.Topic
		}
		if err := kerr.ErrorForCode(topic.ErrorCode); err != nil {
			all = append(all, fmt.Sprintf("topic %s: %s", name, brokerError(err, "")))
		}
		for _, partition := range topic.Partitions {
			at := fmt.Sprintf("%s/%d", name, partition.Partition)
			err := kerr.ErrorForCode(partition.ErrorCode)
			switch {
			case err != nil:
				all = append(all, fmt.Sprintf("%s: %s", at, brokerError(err, "")))
			case partition.Leader < 0:
				all = append(all, at+" has no leader")
			case len(partition.ISR) < len(partition.Replicas) || len(partition.OfflineReplicas) > 0:
				all = append(all, fmt.Sprintf("%s: replicas %v, in sync %v, offline %v", at, partition.Replicas, partition.ISR, partition.OfflineReplicas))
			}
		}
	}
	slices.Sort(all)
	return all
}

// ask sends ApiVersions to one node at the address that it advertises.
func (c *client) ask(node int32) error {
	ctx, cancel := c.limited()
	defer cancel()
	request := kmsg.NewPtrApiVersionsRequest()
	request.ClientSoftwareName, request.ClientSoftwareVersion = "tailbound", c.softwareVersion()
	_, err := c.kafka.Broker(int(node)).RetriableRequest(ctx, request)
	return err
}
