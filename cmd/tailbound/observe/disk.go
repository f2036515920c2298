package observe

import (
	"os"

	"golang.org/x/sys/unix"
)

// DiskProfile is what the file system of the data directory has, and has left for the
// broker. The JSON names are kept from version to version.
type DiskProfile struct {
	SizeBytes  uint64 `json:"size_bytes"`
	FreeBytes  uint64 `json:"free_bytes"`
	Inodes     uint64 `json:"inodes"` // 0: the file system has no fixed number of them
	FreeInodes uint64 `json:"free_inodes"`
}

// readDisk reads it now. It is zero where it cannot be read.
func readDisk(dir string) (disk DiskProfile) {
	var st unix.Statfs_t
	if unix.Statfs(dir, &st) != nil {
		return disk
	}
	blocks := st.Bavail
	if os.Geteuid() == 0 { // what is reserved is reserved for root
		blocks = st.Bfree
	}
	size := uint64(st.Bsize)
	return DiskProfile{SizeBytes: st.Blocks * size, FreeBytes: blocks * size, Inodes: st.Files, FreeInodes: st.Ffree}
}
