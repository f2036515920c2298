// Package broker builds a broker out of its rooms: the memory plan, the state
// that the data directory holds, the mailboxes, the control shard and the data
// shards (Compose). It also runs one on threads (Start): thread_linux.go is the
// loop, offcpu_linux.go asks the kernel when a thread was kept from its CPU.
//
// It knows shard, netring, engine and ioring, and what a Machine gives each
// shard to run on. It never serves a request and never looks into one.
//
// Invariants: production and the simulator compose by the same function, with
// the same memory plan; only the Machine, and the numbers that the plan starts
// from, are others. Files that are not named *_linux.go start no goroutine, have
// no channel and read no clock.
package broker
