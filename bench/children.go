package main

import (
	"context"
	"encoding/json"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/tailbound/tailbound/bench/disturb"
	"github.com/tailbound/tailbound/bench/groups"
	"github.com/tailbound/tailbound/bench/plain"
	"github.com/tailbound/tailbound/bench/rings"
)

// children are the processes that measurements start of this program, besides
// those of package cli.
func children() []*cobra.Command {
	child := func(use string, args int, run func(words []string) error) *cobra.Command {
		return &cobra.Command{Use: use, Hidden: true, Args: cobra.ExactArgs(args), Short: "What bench starts", RunE: func(_ *cobra.Command, words []string) error { return run(words) }}
	}
	return []*cobra.Command{
		child("child-probe ADDRESS DIR written|new", 3, func(words []string) error {
			return rings.Serve(words[0], words[1], words[2] == "new")
		}),
		child("child-plain ADDRESS DIR sync|nosync", 3, func(words []string) error {
			if err := disturb.Start(); err != nil {
				return err
			}
			return plain.Serve(plain.Options{Listen: words[0], DataDir: words[1], Sync: words[2] == "sync"})
		}),
		child("child-groups OPTIONS READY", 2, func(words []string) error { return stay(words[0], words[1]) }),
		child("child-fill OPTIONS", 1, func(words []string) error { return fillTopic(words[0]) }),
		child("child-rebalance OPTIONS", 1, func(words []string) error {
			var o groups.CrashOptions
			if err := json.Unmarshal([]byte(words[0]), &o); err != nil {
				return err
			}
			r, err := groups.Crash(o)
			if err != nil {
				return err
			}
			return json.NewEncoder(os.Stdout).Encode(r)
		}),
	}
}

// stay has groups join, says by a file that all have, and on its way out what they
// saw.
func stay(options, ready string) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var o groups.Options
	if err := json.Unmarshal([]byte(options), &o); err != nil {
		return err
	}
	crowd, err := groups.Join(o)
	if err != nil {
		return err
	}
	if err := os.WriteFile(ready, nil, 0o644); err != nil {
		return err
	}
	s, err := crowd.Stay(ctx.Done())
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(s)
}
