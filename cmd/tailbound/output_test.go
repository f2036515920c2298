package main

import (
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/tailbound/tailbound/cmd/tailbound/program"
)

// Every command that prints data prints it as --output says, and refuses another
// --output with the formats there are. Every command shows how it is used.
func TestOutputs(t *testing.T) {
	b := program.Start(t)
	for _, args := range [][]string{
		{"profile", "--once", "--data-dir", b.Dir}, {"profile", "tail", "--once", "--data-dir", b.Dir}, {"profile", "watch", "slo", "--once", "--data-dir", b.Dir},
	} {
		printsAll(t, args)
	}
	if err := b.Stop(); err != nil {
		t.Fatal(err)
	}
	printsAll(t, []string{"check", b.Dir})
	printsAll(t, []string{"repair", b.Dir})
	for _, c := range []string{"check", "repair"} { // 1 would say that something is broken
		for _, args := range [][]string{{c, b.Dir, "--output", "xml"}, {c, t.TempDir()}} {
			if r := program.Run(t, "", args...); r.Status != 2 {
				t.Errorf("tailbound %s: exit status %d, not 2\n%s", strings.Join(args, " "), r.Status, r.Err)
			}
		}
	}
}

func printsAll(t *testing.T, args []string) {
	t.Helper()
	table := program.Must(t, "", args...)
	asJSON := program.Must(t, "", append(args, "--output", "json")...)
	asYAML := program.Must(t, "", append(args, "--output", "yaml")...)
	if !strings.HasPrefix(asJSON, "{\n  \"") || !strings.HasSuffix(asJSON, "}\n") {
		t.Errorf("%v: this is no JSON object:\n%s", args, asJSON)
	}
	key, _, _ := strings.Cut(strings.TrimPrefix(asJSON, "{\n  \""), "\"")
	if !strings.HasPrefix(asYAML, key+": ") || strings.HasPrefix(table, "{") || strings.HasPrefix(table, key+": ") {
		t.Errorf("%v: YAML is\n%s\nand the table\n%s", args, asYAML, table)
	}
	program.Refused(t, append(args, "--output", "xml"), `--output "xml": it is table, json or yaml`)
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
