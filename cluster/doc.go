// Package cluster knows what the broker has: its topics, where their logs
// live, which producer ids were given out, and the groups of consumers with
// their offsets. The State is what is durable of it, a pure state machine:
// bytes in (Apply), lookups out. The Coordinator is what lives of the groups,
// another one: requests and times in, answers and changes to store out.
//
// It never does I/O, never reads a clock, and imports none of our rooms. That
// its commands are the payload of records in the control shard's own log is
// the control shard's business; nothing here knows it.
//
// Invariants:
//
//   - Apply is the only way the durable part of a State changes. Two States
//     that were given the same commands are equal, and so are a State and what
//     is restored from its Snapshot.
//   - Plan methods look, and propose bytes. A plan made against a State which
//     has changed since is refused by Apply (ErrOrder), never half applied.
//   - A log id and a producer id are given out once, whatever is deleted,
//     forgotten, snapshotted or restarted.
//   - Nothing depends on the order of a map: none is ever walked.
//   - What the Coordinator has stored it tells nobody before Stored was called.
//
// A State belongs to the control shard and may allocate on the Go heap.
package cluster
