package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/tailbound/tailbound/bench/trial"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "peers:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	switch {
	case len(args) >= 4 && args[0] == "serve":
		switch kind, addr, dir := args[1], args[2], args[3]; kind {
		case "kafka", "kafka-flush":
			return serveKafka(addr, dir, kind == "kafka-flush", args[4:])
		case "jetstream", "jetstream-sync":
			if len(args) > 4 {
				return errors.New("NAME=VALUE is for Kafka")
			}
			return serveJetStream(addr, dir, kind == "jetstream-sync")
		default:
			return fmt.Errorf("no peer %q", kind)
		}
	case len(args) == 1 && args[0] == "jars":
		dir, err := jars()
		fmt.Println(dir)
		return err
	case len(args) == 1 && args[0] == "generate":
		return trial.Generate(os.Stdin, os.Stdout, drive)
	}
	return errors.New("it is peers serve KIND HOST:PORT DIR [NAME=VALUE...], peers generate, or peers jars")
}
