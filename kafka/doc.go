// Package kafka is the wire: framing, request headers, the codecs of the keys
// that data shards answer, record batch v2, error codes. A request is walked
// where it lies, in pieces; an answer is put where it will leave from. It
// imports nothing of ours, does no I/O and knows no meaning.
//
// Invariants: nothing a peer sends makes it read out of bounds, allocate, or
// loop longer than the bytes received; a walk that ended without an error
// gives the same on a second run over the same bytes; the size functions are
// exact.
package kafka
