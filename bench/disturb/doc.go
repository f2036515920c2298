// Package disturb is what a process may have beside its work: a goroutine that
// allocates, a large live heap. A broker that is built with the tag disturb, and
// the plain server, have it where TAILBOUND_DISTURB says so; no other build has
// it. It knows nothing of whom it disturbs, and imports nothing of ours.
package disturb
