package settings

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/pflag"
)

// FuzzConfig: no file stops the program that reads it, and settings that are printed
// and read again are the same.
func FuzzConfig(f *testing.F) {
	for _, text := range []string{
		"", "shards: 2\n", "data-dir: /x\nlisten: [a=:1, b=:2]\n", "arena: 1GiB\nlog-level: debug # why\n", "shards: two\nnothing: 1\n", "- 1\n", "a: &b c\nd: *b\n", "---\n---\n",
		"cpus: \"1-3,5\"\n", "buffered: yes\n", "group-max-size: 0x10\n", "advertise: |\n  a\n", "\xff: \x00", "? a\n: b\n", "{shards: 1}", "offsets-retention: 1h30m\n", "shards: !!str 3\n",
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		path := filepath.Join(t.TempDir(), "f.yaml")
		read := func(text []byte) (*Set, error) {
			if err := os.WriteFile(path, text, 0o600); err != nil {
				t.Fatal(err)
			}
			s := Define(pflag.NewFlagSet("", pflag.ContinueOnError))
			err := s.Read(path, nil)
			if err == nil {
				err = s.Check(false)
			}
			return s, err
		}
		s, err := read(text)
		if err != nil {
			if !strings.Contains(err.Error(), path) {
				t.Fatalf("%q: an error that does not say where: %v", text, err)
			}
			return
		}
		printed := &bytes.Buffer{}
		if err := s.Print(printed, "v", nil); err != nil {
			t.Fatal(err)
		}
		again, err := read(printed.Bytes())
		if err != nil || again.Values != s.Values {
			t.Fatalf("%q is printed as\n%s\nwhich is read as other settings: %v", text, printed, err)
		}
	})
}

// FuzzWords: no list in a setting stops the program that reads it.
func FuzzWords(f *testing.F) {
	for _, text := range []string{"1-3,5", "a=:1,b=:2", "[::1]:20", "10.1.2.3:200", "host:9092", ":9092", "2-", "a=b=c"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		ParseCPUs(text)
		ParseListeners(text, text, 3)
		ParseAddressLimits(text)
	})
}
