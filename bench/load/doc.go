// Package load is an open-loop load generator that speaks the public Kafka
// wire through raw sockets. It knows only bytes that any client could send: it
// never imports shard, engine, netring or ioring.
//
// One locked thread drives every connection through one epoll instance and
// sleeps until the next intended send, so that on its core it leaves room for
// the kernel's workers. In the loop nothing is allocated and no garbage is
// collected.
//
// What is measured: the time from the instant a request was meant to be sent
// until its whole answer has been read. A request that had to wait, because
// its connection already had its fill in flight or the socket took no more,
// still counts from its intended instant (no coordinated omission). Requests
// without an answer at the end are recorded with what they had waited by then,
// a lower bound, and counted. Intended instants are evenly spaced, not
// Poisson: bursts are gentler here than in life.
//
// What is not: the generator's own lateness is inside each latency. It is
// recorded apart (Result.Lag: actual minus intended send of requests that were
// not held back), and Result.GeneratorLimited says when it is no longer small
// beside what it measures. In saturation mode (Rate 0) there is no intended
// time: the latency of a closed loop says how deep the queue was, no more.
package load
