// Command bench compares Tailbound with yardsticks in one run, on one machine,
// in alternation. It knows the public wire and the binary bin/tailbound, and
// imports no room of the product but kafka; only what lies in bench/rings may
// see ioring.
//
// # Method
//
// Each system is a child process pinned to one core, the generator (package
// load) another, pinned to a second core. A phase is one system at one rate:
// a fresh data directory on the same file system, a fresh process, a fresh
// topic, a warm-up that counts nowhere, then the window. In each round every
// rate is run with every system one after the other, and the order of the
// systems turns from round to round (saturation has its rounds after all
// others, because what it writes disturbs the machine for a while), so that a machine that slows down or a
// neighbour that wakes up does not always meet the same one. Ratios are formed
// inside a round, between phases that were minutes or less apart; the table
// gives their median and, in brackets, the least and the greatest.
//
// Latency is open-loop, from the intended send to the whole answer read; see
// package load for what that includes. "cannot (58 %)" means that the system
// carried that part of the offered rate and its queue grew without end, so
// that its percentiles say how long the phase was. "saturation" is a closed
// loop: read its throughput.
//
// The system tailbound-groups is the broker with a crowd of consumer groups
// beside the load (package groups). With
//
//	go run ./bench -systems tailbound-groups,tailbound -rates 200 -rounds 5
//
// the ratios are those of a produce with the crowd to one without it. There all
// threads of the broker share one core; with tailbound-groups-wide,tailbound-wide
// they have all cores and only the data shard keeps to its own, as it does where
// nobody pins the process.
//
// How long a group is without the partitions of a member that crashed is
// measured by bench rebalance (make rebalance), beside Apache Kafka, in rounds
// whose order turns and with ratios formed inside them. All brokers have the same
// session and the same interval of heartbeats, and no delay of an empty group.
// What a coordinator stores is on disk with Tailbound, in the page cache with
// kafka-wide; kafka-flush-wide syncs it too.
//
// A choice is compared with another in the same way, as two systems:
//
//	go run ./bench -systems tailbound,tailbound@/tmp/before,tailbound:--spin=0s
//
// # Limits
//
//   - Broker and generator share one machine, its memory bandwidth, its disk
//     and its host. Loopback is not a network.
//   - With two cores the kernel's workers have no core of their own.
//   - The probe (package rings) is the least that one thread and one ring can
//     do for a durable produce here; a broker does more. 1.3 is a good ratio.
//     It writes over blocks that it wrote before; what it costs in a new
//     directory, where no log does that, is probe-new.
//   - The plain server does less than a broker (package plain says what); a
//     ratio near 1 is a good result.
//   - Disks differ in what a sync costs far more than brokers do. Compare
//     systems on one machine, never numbers of two.
//   - Seconds are short. Nothing here shows what hours, a full disk, or a
//     device's garbage collection do.
//   - A virtual machine's host shows: memory is touched before each phase so
//     that no system pays for its first use, stolen time is printed, threads
//     that leave the system's core are named.
//   - Percentiles close to the noise of the machine are not resolved. Look at
//     the spread over the rounds, at the lag column and at stolen time before
//     believing a difference.
//
// Results with whole histograms (HdrHistogram V2, compressed, base64) are
// written to bench/results/.
package main
