// Package engine is the storage of one shard: its journal, the segments of its
// logs, and the memory that caches recent appends. Package recovery opens what an
// earlier process left. A batch is opaque bytes with a count of records, a largest
// timestamp and a checksum.
//
// It imports ioring, mem and engine/format and nothing else of ours: no Kafka, no
// clock, no operating system. The same calls and completions give the same bytes
// on disk.
//
// Begin with append.go: an append from Reserve to the event Durable. Each machine
// has a file of its own: journal, cache and batches (memory), segments, files,
// provision and recycle (files to come), extent and direct (writes to segments),
// flush (from the journal to segments), read, checkpoint, index, retention, holes (what is
// lost of logs). A machine's methods touch that machine; what they need of another stands
// in their signatures. Methods of Engine are the door, and what crosses machines.
//
// Invariants:
//   - A batch is durable when the journal frame that holds it and every frame
//     before it are written and synced, or the extent that holds it and every
//     extent of its log before it; and when everything before it in its log is
//     durable. Durable(slot) never decreases.
//   - The blocks of a journal frame are reused only when every batch in it is
//     synced in a segment and both checkpoint slots say so.
//   - A batch is admitted only into a segment that has room for it and for
//     everything before it that is not flushed.
//   - What memory holds of a log is a contiguous range that ends at its end and
//     begins at or before its first unflushed offset.
package engine
