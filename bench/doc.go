// Command bench measures Tailbound beside other systems, in one run, on one
// machine, in turn. It is the commands of package cli, with the systems that
// Tailbound is compared with (others.go) and three measurements more: rebalance,
// starts and blocks. It knows the public wire and the binary bin/tailbound, and imports no
// room of the product; only what lies in bench/rings may see ioring.
//
//	go run ./bench versus --help
//
// # Method
//
// Each system is a child process pinned to one core, the generator (package
// load) another, pinned to a second core. A measurement is one system under one
// load: a fresh data directory on the same file system, a fresh process, a fresh
// topic, a warm-up that counts nowhere, then the window. In each round every
// system meets every rate, and the order of the systems turns from round to round
// (saturation has its rounds after all others, because what it writes disturbs the
// machine for a while), so that a machine that slows down, or a neighbour that
// wakes up, does not always meet the same system. Ratios are formed inside a round,
// between measurements that were minutes or less apart; the table gives their
// median and, in brackets, the least and the greatest.
//
// Latency is open-loop, from the intended send to the whole answer read; see
// package load for what that includes. A note says where a system could not carry
// the offered rate: its queue grew without end, so that its percentiles say how
// long the measurement was. "saturation" is a closed loop: read its throughput.
//
// The system tailbound-groups is the broker with a crowd of consumer groups
// beside the load (package groups). With
//
//	go run ./bench versus --systems tailbound-groups,tailbound --rates 200 --rounds 5
//
// the ratios are those of a produce with the crowd to one without it. There all
// threads of the broker share one core; with tailbound-groups-wide,tailbound-wide
// they have all cores and only the data shard keeps to its own, as it does where
// the process is not pinned.
//
// How long a group is without the partitions of a member that crashed is
// measured by bench rebalance (make rebalance), beside Apache Kafka, in rounds
// whose order turns and with ratios formed inside them. All brokers have the same
// session and the same interval of heartbeats, and no delay of an empty group.
// What a coordinator stores is on disk with Tailbound, in the page cache with
// kafka-wide; kafka-flush-wide syncs it too.
//
// A start after kill -9 is measured by bench starts (make starts) beside one after
// a clean stop of the same directory. Both begin with memory that the machine may
// have to take from its host first, which varies more than anything else in them.
//
// A choice is compared with another in the same way, as two systems, and chance is
// seen by naming one of them twice:
//
//	go run ./bench versus --systems tailbound,tailbound@/tmp/before,tailbound:--spin=0s,tailbound
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
//   - A virtual machine's host shows: memory is touched before each measurement so
//     that no system pays for its first use, stolen time is printed, threads
//     that leave the system's core are named.
//   - Percentiles close to the noise of the machine are not resolved. Look at
//     the spread over the rounds, at a control, at the lag column and at stolen
//     time before believing a difference.
//
// Each measurement is a recording (package record) below bench/results.
package main
