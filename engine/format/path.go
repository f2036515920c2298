package format

import (
	"fmt"
)

// SegmentPath is the path of a segment's file.
func SegmentPath(generation uint64) string { return fmt.Sprintf("segments/%016x", generation) }

// ShardPath is the path of one of a shard's files.
func ShardPath(shard int, name string) string { return fmt.Sprintf("shard-%03d/%s", shard, name) }

// SegmentPathBytes is the length of a segment's path, with a NUL.
const SegmentPathBytes = 26

// PutSegmentPath writes a segment's path and a NUL.
func PutSegmentPath(buf []byte, generation uint64) {
	n := copy(buf, "segments/")
	for i := range 16 {
		buf[n+i] = hexDigits[generation>>(60-4*i)&15]
	}
	buf[n+16] = 0
}

const hexDigits = "0123456789abcdef"

// RecoveryShard is in place of the shard in generations of segments that recovery makes.
const RecoveryShard = 0xff
