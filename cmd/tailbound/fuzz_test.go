package main

import (
	"bytes"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// FuzzConfig: no file stops who reads it, and what is taken is taken again as
// it is printed.
func FuzzConfig(f *testing.F) {
	for _, text := range []string{
		"", "shards: 2\n", "data-dir: /x\nlisten: [a=:1, b=:2]\n", "arena: 1GiB\nlog-level: debug # why\n", "shards: two\nnothing: 1\n", "- 1\n", "a: &b c\nd: *b\n", "---\n---\n",
		"cpus: \"1-3,5\"\n", "buffered: yes\n", "group-max-size: 0x10\n", "advertise: |\n  a\n", "\xff: \x00", "? a\n: b\n", "{shards: 1}", "offsets-retention: 1h30m\n", "shards: !!str 3\n",
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		path := filepath.Join(t.TempDir(), "f.yaml")
		read := func(text []byte) (values map[string]string, from origins, err error) {
			if err := os.WriteFile(path, text, 0o600); err != nil {
				t.Fatal(err)
			}
			c, o := newServeCommand()
			if from, err = configure(c.Flags(), path, nil); err == nil {
				err = o.problems(from, false)
			}
			values = map[string]string{}
			for _, x := range settingsOf(c.Flags()) {
				values[x.Name] = x.Value.String()
			}
			return values, from, err
		}
		values, from, err := read(text)
		if err != nil {
			if !strings.Contains(err.Error(), path) {
				t.Fatalf("%q: an error that does not say where: %v", text, err)
			}
			return
		}
		c, _ := newServeCommand()
		configure(c.Flags(), path, nil)
		printed := &bytes.Buffer{}
		if err := printConfig(printed, c.Flags(), from, nil); err != nil {
			t.Fatal(err)
		}
		again, _, err := read(printed.Bytes())
		if err != nil || !reflect.DeepEqual(values, again) {
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
		parseCPUs(text)
		parseListeners(text, text, 3)
		parseAddressLimits(text)
	})
}
