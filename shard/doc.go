// Package shard is one core of the broker: its loop, the machines that serve
// Produce, Fetch, ListOffsets and OffsetForLeaderEpoch, the mailboxes between
// shards, and the door through which package shard/control serves every other key
// on one of the shards, the control shard.
//
// A shard is a deterministic function of (completions, mail, clock, seed). It
// imports netring (connections), engine (logs), kafka (the wire), cluster (the
// configuration of a topic) and metrics. It starts no goroutine, has no channel
// and reads no clock; package broker runs each shard on its thread.
//
// To read it: turn.go has the loop, dispatch.go the start of a request,
// produce.go, fetch.go and list_offsets.go one kind of request each from its
// bytes to its reply, request.go what all kinds share, partition.go and conn.go
// what is known of a partition and of a connection.
//
// Invariants:
//
//   - The reply to a Produce leaves only when the high watermark of every
//     partition that it wrote to has passed the end of its batch.
//   - A data shard allocates nothing on the Go heap for Produce and Fetch.
//   - A request in flight owns its slot, and waits for at most one mail.
package shard
