// Package broker builds a broker from its parts (Compose): the memory plan, the
// recovered state of the data directory, the mailboxes, the control shard and the data
// shards. It also runs a broker on threads (Start): thread_linux.go is a thread's loop,
// and offcpu_linux.go asks the kernel when a thread was kept from its CPU.
//
// It knows shard, netring, engine and ioring, and what a Machine gives each shard to
// run on. It serves no request and looks into none.
//
// Invariants: production and the simulator build a broker by the same function and
// plan its memory by the same rules; only the Machine and the sizes that the plan starts
// from differ. Files that are not named *_linux.go start no goroutine, have no channel
// and read no clock.
package broker
