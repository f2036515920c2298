package docs

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestErrorsAreTested: every row of ERRORS.md names tests that exist and only codes
// that Kafka has, and every code of Kafka is on the page once.
func TestErrorsAreTested(t *testing.T) {
	page, err := os.ReadFile("ERRORS.md")
	if err != nil {
		t.Fatal(err)
	}
	tests := map[string]string{} // name -> rooms it is in
	files, err := filepath.Glob("../*/*_test.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, deeper := range []string{"../*/*/*_test.go", "../*/*/*/*_test.go"} {
		nested, err := filepath.Glob(deeper)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, nested...)
	}
	for _, path := range files {
		src, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`(?m)^func (Test\w+)\(`).FindAllStringSubmatch(string(src), -1) {
			tests[m[1]] += " " + strings.TrimPrefix(filepath.ToSlash(filepath.Dir(path)), "../") + " "
		}
	}
	codes, err := os.ReadFile("../kafka/codes.go")
	if err != nil {
		t.Fatal(err)
	}
	named := regexp.MustCompile("`(Test\\w+)`( in ([\\w/]+))?")
	code := regexp.MustCompile("`([A-Z]+(_[A-Z]+)+)`")
	rows := 0
	for _, line := range strings.Split(string(page), "\n") {
		if !strings.HasPrefix(line, "| ") || strings.HasPrefix(line, "| input") {
			continue
		}
		rows++
		found := named.FindAllStringSubmatch(line, -1)
		if len(found) == 0 {
			t.Errorf("no test is named for: %s", line)
		}
		for _, m := range found {
			room := m[3]
			if room == "" {
				room = "interop"
			}
			if !strings.Contains(tests[m[1]], " "+room+" ") {
				t.Errorf("%s has no %s, named for: %s", room, m[1], line)
			}
		}
		for _, m := range code.FindAllStringSubmatch(line, -1) {
			if !strings.Contains(string(codes), `"`+m[1]+`"`) {
				t.Errorf("Kafka has no code %s: %s", m[1], line)
			}
		}
	}
	// Every code that Kafka has is in a row, or in the list of those never returned.
	for _, m := range regexp.MustCompile(`"([A-Z]+(_[A-Z]+)+)"`).FindAllStringSubmatch(string(codes), -1) {
		if n := strings.Count(string(page), "`"+m[1]+"`"); n == 0 {
			t.Errorf("the page does not name %s", m[1])
		} else if i := strings.Index(string(page), "## Codes that are never returned"); n > 1 && strings.Contains(string(page)[i:], "`"+m[1]+"`") && strings.Contains(string(page)[:i], "`"+m[1]+"`") {
			t.Errorf("%s is in a table and in the list of codes never returned", m[1])
		}
	}
	if rows < 30 {
		t.Errorf("only %d rows were read", rows)
	}
}
