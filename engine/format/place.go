package format

// ControlLogID is the log id of the control shard's own log. Logs of
// partitions have greater ids.
const ControlLogID uint64 = 1

// Place is the shard that owns a log: 0, the control shard, for its own log, otherwise a
// data shard, 1 to dataShards. It is a pure function: nothing about it is stored, and
// with another number of shards logs move.
func Place(logID uint64, dataShards int) int {
	if logID == ControlLogID {
		return 0
	}
	if dataShards < 1 {
		panic("format: placing a log on no data shard")
	}
	return 1 + int(logID%uint64(dataShards))
}
