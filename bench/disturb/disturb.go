package disturb

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"time"
)

// Variable is where a process reads what is to be beside it.
const Variable = "TAILBOUND_DISTURB"

// Kinds are what there is within a process.
var Kinds = []string{"alloc", "heap"}

// Start begins what the environment asks for, if anything.
func Start() error {
	kind := os.Getenv(Variable)
	switch {
	case kind == "":
		return nil
	case !slices.Contains(Kinds, kind):
		return fmt.Errorf("%s=%s: it is one of %v", Variable, kind, Kinds)
	}
	go run(kind)
	return nil
}

// alloc is 200 MB/s of short-lived garbage, as a service that parses what it
// gets makes; heap is half a gigabyte of small objects that point at each other,
// and 20 MB/s of garbage, so that it is walked again and again.
func run(kind string) {
	rate := 200 << 20
	var walked *node // what the collector has to walk
	if kind == "heap" {
		rate = 20 << 20
		walked = tree(22)
	}
	const every = 5 * time.Millisecond
	for range time.Tick(every) {
		var last [][]byte
		for made := 0; made < rate/200; made += 4096 {
			last = append(last, make([]byte, 4096))
		}
		last[0][0] = 1
		runtime.KeepAlive(walked)
	}
}

type node struct {
	left, right *node
	text        []byte
}

func tree(depth int) *node {
	if depth == 0 {
		return nil
	}
	return &node{tree(depth - 1), tree(depth - 1), make([]byte, 64)}
}
