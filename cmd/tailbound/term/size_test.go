package term

import "testing"

// FuzzSize: a size that is read is printed as text that is read as the same size.
func FuzzSize(f *testing.F) {
	for _, text := range []string{"1GiB", "1.5K", "65536", "7 MB", "-1", "1e3", "0.1B", "x", "", "9999999999GiB"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var size, again ByteSize
		if size.Set(text) == nil && (again.Set(size.String()) != nil || again != size) {
			t.Fatalf("%q is %s, and that is %d", text, &size, int64(again))
		}
	})
}
