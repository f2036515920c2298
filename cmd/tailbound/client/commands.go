package client

import "github.com/spf13/cobra"

// Commands are the commands that speak Kafka's protocol. version is the program's,
// which brokers are told.
func Commands(version string) []*cobra.Command {
	return []*cobra.Command{topicCommand(version), produceCommand(version), consumeCommand(version), groupCommand(version), clusterCommand(version)}
}
