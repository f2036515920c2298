package main

import (
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// Whatever prints data prints it as --output says, and names what --output is
// where it is none of those; every command shows how it is used.
func TestOutputs(t *testing.T) {
	b := startBroker(t)
	for _, args := range [][]string{
		{"profile", "--once", "--data-dir", b.dir}, {"profile", "tail", "--once", "--data-dir", b.dir}, {"profile", "watch", "slo", "--once", "--data-dir", b.dir},
	} {
		printsAll(t, args)
	}
	if err := b.stop(); err != nil {
		t.Fatal(err)
	}
	printsAll(t, []string{"check", b.dir})
	printsAll(t, []string{"repair", b.dir})
	for _, c := range []string{"check", "repair"} { // 1 would say that something is broken
		for _, args := range [][]string{{c, b.dir, "--output", "xml"}, {c, t.TempDir()}} {
			if r := tailbound(t, "", args...); r.status != 2 {
				t.Errorf("tailbound %s: exit status %d, not 2\n%s", strings.Join(args, " "), r.status, r.err)
			}
		}
	}
}

func printsAll(t *testing.T, args []string) {
	t.Helper()
	table := must(t, "", args...)
	asJSON := must(t, "", append(args, "--output", "json")...)
	asYAML := must(t, "", append(args, "--output", "yaml")...)
	if !strings.HasPrefix(asJSON, "{\n  \"") || !strings.HasSuffix(asJSON, "}\n") {
		t.Errorf("%v: this is no JSON object:\n%s", args, asJSON)
	}
	key, _, _ := strings.Cut(strings.TrimPrefix(asJSON, "{\n  \""), "\"")
	if !strings.HasPrefix(asYAML, key+": ") || strings.HasPrefix(table, "{") || strings.HasPrefix(table, key+": ") {
		t.Errorf("%v: YAML is\n%s\nand the table\n%s", args, asYAML, table)
	}
	refused(t, append(args, "--output", "xml"), `--output "xml": it is table, json or yaml`)
}

func TestExamples(t *testing.T) {
	var look func(c *cobra.Command)
	look = func(c *cobra.Command) {
		if c.Hidden || c.Name() == "completion" { // which is cobra's own
			return
		}
		if !strings.Contains(c.Example, c.CommandPath()) {
			t.Errorf("`%s --help` has no example of it", c.CommandPath())
		}
		for _, below := range c.Commands() {
			look(below)
		}
	}
	look(rootCommand())
}
