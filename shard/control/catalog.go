package control

import (
	"github.com/tailbound/tailbound/cluster"
	"github.com/tailbound/tailbound/kafka"
)

// Catalog says whose the logs of a directory are, by its control log. It is for
// who looks at a directory that is not served.
type Catalog struct {
	state *cluster.State
	Err   error // the first command that could not be applied: later ones were not tried
}

// NewCatalog knows nothing yet.
func NewCatalog() *Catalog { return &Catalog{state: cluster.New()} }

// Take is for every batch of every log, in a log's order, as recovery.Check gives
// them.
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

// Owner is the topic and partition a log is of; false where it has none, or
// its topic was deleted.
func (c *Catalog) Owner(log uint64) (topic string, partition int32, ok bool) {
	found, partition, ok := c.state.LogOwner(log)
	if !ok || found.Deleted {
		return "", 0, false
	}
	return found.Name, partition, true
}

// SoundBatch says whether a stored batch is as it was stored, at that offset and
// in that leader epoch.
func SoundBatch(batch []byte, base int64, epoch int32) bool {
	return len(batch) >= kafka.BatchHeaderBytes && kafka.BatchBytes(batch) == len(batch) && kafka.BaseOffset(batch) == base &&
		kafka.LeaderEpoch(batch) == epoch && kafka.ChecksumFits(batch)
}
