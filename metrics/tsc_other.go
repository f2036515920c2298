//go:build !amd64

package metrics

// rdtsc is never called on these architectures, because tscTrusted returns false.
func rdtsc() uint64 { return 0 }
