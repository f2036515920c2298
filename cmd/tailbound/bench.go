package main

import (
	"encoding/json"
	"time"

	"github.com/spf13/cobra"

	"github.com/tailbound/tailbound/bench/cli"
	"github.com/tailbound/tailbound/cmd/tailbound/term"
)

func benchCommand() *cobra.Command {
	return cli.Command(&cli.Host{
		Version: versionString(), Brokers: term.EnvOr("TAILBOUND_BROKERS", defaultBrokers), Profile: profileOf, NotHeld: term.ExitStatus(1),
	})
}

// profileOf begins a profile of the broker that serves dir.
func profileOf(dir string) func() (func() json.RawMessage, error) {
	return func() (func() json.RawMessage, error) {
		p, err := dialProfile(dir)
		if err != nil {
			return nil, err
		}
		if _, err := p.next(); err != nil {
			p.close()
			return nil, err
		}
		begun := time.Now()
		return func() json.RawMessage {
			defer p.close()
			got, err := p.next()
			if err != nil {
				return nil // it has ended meanwhile, as at a restart
			}
			whole := struct {
				*profile
				Tail *tailProfile `json:"tail,omitempty"` // the slowest requests, of a minute at most
			}{profile: got}
			slowest := new(tailProfile)
			over := min(time.Since(begun), time.Minute)
			if p.ask(profileQuestion{Tail: &tailQuestion{OverMS: over.Milliseconds(), Count: 10}}, slowest) == nil {
				whole.Tail = slowest
			}
			text, err := json.Marshal(whole)
			if err != nil {
				return nil
			}
			return text
		}, nil
	}
}
