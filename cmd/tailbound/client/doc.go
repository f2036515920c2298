// Package client is the commands that speak Kafka's protocol: topic, produce,
// consume, group and cluster. They are a client like any other and work with any
// Kafka broker.
//
// It knows the protocol through franz-go. Of Tailbound it knows the names of a
// topic's configurations, for completion and hints, and nothing of a broker from
// inside.
//
// Invariants:
//
//   - An error names the next step: the flag, the command or the setting to look at.
//   - What is printed with --output json and yaml, and the line of JSON for a record,
//     keep their names from version to version.
//   - What consume prints as JSON, produce reads as the same record.
package client
