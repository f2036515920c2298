package main

import "testing"

// Every engine does every operation that it says it can. No time is asserted.
func TestEnginesDoWhatTheySay(t *testing.T) {
	if err := run(t.TempDir(), 2, 0.01); err != nil {
		t.Fatal(err)
	}
}
