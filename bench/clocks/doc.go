// Command clocks compares what could stamp a request: gotsc, our RDTSC
// (metrics.Clock), RDTSC and RDTSCP as they are, clock_gettime through the vDSO
// (time.Since) and as a system call, time.Now. Of each: what a call costs, how
// far it drifts from CLOCK_MONOTONIC, and whether it ever goes back from one
// core to another. It is a module of its own, for gotsc.
//
//	make clocks         # a minute; go run . -seconds 5 for less
package main
