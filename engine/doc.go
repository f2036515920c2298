// Package engine is the storage of one shard: its journal, the segments of its
// logs, the memory that holds what was appended lately, and what opens, drains
// and checks them. A batch is opaque bytes with a count of offsets and times.
//
// It knows mem and ioring. It never imports the protocol, the operating system,
// a clock or a network; the same calls and completions give the same bytes.
//
// Invariants:
//   - Durable(l) is passed to the end of an append only when the frame that
//     holds it, and every frame before it, is written and synced. It never
//     goes back.
//   - A frame's place in the journal is written again only when every append in
//     it lies synced in a segment and both checkpoint slots replay from past it.
//   - An append is admitted only when its log has a segment with room reserved
//     for it and for everything of the log that is not drained.
//   - What memory holds of a log is one range that ends at End(l) and begins
//     at or before what is not drained.
package engine
