package datadir

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/tailbound/tailbound/engine/recovery"
)

// Copies of what a repair gives up are whole, or there are none.
func TestSaveLeavesNoPart(t *testing.T) {
	d := offline{dir: t.TempDir()}
	for _, name := range []string{"segments/a", "segments/b/c"} { // b cannot be copied
		path := filepath.Join(d.dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte("records"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	cut := func(files ...string) []recovery.Cut { return []recovery.Cut{{Log: 2, Files: files}} }
	if _, err := d.save(cut("segments/a", "segments/b")); err == nil {
		t.Fatal("a directory was copied")
	}
	if left, err := filepath.Glob(filepath.Join(d.dir, "lost", "*")); err != nil || len(left) > 0 {
		t.Fatalf("%q is left, %v", left, err)
	}
	dir, err := d.save(cut("segments/a", "segments/gone"))
	if err != nil {
		t.Fatal(err)
	}
	if files, err := os.ReadDir(dir); err != nil || len(files) != 1 {
		t.Fatalf("%d copies, %v", len(files), err)
	}
}
