// Package engine is the storage of one shard: its journal, the segments of its
// logs, and the memory that holds what was appended lately. Package recovery opens
// what another life left. A batch is opaque bytes with a count of records and times.
//
// It knows ioring, mem and its format and imports nothing else of ours: no Kafka, no
// clock, no operating system. The same calls and completions give the same
// bytes on disk.
//
// Invariants:
//   - An append is durable when the journal frame that holds it, and every
//     frame before it, is written and synced, or the run of its segment that
//     holds it and every run of the log before that; and when everything before
//     it in its log is durable. Durable(l) never goes back.
//   - A journal frame is overwritten only when every append in it lies synced
//     in a segment and both checkpoint slots say so.
//   - An append is admitted only into a segment that has room for it and for
//     everything before it that is not drained.
//   - What memory holds of a log is a contiguous range that ends at its end and
//     begins at or before its first undrained offset.
package engine
