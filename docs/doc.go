// Package docs holds what is written about Tailbound, and the tests that keep
// it true: ARCHITECTURE.md has a table of rooms which is read, and compared
// with what the code imports. It knows the source tree as text, imports no
// room, and nothing imports it.
package docs
