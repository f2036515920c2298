package main

import (
	"runtime"
	"testing"
	"time"
)

// Each clock goes on, and does not go back, on one core. No rate is asserted.
func TestClocksGoOn(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for _, c := range clocks() {
		first := c.read()
		time.Sleep(time.Millisecond)
		last := c.read()
		if last <= first {
			t.Errorf("%s: %d, then %d", c.name, first, last)
		}
	}
	if d := watchDrift(clocks()[:2], 400*time.Millisecond); len(d) != 2 {
		t.Errorf("%d drifts of 2 clocks", len(d))
	}
}
