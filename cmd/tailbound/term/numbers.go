package term

import (
	"fmt"
	"strconv"
	"strings"
)

// Plural is a number with its noun: 1 shard, 2 shards.
func Plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return strconv.Itoa(n) + " " + what + "s"
}

// BinaryBytes is a size in its largest binary unit, with one digit behind the
// point unless it is whole: 96 MiB, 1.5 GiB.
func BinaryBytes(n int) string {
	v, unit := float64(n), "B"
	for _, u := range []string{"KiB", "MiB", "GiB"} {
		if v < 1024 {
			break
		}
		v, unit = v/1024, u
	}
	if v == float64(int(v)) {
		return fmt.Sprintf("%d %s", int(v), unit)
	}
	return fmt.Sprintf("%.1f %s", v, unit)
}

// ShortBytes is a number of bytes in its largest binary unit, with at most one
// digit behind the point: 512 B, 4 KiB, 1.5 MiB.
func ShortBytes(n int64) string {
	v := float64(n)
	for _, unit := range []string{"B", "KiB", "MiB"} {
		if v < 1023.5 {
			return strings.TrimSuffix(fmt.Sprintf("%.1f", v), ".0") + " " + unit
		}
		v /= 1024
	}
	return fmt.Sprintf("%.1f GiB", v)
}

// ShortNS is a duration with three digits: 950 ns, 12.3 us, 1.20 ms, 3.00 s.
func ShortNS(ns int64) string {
	v, unit := float64(ns), "ns"
	for _, u := range []string{"us", "ms", "s"} {
		if v < 999.5 {
			break
		}
		v, unit = v/1000, u
	}
	switch {
	case unit == "ns":
		return fmt.Sprintf("%d ns", ns)
	case v < 10:
		return fmt.Sprintf("%.2f %s", v, unit)
	case v < 100:
		return fmt.Sprintf("%.1f %s", v, unit)
	default:
		return fmt.Sprintf("%.0f %s", v, unit)
	}
}

// ShortNumber has up to three digits: 0.25, 17, 3.2k, 120M.
func ShortNumber(v float64) string {
	for _, unit := range []string{"", "k", "M", "G"} {
		switch {
		case v == 0:
			return "0"
		case v < 10 && v != float64(int64(v)):
			return strings.TrimSuffix(fmt.Sprintf("%.1f", v), ".0") + unit
		case v < 999.5:
			return fmt.Sprintf("%.0f%s", v, unit)
		}
		v /= 1000
	}
	return fmt.Sprintf("%.0fT", v)
}
