package client

import (
	"testing"

	"github.com/tailbound/tailbound/cmd/tailbound/program"
)

func TestMain(m *testing.M) { program.Main(m) }
