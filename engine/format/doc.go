// Package format knows the bytes that a data directory holds and the rules by
// which they are found again: one file for each structure, whose comment gives
// the layout. docs/FORMAT.md is its prose.
//
// It is pure: bytes in, values out. It never opens a file, never keeps state
// between two calls, and imports nothing but the block size of mem.
package format
