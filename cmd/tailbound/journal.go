package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/tailbound/tailbound/broker"
	"github.com/tailbound/tailbound/cmd/tailbound/settings"
	"github.com/tailbound/tailbound/cmd/tailbound/term"
)

// Journals are made once, in full, and written in circles. On a large disk each has
// journalMost. On a small one all of them together take no more than a diskPart of it,
// but each takes journalLeast. Recycled files may take another diskPart: they are
// divided among the shards, as one shard cannot use what another keeps.
const (
	journalLeast = settings.JournalBytesMin
	journalMost  = 128 << 20
	diskPart     = 16
)

// journalSize is the size of the journal of each of so many data shards, and why it is
// that. A directory keeps the size it was made with.
func journalSize(v *settings.Values, shards int) (term.ByteSize, string, error) {
	if v.Journal != 0 {
		return v.Journal, "", nil
	}
	if info, err := os.Stat(journalPath(v.DataDir, 1)); err == nil && info.Size() > journalLeast {
		return term.ByteSize(min(info.Size(), journalMost)), "as the directory was made", nil
	}
	total, _, err := diskOf(v.DataDir)
	if err != nil {
		return 0, "", fmt.Errorf("data directory: %w", err)
	}
	each := total / diskPart / int64(shards) &^ (1<<20 - 1)
	if each >= journalMost {
		return journalMost, "the default", nil
	}
	return term.ByteSize(max(each, journalLeast)), fmt.Sprintf("of a file system of %s", term.BinaryBytes(int(total))), nil
}

// journalsFit is an error if the disk has no room for the journals that have yet to be
// made, of so many bytes each. Those that are there need none: a shard whose journal cannot
// be grown serves with it as it is.
func journalsFit(v *settings.Values, each term.ByteSize) error {
	need := int64(0)
	for i := range v.Shards + 1 {
		want := int64(each)
		if i == 0 {
			want = journalLeast // the control shard's
		}
		switch _, err := os.Stat(journalPath(v.DataDir, i)); {
		case errors.Is(err, fs.ErrNotExist):
			need += want
		case err != nil:
			return fmt.Errorf("data directory: %w", err)
		}
	}
	_, free, err := diskOf(v.DataDir)
	if err != nil {
		return fmt.Errorf("data directory: %w", err)
	}
	if need > free {
		return fmt.Errorf("data directory %s: %s are free on its file system, and journals that are to be made for %s need %s: free some, or take fewer --shards or a smaller --journal than %s",
			v.DataDir, term.BinaryBytes(int(free)), term.Plural(v.Shards, "data shard"), term.BinaryBytes(int(need)), &each)
	}
	return nil
}

// spareBytes is how many bytes of recycled files a data shard may keep.
func spareBytes(v *settings.Values) (int64, error) {
	total, _, err := diskOf(v.DataDir)
	return min(total/diskPart/int64(v.Shards), broker.SpareBytesMax), err
}

// prepareBytes is how many bytes of preallocated files a data shard keeps.
func prepareBytes(v *settings.Values) (int64, error) {
	total, _, err := diskOf(v.DataDir)
	if err != nil {
		return 0, fmt.Errorf("data directory: %w", err)
	}
	if v.Prepare != 0 && int64(v.Prepare) < broker.PrepareBytesMin*int64(v.Shards) {
		return 0, fmt.Errorf("--prepare %s: each of %s has files of its own, of %s", &v.Prepare, term.Plural(v.Shards, "data shard"), term.BinaryBytes(broker.PrepareBytesMin))
	}
	if int64(v.Prepare) > total/2 {
		return 0, fmt.Errorf("--prepare %s: the file system of %s has %s, and at most half of that can be kept ready", &v.Prepare, v.DataDir, term.BinaryBytes(int(total)))
	}
	return int64(v.Prepare) / int64(v.Shards), nil
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
