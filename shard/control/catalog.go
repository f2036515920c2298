package control

import (
	"github.com/tailbound/tailbound/cluster"
	"github.com/tailbound/tailbound/kafka"
)

// Catalog tells which topic and partition each log of a directory belongs to, from its
// control log. `tailbound check` and `tailbound repair` use it, on a directory that is not
// being served.
type Catalog struct {
	state *cluster.State
	Err   error // the first command that could not be applied: later ones were not tried
}

// NewCatalog returns an empty catalog.
func NewCatalog() *Catalog { return &Catalog{state: cluster.New()} }

// Take takes a stored batch of any log. It must be given every batch of the control log, in
// order, as recovery.Check does.
func (c *Catalog) Take(log uint64, batch []byte) {
	if log != controlLogID || c.Err != nil {
		return
	}
	if cmd, ok := commandOf(batch); ok {
		if err := c.state.Apply(cmd); err != nil && err != cluster.ErrReplayed {
			c.Err = err
		}
	}
}

// Owner returns the topic and partition of a log; false where no topic has it, or its topic
// was deleted.
func (c *Catalog) Owner(log uint64) (topic string, partition int32, ok bool) {
	found, partition, ok := c.state.LogOwner(log)
	if !ok || found.Deleted {
		return "", 0, false
	}
	return found.Name, partition, true
}

// TimesChecked reports whether each record of a stored batch has a timestamp, none of
// which is newer than maxTime. A compressed batch is believed where what it claims can be
// true.
func TimesChecked(batch []byte, maxTime int64) bool {
	if len(batch) < kafka.BatchHeaderBytes {
		return false
	}
	times := kafka.TimesOf(batch)
	return times.Checked && times.Largest <= maxTime
}

// SoundBatch reports whether a stored batch is intact: its length and checksum fit, and it
// has the base offset that is expected and a leader epoch from first to last.
func SoundBatch(batch []byte, base int64, first, last int32) bool {
	return len(batch) >= kafka.BatchHeaderBytes && kafka.BatchBytes(batch) == len(batch) && kafka.BaseOffset(batch) == base &&
		kafka.LeaderEpoch(batch) >= first && kafka.LeaderEpoch(batch) <= last && kafka.ChecksumFits(batch)
}
