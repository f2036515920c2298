package engine

import (
	"math/rand/v2"
	"testing"

	"github.com/tailbound/tailbound/engine/format"
	"github.com/tailbound/tailbound/mem"
)

// TestHolesAreBounded adds holes to two logs at random, and lets the logs' starts pass them: a
// log's list is in order, bounded and has every offset that was lost. Only where there is
// no room for all, it has others too.
func TestHolesAreBounded(t *testing.T) {
	const offsets = 4000
	for seed := range uint64(60) {
		rng := rand.New(rand.NewPCG(seed, 1))
		var h holes
		arena, err := mem.Map(1<<20, mem.Options{})
		if err != nil {
			t.Fatal(err)
		}
		if err := h.allocate(arena, 2); err != nil {
			t.Fatal(err)
		}
		if seed%3 == 0 {
			h.extra = extraHolesMax - 10 // other logs have them
		}
		others := h.extra
		logs, lost := [2]log{{firstHole: none, end: offsets}, {firstHole: none, end: offsets}}, [2][offsets]bool{}
		var crowded [2]bool // there was no room for all its holes
		for range 300 {
			i := rng.IntN(2)
			lg := &logs[i]
			from := rng.Int64N(offsets)
			to := min(offsets, from+1+rng.Int64N(30))
			if rng.IntN(50) == 0 {
				lg.startDurable = max(lg.startDurable, from)
				h.passed(lg, lg.startDurable)
			} else if to > lg.startDurable {
				crowded[i] = crowded[i] || h.count(lg) == format.HolesMax || h.extra == extraHolesMax
				h.add(lg, Hole{From: from, To: to, At: from})
				for offset := from; offset < to; offset++ {
					lost[i][offset] = true
				}
			}
			before, n := int64(-1), 0
			for hole := h.at(lg.firstHole); hole != nil; hole = h.at(hole.next) {
				if hole.From <= before || hole.To <= hole.From || hole.To <= lg.startDurable || hole.At != hole.From {
					t.Fatalf("seed %d: a hole %v behind %d, the log begins at %d", seed, hole.Hole, before, lg.startDurable)
				}
				before = hole.To
				n++
			}
			if n > format.HolesMax || h.extra-others != max(0, h.count(&logs[0])-1)+max(0, h.count(&logs[1])-1) || h.used != h.count(&logs[0])+h.count(&logs[1]) {
				t.Fatalf("seed %d: %d holes, %d of all logs, %d extra", seed, n, h.used, h.extra-others)
			}
			for offset := lg.startDurable; offset < offsets; offset++ {
				found := h.find(lg, offset) != nil
				if lost[i][offset] && !found || found && !lost[i][offset] && !crowded[i] {
					t.Fatalf("seed %d: offset %d is lost: %v, found: %v", seed, offset, lost[i][offset], found)
				}
			}
		}
		h.drop(&logs[0])
		h.drop(&logs[1])
		if h.used != 0 || h.extra != others {
			t.Fatalf("seed %d: %d holes of no log, %d extra", seed, h.used, h.extra-others)
		}
		arena.Unmap()
	}
}
