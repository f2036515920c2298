package main

import (
	"cmp"
	"debug/buildinfo"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"runtime/debug"
	"strings"
)

// billOfMaterials is what a binary is made of, in CycloneDX's JSON: the modules that
// Go's linker noted in it, with their checksums. It is a function of the binary alone.
// Source: https://cyclonedx.org/docs/1.6/json/.
type billOfMaterials struct {
	Format   string `json:"bomFormat"`
	Spec     string `json:"specVersion"`
	Version  int    `json:"version"`
	Metadata struct {
		Component material `json:"component"`
	} `json:"metadata"`
	Components []material `json:"components"`
}

type material struct {
	Type    string         `json:"type"`
	Ref     string         `json:"bom-ref"`
	Name    string         `json:"name"`
	Version string         `json:"version"`
	URL     string         `json:"purl,omitempty"`
	Hashes  []materialHash `json:"hashes,omitempty"`
}

type materialHash struct {
	Algorithm string `json:"alg"`
	Content   string `json:"content"`
}

// printBill prints the bill of a binary, of this one if binary is "".
func printBill(w io.Writer, binary string) error {
	var info *debug.BuildInfo
	if binary == "" {
		own, ok := debug.ReadBuildInfo()
		if !ok {
			return fmt.Errorf("this binary does not say what it is made of")
		}
		info = own
	} else {
		read, err := buildinfo.ReadFile(binary)
		if err != nil {
			return err
		}
		info = read
	}
	bill := billOfMaterials{Format: "CycloneDX", Spec: "1.6", Version: 1, Components: []material{}}
	bill.Metadata.Component = material{Type: "application", Ref: "tailbound", Name: "tailbound", Version: versionString()}
	add := func(name, version string, hashes []materialHash) {
		at := "pkg:golang/" + name + "@" + url.PathEscape(version)
		bill.Components = append(bill.Components, material{"library", at, name, version, at, hashes})
	}
	add("std", strings.TrimPrefix(info.GoVersion, "go"), nil)
	for _, module := range info.Deps {
		module = cmp.Or(module.Replace, module)
		var hashes []materialHash
		if sum, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(module.Sum, "h1:")); err == nil && len(sum) == 32 {
			hashes = []materialHash{{"SHA-256", hex.EncodeToString(sum)}} // as in go.sum: the hash of the list of its files' hashes
		}
		add(module.Path, module.Version, hashes)
	}
	out := json.NewEncoder(w)
	out.SetIndent("", "  ")
	return out.Encode(bill)
}
