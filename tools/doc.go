// Package tools is the module of what works on Tailbound's source: staticcheck
// at a pinned version (go tool -modfile=tools/go.mod staticcheck), and measure,
// which prints the numbers of the structure. It is a module of its own so that
// the product's module graph has none of it.
//
// It reads the product's source and imports nothing of it.
package tools
