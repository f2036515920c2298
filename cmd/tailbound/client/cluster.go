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
	o := &options{version: version}
	c := &cobra.Command{Use: "cluster", Short: "Show what brokers there are, and whether all is well",
		Example: "  tailbound cluster info\n  tailbound cluster health"}
	o.flags(c)
	c.AddCommand(clusterInfo(o), clusterHealth(o))
	return c
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
	var m *kmsg.MetadataResponse
	var err error
	for _, seed := range c.kafka.SeedBrokers() {
		ctx, cancel := c.limited()
		var answer kmsg.Response
		answer, err = seed.RetriableRequest(ctx, request)
		cancel()
		if err == nil {
			m = answer.(*kmsg.MetadataResponse)
			break
		}
	}
	if m == nil {
		return clusterDescription{}, nil, c.explain(err)
	}
	d := clusterDescription{Controller: m.ControllerID, Topics: len(m.Topics), Brokers: []brokerRow{}}
	if m.ClusterID != nil {
		d.ID = *m.ClusterID
	}
	leads := map[int32]int{}
	for _, t := range m.Topics {
		d.Partitions += len(t.Partitions)
		for _, p := range t.Partitions {
			leads[p.Leader]++
		}
	}
	for _, b := range m.Brokers {
		row := brokerRow{Node: b.NodeID, Address: net.JoinHostPort(b.Host, strconv.Itoa(int(b.Port))), Leads: leads[b.NodeID]}
		if b.Rack != nil {
			row.Rack = *b.Rack
		}
		d.Brokers = append(d.Brokers, row)
	}
	slices.SortFunc(d.Brokers, func(a, b brokerRow) int { return int(a.Node - b.Node) })
	return d, m, nil
}

func clusterInfo(o *options) *cobra.Command {
	return &cobra.Command{
		Use:     "info",
		Short:   "Show the cluster's id and its nodes; each data shard is one",
		Example: "  tailbound cluster info\n  tailbound cluster info --output json | jq '.brokers[].address'",
		Args:    cobra.NoArgs,
		RunE: o.withClient(func(cmd *cobra.Command, c *client, _ []string) error {
			d, _, err := c.describeCluster()
			if err != nil {
				return err
			}
			return o.print(cmd.OutOrStdout(), d, func(t *tabwriter.Writer) {
				fmt.Fprintf(t, "cluster %s, controller node %d, %s, %s\n\n", d.ID, d.Controller, term.Plural(d.Topics, "topic"), term.Plural(d.Partitions, "partition"))
				fmt.Fprintln(t, "NODE\tADDRESS\tLEADS")
				for _, b := range d.Brokers {
					fmt.Fprintf(t, "%d\t%s\t%d\n", b.Node, b.Address, b.Leads)
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

func clusterHealth(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "health",
		Short: "Ask every node, and look at every partition; exit status 1 where something is wrong",
		Long: `Ask every node at the address it advertises, as clients do, and look at every
partition: that it has a leader, and that its replicas are in sync.

Exit status: 0 where all is well, 1 where something is not.`,
		Example: "  tailbound cluster health || systemctl status tailbound",
		Args:    cobra.NoArgs,
		RunE: o.withClient(func(cmd *cobra.Command, c *client, _ []string) error {
			d, m, err := c.describeCluster()
			if err != nil {
				return err
			}
			check := clusterCheck{Brokers: d.Brokers, Problems: []string{}}
			for i := range check.Brokers {
				b := &check.Brokers[i]
				begin := time.Now()
				if err := c.ask(b.Node); err != nil {
					b.Error = err.Error()
					check.Problems = append(check.Problems, fmt.Sprintf("node %d does not answer on %s, where clients are told to find it (serve --advertise, and a port for each data shard): %s", b.Node, b.Address, b.Error))
					continue
				}
				b.Millis = float64(time.Since(begin).Microseconds()) / 1e3
			}
			check.Problems = append(check.Problems, partitionProblems(m)...)
			check.Healthy = len(check.Problems) == 0
			err = o.print(cmd.OutOrStdout(), check, func(t *tabwriter.Writer) {
				fmt.Fprintln(t, "NODE\tADDRESS\tANSWERED IN")
				for _, b := range check.Brokers {
					answer := fmt.Sprintf("%.2f ms", b.Millis)
					if b.Error != "" {
						answer = "NO ANSWER"
					}
					fmt.Fprintf(t, "%d\t%s\t%s\n", b.Node, b.Address, answer)
				}
				t.Flush()
				if check.Healthy {
					fmt.Fprintf(t, "\nall is well: %s, %s\n", term.Plural(d.Topics, "topic"), term.Plural(d.Partitions, "partition"))
				} else {
					fmt.Fprintf(t, "\n%s\n", strings.Join(check.Problems, "\n"))
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
func partitionProblems(m *kmsg.MetadataResponse) (all []string) {
	for _, t := range m.Topics {
		name := "(without a name)"
		if t.Topic != nil {
			name = *t.Topic
		}
		if err := kerr.ErrorForCode(t.ErrorCode); err != nil {
			all = append(all, fmt.Sprintf("topic %s: %s", name, brokerError(err, "")))
		}
		for _, p := range t.Partitions {
			at := fmt.Sprintf("%s/%d", name, p.Partition)
			err := kerr.ErrorForCode(p.ErrorCode)
			switch {
			case err != nil:
				all = append(all, fmt.Sprintf("%s: %s", at, brokerError(err, "")))
			case p.Leader < 0:
				all = append(all, at+" has no leader")
			case len(p.ISR) < len(p.Replicas) || len(p.OfflineReplicas) > 0:
				all = append(all, fmt.Sprintf("%s: replicas %v, in sync %v, offline %v", at, p.Replicas, p.ISR, p.OfflineReplicas))
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
