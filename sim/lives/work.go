package lives

import (
	"fmt"

	"github.com/tailbound/tailbound/ioring"
	"github.com/tailbound/tailbound/sim"
)

// work counts what an opening asks of each file: how long a start takes follows from that,
// on any disk.
type work map[string]*fileWork

type fileWork struct {
	readBytes int64 // asked for
	syncs     int
}

// count begins to count the operations on a disk. end stops it.
func (w work) count(disk *sim.Disk) (end func()) {
	before := disk.Fail
	disk.Fail = func(code ioring.Code, path string, offset uint64, n int) int32 {
		f := w[path]
		if f == nil {
			f = &fileWork{}
			w[path] = f
		}
		switch code {
		case ioring.Read:
			f.readBytes += int64(n)
		case ioring.Sync:
			f.syncs++
		}
		if before == nil {
			return 0
		}
		return before(code, path, offset, n)
	}
	return func() { disk.Fail = before }
}

// The most that an opening reads of a file, in sizes of it, and how often it syncs it. A journal
// is read once for its frames and once for those behind a hole; a read that is short is
// asked for again from where it ended, and an operation that was interrupted as well.
const (
	openingReadsMax = 6
	openingSyncsMax = 8
)

// check holds what an opening has done against the bounds. It does not depend on how many logs
// there are.
func (w work) check(disk *sim.Disk) error {
	for _, path := range disk.Paths() {
		f := w[path]
		if f == nil {
			continue
		}
		if most := openingReadsMax*disk.Size(path) + 1<<20; f.readBytes > most {
			return fmt.Errorf("opening read %d bytes of %s, which has %d", f.readBytes, path, disk.Size(path))
		}
		if f.syncs > openingSyncsMax {
			return fmt.Errorf("opening synced %s %d times", path, f.syncs)
		}
	}
	return nil
}
