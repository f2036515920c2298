// Package scenarios has loads that stand for something, as files: each says why
// it is there. It does not know what runs them, and imports no package of Tailbound.
//
// A file's plan is what all its phases have in common (package trial's Plan);
// a phase changes some of it. Rates are what the scenario is about; at-most
// scales them to a machine that cannot carry so much.
package scenarios

import "embed"

// Files are the scenarios, NAME.yaml.
//
//go:embed *.yaml
var Files embed.FS
