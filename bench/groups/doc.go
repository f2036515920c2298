// Package groups is a crowd of consumer groups that does nothing but be there:
// members of the consumer protocol (KIP-848) send heartbeats and commit offsets
// at even intervals. It measures how long those take, but it is there for what
// it does to others: package main puts it beside a produce load.
//
// Many members share a connection, as no real ones do; what the broker's
// coordinator has to do is the same, what its network has to do is less. Each
// request is sent when it is due or when the one before it on its connection
// was answered, so that a broker that falls behind is asked less; Summary says
// how many requests were due and how many were answered.
//
// Crash is something else: one group of either protocol, a connection for each
// member, of whom one vanishes; it measures until the others have its partitions.
// Members do at once what they are told; what a client's application would do
// in between is not in the measure. A member hears that the group rebalances in
// its next heartbeat, so that the interval of those is.
package groups
