package format

import (
	"fmt"
)

// SegmentPath is the path of a segment.
func SegmentPath(generation uint64) string { return fmt.Sprintf("segments/%016x", generation) }

// ShardPath is the path of one of a shard's files.
func ShardPath(shard int, name string) string { return fmt.Sprintf("shard-%03d/%s", shard, name) }

// SegmentPathBytes is a segment's path with its NUL.
const SegmentPathBytes = 26

// PutSegmentPath writes segments/<generation> and a NUL.
func PutSegmentPath(p []byte, generation uint64) {
	n := copy(p, "segments/")
	for i := range 16 {
		p[n+i] = hexDigits[generation>>(60-4*i)&15]
	}
	p[n+16] = 0
}

const hexDigits = "0123456789abcdef"

// RecoveryShard stands for a shard in the generations of files that opening makes.
const RecoveryShard = 0xff
