package term

import "testing"

func TestShortNumbers(t *testing.T) {
	for v, want := range map[float64]string{0: "0", 0.25: "0.2", 7: "7", 9.96: "10", 17.4: "17", 3200: "3.2k", 120e6: "120M", 999.6: "1k"} {
		if got := ShortNumber(v); got != want {
			t.Errorf("%v: %s, want %s", v, got, want)
		}
	}
	for ns, want := range map[int64]string{0: "0 ns", 999: "999 ns", 1000: "1.00 us", 12345: "12.3 us", 999999: "1.00 ms", 123456789: "123 ms", 60e9: "60.0 s"} {
		if got := ShortNS(ns); got != want {
			t.Errorf("%d ns: %s, want %s", ns, got, want)
		}
	}
}
