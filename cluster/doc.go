// Package cluster knows the broker's durable metadata: topics, the logs of their
// partitions, reserved producer ids, configurations, and consumer groups with their
// offsets. State is a pure state machine: commands go in as bytes (Apply), lookups
// come out. The live coordinators of groups are above it, in package cluster/groups.
//
// It never does I/O and never reads a clock. The control shard stores the commands in
// the records of its own log, on which nothing here depends.
//
// Invariants:
//
//   - Only Apply changes the durable part of a State. Two States to which the same
//     commands were applied are equal, and so are a State and one that is restored
//     from its Snapshot.
//   - Plan methods only read, and return a command. If the State has changed since,
//     Apply refuses the command as a whole (ErrOrder).
//   - A log id or a producer id is never given out twice, not even after deletions,
//     snapshots and restarts.
//   - Nothing depends on the order of a map: no map is iterated.
//
// A State belongs to the control shard and may allocate on the Go heap.
package cluster
