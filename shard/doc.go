// Package shard is one core of the broker: the turn, the request machines of the
// hot keys, the mailboxes, and the door behind which room shard/control makes one
// of the shards the control shard, which owns what is not hot.
//
// A shard is a deterministic function of (completions, mail, clock, seed). It
// knows netring (connections), engine (logs), kafka (the wire), cluster (what a
// topic's configuration is) and metrics. It starts no goroutine, has no channel
// and reads no clock; room broker puts shards on their threads.
//
// Invariants: an answer to a Produce leaves only when the durable offset of
// every partition it wrote has passed the end of its batch. A data shard
// allocates nothing from the Go heap for Produce and Fetch. Every request in
// flight owns its slot, and a slot awaits at most one mail.
package shard
