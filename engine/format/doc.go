// Package format is the layout of every structure in a data directory, and the rules for
// where it is found: one file for each structure, whose comment gives the layout.
// docs/FORMAT.md describes the same, and the tests hold it against this package.
//
// It is pure: bytes in, values out. It opens no file, keeps no state between two calls,
// and imports nothing but the block size of mem.
package format
