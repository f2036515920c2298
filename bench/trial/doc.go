// Package trial measures: it has processes of package load put a load on a
// system, watches them, and leaves a recording (package record). It searches
// for knees, runs phases of scenarios, and measures the machine's own noise.
//
// It knows a system by its address, and by what it is told about it. It parses
// no files, and it sees nothing of the product.
//
// Invariants:
//
//   - Where several processes make a load, their histograms are pooled before
//     anything is read from them.
//   - Whatever would make a reader doubt a figure (the generator was the limit,
//     the host took time, requests were not answered) is in its notes.
package trial
