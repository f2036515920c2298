package observe

import (
	"encoding/json"
	"time"
)

// Measure is the profile of the broker that serves dir, for `tailbound bench`: the
// first call begins an interval, the second ends it and returns the profile of it
// with the slowest requests, as JSON. nil if the broker has ended.
func Measure(dir string) func() (func() json.RawMessage, error) {
	return func() (func() json.RawMessage, error) {
		conn, err := dial(dir)
		if err != nil {
			return nil, err
		}
		if _, err := conn.next(); err != nil {
			conn.close()
			return nil, err
		}
		begun := time.Now()
		return func() json.RawMessage {
			defer conn.close()
			got, err := conn.next()
			if err != nil {
				return nil // the broker has ended, as in a scenario with a restart
			}
			whole := struct {
				*Profile
				Tail *TailProfile `json:"tail,omitempty"` // of the last minute at most
			}{Profile: got}
			slowest := new(TailProfile)
			over := min(time.Since(begun), time.Minute)
			if conn.ask(question{Tail: &tailQuestion{OverMS: over.Milliseconds(), Count: 10}}, slowest) == nil {
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
