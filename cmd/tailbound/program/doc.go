// Package program is for tests: it builds tailbound and runs it as people do, as a
// process of its own over real sockets. A package's TestMain calls Main; then
// Start serves a broker, Must and Refused run commands.
//
// It knows the program by its command line. It imports nothing of Tailbound and is
// imported by tests only.
//
// Invariant: a broker that a test started has stopped cleanly when the test is
// over, or the test fails.
package program
