// Package groups coordinates the consumer groups that are live: their members,
// the requests that wait for a rebalance, and every deadline. It serves the
// classic protocol and the consumer protocol (KIP-848), and groups that change
// from one to the other. The Coordinator is a pure state machine: requests and
// times in, answers and changes to store out. What is durable of a group is
// package cluster's, and gets there only by those changes.
//
// It never does I/O, never reads a clock, and starts no goroutine.
//
// Invariants:
//
//   - An answer that depends on a change leaves after Stored was called for that
//     change, so that no client learns what a crash would take back.
//   - Every ticket is answered once, unless the method that took it returned a
//     code for the whole request.
//   - Nothing depends on the order of a map: none is ever walked.
//
// A Coordinator belongs to the control shard and may allocate on the Go heap.
package groups
