package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/tailbound/tailbound/broker"
	"github.com/tailbound/tailbound/cmd/tailbound/term"
)

// Journals are made once, in full, and written in circles. On a large disk each
// has journalMost; on a small one all of them take no more than a sixteenth of
// it, but journalLeast each. Files that logs let go and shards keep for what
// comes take as much at most: what one shard keeps, another cannot have.
const (
	journalLeast = 8 << 20
	journalMost  = 128 << 20
	diskPart     = 16
)

// journalSize is how large the journal of each data shard is to be, and why.
// A directory keeps the size it was made with.
func (o *serveOptions) journalSize(shards int) (term.ByteSize, string, error) {
	if o.journal != 0 {
		return o.journal, "", nil
	}
	if info, err := os.Stat(journalPath(o.dataDir, 1)); err == nil && info.Size() > journalLeast {
		return term.ByteSize(min(info.Size(), journalMost)), "as the directory was made", nil
	}
	total, _, err := diskOf(o.dataDir)
	if err != nil {
		return 0, "", fmt.Errorf("data directory: %w", err)
	}
	each := total / diskPart / int64(shards) &^ (1<<20 - 1)
	if each >= journalMost {
		return journalMost, "the default", nil
	}
	return term.ByteSize(max(each, journalLeast)), fmt.Sprintf("of a file system of %s", term.BinaryBytes(int(total))), nil
}

// journalsFit says whether the disk has room for the journals that are still to
// be made.
func (o *serveOptions) journalsFit(shards int, each term.ByteSize) error {
	need := int64(0)
	for i := range shards + 1 {
		want := int64(each)
		if i == 0 {
			want = journalLeast // the control shard's
		}
		info, err := os.Stat(journalPath(o.dataDir, i))
		switch {
		case err == nil:
			want -= info.Size()
		case !errors.Is(err, fs.ErrNotExist):
			return fmt.Errorf("data directory: %w", err)
		}
		need += max(want, 0)
	}
	_, free, err := diskOf(o.dataDir)
	if err != nil {
		return fmt.Errorf("data directory: %w", err)
	}
	if need > free {
		return fmt.Errorf("data directory %s: %s are free on its file system, and journals that are to be made or grown for %s need %s: free some, or take fewer --shards or a smaller --journal than %s",
			o.dataDir, term.BinaryBytes(int(free)), term.Plural(shards, "data shard"), term.BinaryBytes(int(need)), &each)
	}
	return nil
}

// spareBytes is how much of files that logs let go a shard may keep.
func (o *serveOptions) spareBytes(shards int) (int64, error) {
	total, _, err := diskOf(o.dataDir)
	return min(total/diskPart/int64(shards), broker.SpareBytesMax), err
}

// prepareBytes is how much of files of zeroes a shard keeps ready.
func (o *serveOptions) prepareBytes(shards int) (int64, error) {
	total, _, err := diskOf(o.dataDir)
	if err != nil {
		return 0, fmt.Errorf("data directory: %w", err)
	}
	if o.prepare != 0 && int64(o.prepare) < broker.PrepareBytesMin*int64(shards) {
		return 0, fmt.Errorf("--prepare %s: each of %s has files of its own, of %s", &o.prepare, term.Plural(shards, "data shard"), term.BinaryBytes(broker.PrepareBytesMin))
	}
	if int64(o.prepare) > total/2 {
		return 0, fmt.Errorf("--prepare %s: the file system of %s has %s, and at most half of that can be kept ready", &o.prepare, o.dataDir, term.BinaryBytes(int(total)))
	}
	return int64(o.prepare) / int64(shards), nil
}

func journalPath(dir string, shard int) string {
	return filepath.Join(dir, fmt.Sprintf("shard-%03d", shard), "journal")
}

// diskOf is the size of a directory's file system and what is free of it. The
// directory need not be there yet.
func diskOf(dir string) (total, free int64, err error) {
	dir, err = filepath.Abs(dir)
	if err != nil {
		return 0, 0, err
	}
	for {
		var st unix.Statfs_t
		switch err := unix.Statfs(dir, &st); {
		case err == nil:
			blocks := st.Bavail
			if os.Geteuid() == 0 {
				blocks = st.Bfree
			}
			return int64(st.Blocks) * st.Bsize, int64(blocks) * st.Bsize, nil
		case err != unix.ENOENT || dir == filepath.Dir(dir):
			return 0, 0, fmt.Errorf("%s: %w", dir, err)
		}
		dir = filepath.Dir(dir)
	}
}
