// Package control is what makes a shard the control shard: every key of Kafka's
// protocol that is not hot, the coordinator of consumer groups, and the log of
// commands that makes topics, groups, offsets and configurations durable.
//
// It stands behind the door that shard/door.go describes, runs within the turns
// of the shard it was made for and on its thread, and is as deterministic. It is
// the one room of the broker that decodes requests with kmsg and opens compressed
// batches, and it may use the heap: data shards wait for none of it. It never
// imports a clock, a socket or a file.
//
// Invariants: one change of the cluster's state is under way at a time, planned
// on a state that has every change before it, and visible only once it is
// durable. Every request that was accepted is answered exactly once. Of the mail
// that a data shard has to answer no more than shard.OpenCredit is on its way.
package control
