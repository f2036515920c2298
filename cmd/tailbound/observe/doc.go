// Package observe is what a running broker tells of itself, and the commands that
// show it. In the broker it answers on DIR/profile.sock and on --metrics-listen;
// in another process it is `tailbound profile` with tail, watch and record.
//
// It knows metrics, and of the broker only that a shard can be woken to hand over
// what it has recorded. It never takes part in serving a request.
//
// Invariants:
//
//   - Everything here runs on ordinary goroutines beside the shards. No shard waits
//     for an answer, and nothing that a shard does depends on one.
//   - The names in answers (JSON, Prometheus) are kept from version to version.
//   - The socket answers the owner of the data directory only.
package observe
