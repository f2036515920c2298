// Package rings is the other yardstick: the least that one thread and one ring
// can do on this machine for a durable produce. It receives, checks a batch's
// CRC, copies it behind the others that came in this turn, writes all of them
// with one direct write and a linked fdatasync into a file that has been
// written before, and answers. There is no log, no index, no drain to
// segments, no limit and no way to read anything back; what it writes over is
// lost. Whoever comes near it has little left to take away. A disk that finds
// its blocks when they are first written, as those of virtual machines do, has
// more to do for a log in a new directory: the probe on new blocks writes on
// through a file that was only allocated.
//
// It imports mem and ioring, which no other package of bench may see, and
// never netring, engine or shard.
//
// Invariant: answers leave in the order of the flushes they wait for.
package rings
