package settings

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"github.com/tailbound/tailbound/cluster"
)

var update = flag.Bool("update", false, "write testdata anew")

// TestTable holds the invariants of the rows.
func TestTable(t *testing.T) {
	wellFormed := regexp.MustCompile(`^[a-z]+(-[a-z]+)*$`)
	names := map[string]bool{}
	for i := range table {
		s := &table[i]
		if !wellFormed.MatchString(s.name) || names[s.name] {
			t.Errorf("%q is no name for a setting, or there are two", s.name)
		}
		names[s.name] = true
		if usage := s.usage(); usage == "" || strings.ContainsAny(usage, "{}") {
			t.Errorf("%s: %q is no sentence for --help", s.name, usage)
		}
		if strings.Contains(s.doc, "{bounds}") && s.field.bounds() == "" {
			t.Errorf("%s: its sentence names bounds, and there are none", s.name)
		}
		if s.kafka == "" {
			continue
		}
		d, ok := cluster.LookupBroker(s.kafka)
		if !ok {
			t.Errorf("%s: DescribeConfigs shows no %s", s.name, s.kafka)
		} else if d.Scope == cluster.ScopeStart && !strings.Contains(d.Why, "--"+s.name) {
			t.Errorf("%s: %s cannot be altered while the broker runs, and %q does not name --%s", s.name, s.kafka, d.Why, s.name)
		}
	}
	s := Define(pflag.NewFlagSet("", pflag.ContinueOnError))
	if err := s.Check(false); err != nil {
		t.Errorf("defaults are refused: %v", err)
	}
	if err := s.Check(true); err == nil || !strings.Contains(err.Error(), "--data-dir: ") {
		t.Errorf("a start without --data-dir: %v", err)
	}
}

// TestWords holds what people read of the table against testdata: the example of a
// configuration file, and what every wrong value is answered. -update writes it.
func TestWords(t *testing.T) {
	out := &bytes.Buffer{}
	if err := Example(out); err != nil {
		t.Fatal(err)
	}
	golden(t, "example.yaml", out.Bytes())

	bad, err := os.ReadFile(filepath.Join("testdata", "refused"))
	if err != nil {
		t.Fatal(err)
	}
	out.Reset()
	path := filepath.Join(t.TempDir(), "tailbound.yaml")
	for _, scene := range strings.Split(string(bad), "\n\n") {
		out.WriteString(refused(t, path, scene))
	}
	golden(t, "refused", bytes.TrimSuffix(out.Bytes(), []byte("\n")))
}

// refused is a scene with what it is answered. Its lines are those of a file, or with
// $ before them a flag or a variable. Answers begin with >.
func refused(t *testing.T, path, scene string) string {
	out, file := &strings.Builder{}, &strings.Builder{}
	flags := pflag.NewFlagSet("", pflag.ContinueOnError)
	s := Define(flags)
	var words, environment []string
	for line := range strings.Lines(strings.TrimSuffix(scene, "\n") + "\n") {
		word, isWord := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "$ ")
		switch {
		case strings.HasPrefix(line, "> "):
			continue
		case !isWord:
			file.WriteString(line)
		case strings.HasPrefix(word, "--"):
			words = append(words, word)
		default:
			environment = append(environment, word)
		}
		out.WriteString(line)
	}
	from := ""
	if file.Len() > 0 {
		from = path
		if err := os.WriteFile(path, []byte(file.String()), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	err := flags.Parse(words)
	if err == nil {
		err = s.Read(from, environment)
	}
	if err == nil {
		err = s.Check(true)
	}
	answer := "taken"
	if err != nil {
		answer = strings.ReplaceAll(err.Error(), path, "FILE")
	}
	for line := range strings.Lines(answer) {
		out.WriteString("> " + strings.TrimSuffix(line, "\n") + "\n")
	}
	return out.String() + "\n"
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s is not what is printed; if that is meant, run go test -update. Printed:\n%s", path, got)
	}
}
