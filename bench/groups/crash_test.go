package groups

import "testing"

// Living members have every partition once, and each has some; dead members do not count.
func TestWhole(t *testing.T) {
	for _, c := range []struct {
		what  string
		owned [][]int32
		dead  int // index; -1: none
		want  bool
	}{
		{"all have theirs", [][]int32{{0, 1}, {2}, {3}}, -1, true},
		{"one has nothing", [][]int32{{0, 1}, {2, 3}, nil}, -1, false},
		{"a partition has two owners", [][]int32{{0, 1}, {1, 2}, {3}}, -1, false},
		{"nobody has what the dead one had", [][]int32{{0, 1}, {2}, {3}}, 2, false},
		{"another has it", [][]int32{{0, 1}, {2, 3}, {3}}, 2, true},
	} {
		s := &scene{o: CrashOptions{Partitions: 4}}
		for i, owned := range c.owned {
			s.players = append(s.players, &player{owned: owned, dead: i == c.dead})
		}
		if got := s.isWhole(); got != c.want {
			t.Errorf("%s: %v", c.what, got)
		}
	}
}
