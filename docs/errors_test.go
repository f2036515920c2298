package docs

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// Every row of ERRORS.md names tests that there are, and only codes that Kafka
// has.
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
	for _, path := range files {
		src, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`(?m)^func (Test\w+)\(`).FindAllStringSubmatch(string(src), -1) {
			tests[m[1]] += " " + filepath.Base(filepath.Dir(path)) + " "
		}
	}
	codes, err := os.ReadFile("../kafka/codes.go")
	if err != nil {
		t.Fatal(err)
	}
	named := regexp.MustCompile("`(Test\\w+)`( in (\\w+))?")
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
	if rows < 30 {
		t.Errorf("only %d rows were read", rows)
	}
}
