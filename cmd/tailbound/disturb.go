//go:build disturb

package main

import (
	"os"

	"github.com/tailbound/tailbound/bench/disturb"
)

// A build for one experiment: whether what runs beside the shards in their process
// reaches them. See make isolation.
func init() {
	if len(os.Args) > 1 && os.Args[1] == "serve" {
		if err := disturb.Start(); err != nil {
			panic(err)
		}
	}
}
