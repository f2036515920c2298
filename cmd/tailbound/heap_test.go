package main

import "testing"

// The limit leaves room for as much garbage as is live, and for heapRoomMin at least.
func TestHeapLimitFollowsWhatIsLive(t *testing.T) {
	const mib = 1 << 20
	for _, c := range []struct {
		use  heapUse
		want int64
	}{
		{heapUse{all: 30 * mib, released: 4 * mib, free: 6 * mib, objects: 12 * mib, live: 10 * mib}, (30 - 4 - 6 - 12 + 10 + 64) * mib},
		{heapUse{all: 2000 * mib, objects: 1800 * mib, live: 900 * mib}, (200 + 900 + 900) * mib},
		{heapUse{all: 10 * mib, objects: 12 * mib}, 64 * mib}, // read one after the other, they need not fit
	} {
		if got := heapLimit(c.use); got != c.want {
			t.Errorf("%+v: a limit of %d MiB, not %d", c.use, got/mib, c.want/mib)
		}
	}
}
