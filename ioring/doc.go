// Package ioring is the seam between the broker and the world: operations,
// completions and the Ring that turns one into the other, and the kernel's
// ring, our own over golang.org/x/sys. It knows the io_uring ABI, which
// features a kernel has, direct I/O's rules and the classes of errno. It never
// knows what a socket is for, and starts no goroutine.
//
// Invariants: one thread owns a Ring; every submission entry is zeroed before
// use; memory the kernel writes or reads lies outside the Go heap; every
// completion, negative ones too, reaches whoever pushed the operation; nothing
// runs inside Reap but the copying of results.
package ioring
