package term

import "testing"

func TestNearest(t *testing.T) {
	names := []string{"orders", "orders-archive", "payments", "a"}
	for name, want := range map[string]string{"ordres": "orders", "order": "orders", "Payment": "payments", "orders-arch": "orders-archive", "xyz": "", "b": "a"} {
		if got := Nearest(name, names); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	if d := EditDistance("kitten", "sitting"); d != 3 {
		t.Errorf("kitten and sitting are %d apart", d)
	}
}
