// Package netring knows connections as machines on a Ring: accept, receive,
// frame, reply in order, close. A frame is a 4-byte length and that many
// bytes; what they mean is nobody's business here. It imports mem, ioring and
// the standard library; never package net, the protocol or the log.
//
// Invariants:
//
//   - A connection has at most one Recv and one Send in flight, and its file
//     slot is closed only when none is.
//   - Replies leave in the order of their requests, whatever the order in which
//     they were finished.
//   - Every Send is answered by exactly one Sent event, and never before the
//     last completion of the operation that may read the memory.
//   - What receive buffers may be pinned by frames is admitted against a budget,
//     the oldest and the newest that wait in turn; what was not admitted stops
//     its connection's receive.
//   - Memory handed to the caller changes only between Step's start and its
//     end: nothing a caller reads is taken from under it in its turn.
//
// It is deterministic: time is an argument, there is no goroutine, no channel
// and no map.
package netring
