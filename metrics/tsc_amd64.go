package metrics

// rdtsc reads the time stamp counter: 19 ns, without a fence (LFENCE before it
// costs 9 more, and stamps that are microseconds apart need none).
//
//go:noescape
func rdtsc() uint64
