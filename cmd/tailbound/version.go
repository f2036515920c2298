package main

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"
)

// version is stamped by the Makefile.
var version = "dev"

func versionCommand() *cobra.Command {
	var bill bool
	c := &cobra.Command{
		Use:     "version [--sbom [FILE]]",
		Short:   "Print the version, or what the program is made of",
		Args:    cobra.MaximumNArgs(1),
		Example: "  tailbound version\n  tailbound version --sbom > tailbound.cdx.json   # CycloneDX",
		RunE: func(cmd *cobra.Command, args []string) error {
			out := cmd.OutOrStdout()
			switch {
			case bill:
				return printBill(out, strings.Join(args, ""))
			case len(args) > 0:
				return fmt.Errorf("%s: a file is what --sbom asks about", args[0])
			}
			_, err := fmt.Fprintf(out, "tailbound %s%s %s %s/%s\n", versionString(), commit(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
			return err
		},
	}
	c.Flags().BoolVar(&bill, "sbom", false, "print the modules this program, or the tailbound in FILE, was built of, as CycloneDX JSON")
	return c
}

// commit is what Go stamps by itself, where it was built from a checkout.
func commit() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	var revision, at, dirty string
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			revision = s.Value[:min(12, len(s.Value))]
		case "vcs.time":
			at = s.Value
		case "vcs.modified":
			if s.Value == "true" {
				dirty = ", changed since"
			}
		}
	}
	if revision == "" {
		return ""
	}
	return fmt.Sprintf(" (commit %s of %s%s)", revision, at, dirty)
}

func versionString() string {
	if version != "dev" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" && len(s.Value) >= 12 {
				return "dev-" + s.Value[:12]
			}
		}
	}
	return version
}
