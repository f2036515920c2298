// Package ioring is the seam between the broker and the world: operations (Op), their
// completions, and the Ring that turns one into the other. In production that is Kernel,
// an io_uring by way of golang.org/x/sys; under test it is a seeded simulation. The
// package knows the io_uring ABI, the features of kernels, the rules of direct I/O and the
// meaning of each errno. It does not know what a file or a socket is for, and starts no
// goroutine.
//
// Invariants:
//   - One thread owns a Ring.
//   - Every submission entry is zeroed before use.
//   - Memory that the kernel reads or writes is outside the Go heap.
//   - Every completion, negative ones too, is delivered, with the token of its operation.
//   - Reap only copies results; it runs nothing.
package ioring
