package main

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"
)

// version is set by the Makefile when it links.
var version = "dev"

func versionCommand() *cobra.Command {
	var bill bool
	command := &cobra.Command{
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
	command.Flags().BoolVar(&bill, "sbom", false, "print the modules this program, or the tailbound in FILE, was built of, as CycloneDX JSON")
	return command
}

// commit is what go build notes of the checkout that it built; "" without one.
func commit() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	var revision, at, dirty string
	for _, setting := range info.Settings {
		switch setting.Key {
		case "vcs.revision":
			revision = setting.Value[:min(12, len(setting.Value))]
		case "vcs.time":
			at = setting.Value
		case "vcs.modified":
			if setting.Value == "true" {
				dirty = ", changed since"
			}
		}
	}
	if revision == "" {
		return ""
	}
	return fmt.Sprintf(" (commit %s of %s%s)", revision, at, dirty)
}

// versionString is the version, or for a build without one dev and its commit.
func versionString() string {
	if version != "dev" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, setting := range info.Settings {
			if setting.Key == "vcs.revision" && len(setting.Value) >= 12 {
				return "dev-" + setting.Value[:12]
			}
		}
	}
	return version
}
