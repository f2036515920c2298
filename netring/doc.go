// Package netring runs connections as machines on a Ring: accept, receive, parse
// into requests, reply in order, close. A request is a 4-byte length and that many
// bytes; the package never looks at what they mean. It imports mem, ioring and the
// standard library; never package net, the protocol or the log.
//
// Read request.go for a request on its way in, reply.go for its answer on its way
// out, and conn.go for what holds both together.
//
// Invariants:
//
//   - A connection has at most one Recv and one Send in flight, and its file
//     slot is closed only when it has neither.
//   - Replies leave in the order of their requests, whatever the order in which
//     they were finished.
//   - Every Send is answered by exactly one Sent event, and never before the
//     last completion of the operation that may read the memory.
//   - The receive buffers that requests pin are admitted against a budget. The
//     oldest and the newest connection that wait are admitted in turn, and one
//     that waits receives nothing.
//   - Memory handed to the caller changes only in Step: what a caller reads
//     stays as it is for the rest of its turn.
//
// It is deterministic: time is an argument, there is no goroutine, no channel
// and no map.
package netring
