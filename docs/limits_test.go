package docs

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// Every setting, code and gauge that LIMITS.md names is one that there is.
func TestLimitsExist(t *testing.T) {
	page, err := os.ReadFile("LIMITS.md")
	if err != nil {
		t.Fatal(err)
	}
	sources := map[string]string{} // directory -> all that its product files say
	for _, f := range files {
		if f.test {
			continue
		}
		src, err := os.ReadFile(filepath.Join("..", f.path))
		if err != nil {
			t.Fatal(err)
		}
		top, _, _ := strings.Cut(f.dir, "/")
		sources[top] += string(src)
	}
	cases := []struct {
		what    string
		pattern string
		in      string
	}{
		{"flag", "`--([a-z-]+)`", "cmd"},
		{"code", "`([A-Z]+(?:_[A-Z]+)+)`", "kafka"},
		{"gauge", `pool ("[a-z ]+")`, "shard"},
		{"configuration", "`([a-z]+(?:\\.[a-z]+)+)`", "cluster"},
	}
	for _, c := range cases {
		found := regexp.MustCompile(c.pattern).FindAllStringSubmatch(string(page), -1)
		if len(found) == 0 {
			t.Errorf("LIMITS.md names no %s", c.what)
		}
		for _, m := range found {
			name := m[1]
			if !strings.HasPrefix(name, `"`) {
				name = `"` + name + `"`
			}
			if !strings.Contains(sources[c.in], name) {
				t.Errorf("LIMITS.md names the %s %s, and %s has none", c.what, name, c.in)
			}
		}
	}
}
