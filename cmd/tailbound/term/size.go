package term

import (
	"fmt"
	"strconv"
	"strings"
)

// ByteSize is a flag whose value is a number of bytes, with or without a unit:
// 256MiB, 1GB, 65536.
type ByteSize int64

var sizeUnits = []struct {
	name  string
	bytes int64
}{
	{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"TiB", 1 << 40}, {"kB", 1e3}, {"KB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"TB", 1e12},
	{"K", 1 << 10}, {"M", 1 << 20}, {"G", 1 << 30}, {"T", 1 << 40}, {"B", 1},
}

// Set reads a size. Sizes are not negative; a fraction of a byte is cut off.
func (b *ByteSize) Set(text string) error {
	unit := int64(1)
	number := strings.TrimSpace(text)
	for _, u := range sizeUnits {
		if strings.HasSuffix(number, u.name) {
			number, unit = strings.TrimSpace(strings.TrimSuffix(number, u.name)), u.bytes
			break
		}
	}
	v, err := strconv.ParseFloat(number, 64)
	if err != nil || !(v >= 0 && v*float64(unit) <= 1<<62) {
		return fmt.Errorf("%q is not a size (such as 256MiB, 1GiB or 65536)", text)
	}
	*b = ByteSize(v * float64(unit))
	return nil
}

// String is the size in whole GiB or MiB, or in bytes, as Set reads it.
func (b *ByteSize) String() string {
	switch v := int64(*b); {
	case v >= 1<<30 && v%(1<<30) == 0:
		return fmt.Sprintf("%dGiB", v>>30)
	case v >= 1<<20 && v%(1<<20) == 0:
		return fmt.Sprintf("%dMiB", v>>20)
	default:
		return strconv.FormatInt(v, 10)
	}
}

// Type is what --help shows for the value.
func (b *ByteSize) Type() string { return "SIZE" }
