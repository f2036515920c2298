package main

import (
	"os"
	"testing"

	"github.com/tailbound/tailbound/cmd/tailbound/program"
)

func TestMain(m *testing.M) {
	if os.Getenv("TAILBOUND_TEST_GARBAGE") != "" {
		litter()
		main()
		return
	}
	program.Main(m)
}
