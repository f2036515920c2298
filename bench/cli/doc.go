// Package cli has the commands that measure: the one front end over bench/trial
// and bench/record. `go run ./bench` and `tailbound bench` both are it, with what
// the program that they are part of adds (Host).
//
// It knows systems by name: how each is started, what its acknowledgement means,
// what drives it (Kind). It knows Tailbound as a binary, a wire and a directory,
// and sees nothing of it from inside. What it is compared with is another
// package's; here is only a broker that runs already.
//
// Invariants:
//
//   - Whatever is measured leaves a recording that compare and report read.
//   - Ratios are formed inside a round.
package cli
