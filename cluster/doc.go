// Package cluster knows what the broker durably has: its topics, where their
// logs live, which producer ids were given out, configurations, and the groups
// of consumers with their offsets. State is a pure state machine: bytes in
// (Apply), lookups out. The live coordinator of groups, above it, is package
// cluster/groups.
//
// It never does I/O and never reads a clock. That its commands are the payload
// of records in the control shard's own log is the control shard's business;
// nothing here depends on it.
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
//
// A State belongs to the control shard and may allocate on the Go heap.
package cluster
