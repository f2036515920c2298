package engine_test

import (
	"regexp"
	"strings"
	"testing"

	"github.com/tailbound/tailbound/engine"
	"github.com/tailbound/tailbound/engine/format"
	"github.com/tailbound/tailbound/ioring"
)

// What ends a shard's storage is kept as it was: the operation, its file, where
// and how much, and what the kernel answered.
func TestFailureSaysWhat(t *testing.T) {
	for _, c := range []struct {
		what   string
		direct int
		fails  func(code ioring.Code, path string) int32
		want   string
		log    uint64
		from   int64
		to     int64
	}{
		{"a write of the journal", -1, func(code ioring.Code, path string) int32 {
			if code == ioring.Write && strings.HasSuffix(path, "journal") {
				return -int32(ioring.EIO)
			}
			return 0
		}, `^writing shard-001/journal, 8192 bytes at \d+: EIO: input/output error$`, 0, 0, 0},
		{"a sync of the journal", -1, func(code ioring.Code, path string) int32 {
			if code == ioring.Sync && strings.HasSuffix(path, "journal") {
				return -int32(ioring.ENOSPC)
			}
			return 0
		}, `^syncing shard-001/journal, 8192 bytes at \d+: ENOSPC: no space left on device$`, 0, 0, 0},
		{"a write of a large batch", 2048, func(code ioring.Code, path string) int32 {
			if code == ioring.Write && strings.HasPrefix(path, "segments/") {
				return -int32(ioring.EREMOTEIO)
			}
			return 0
		}, `^writing segments/[0-9a-f]{16}, 8192 bytes at \d+: EREMOTEIO: remote I/O error$`, 4, 10, 20},
		{"a sync of a large batch", 2048, func(code ioring.Code, path string) int32 {
			if code == ioring.Sync && strings.HasPrefix(path, "segments/") {
				return -int32(ioring.EIO)
			}
			return 0
		}, `^syncing segments/[0-9a-f]{16}, 8192 bytes at \d+: EIO: input/output error$`, 4, 10, 20},
	} {
		t.Run(c.what, func(t *testing.T) {
			h := newHost(t, 3)
			h.o.DirectBytes = c.direct
			must(t, h.open())
			must(t, h.openLog(4))
			if st, err := h.append(4, 4096, 10); err != nil || st != engine.OK {
				t.Fatal(err, name(st))
			}
			must(t, h.settle())
			h.disk.Fail = func(code ioring.Code, path string, _ uint64, _ int) int32 { return c.fails(code, path) }
			if st, err := h.append(4, 4096, 10); err != nil || st != engine.OK {
				t.Fatal(err, name(st))
			}
			n, _, err := h.slot(4)
			must(t, err)
			must(t, n.until("a failure", func() bool { _, failed := n.engine.Failure(); return failed }))
			f, _ := n.engine.Failure()
			if got := f.Error(); !regexp.MustCompile(c.want).MatchString(got) {
				t.Errorf("%s\nwant %s", got, c.want)
			}
			if f.Log != c.log || f.From != c.from || f.To != c.to {
				t.Errorf("it names offsets %d to %d of log %d, want %d to %d of %d", f.From, f.To, f.Log, c.from, c.to, c.log)
			}
			if troubles, _ := n.engine.Troubles(); troubles != 0 {
				t.Errorf("%d failures were survived too", troubles)
			}
		})
	}
}

// What fails and is survived is counted, and the last of it kept.
func TestTroublesSayWhat(t *testing.T) {
	const runs, perRun = 4, 10
	trouble := func(t *testing.T, n *node, want string) engine.Failure {
		t.Helper()
		troubles, f := n.engine.Troubles()
		if got := f.Error(); troubles == 0 || !regexp.MustCompile(want).MatchString(got) {
			t.Errorf("%d troubles, the last: %s\nwant %s", troubles, got, want)
		}
		if _, failed := n.engine.Failure(); failed {
			t.Error("the storage failed")
		}
		return f
	}
	t.Run("a read", func(t *testing.T) {
		h, n, readOn := ofRuns(t, 6, runs, 20_000, perRun)
		h.disk.Fail = func(code ioring.Code, path string, _ uint64, _ int) int32 {
			if code == ioring.Read && strings.HasPrefix(path, "segments/") {
				return -int32(ioring.EIO)
			}
			return 0
		}
		if _, st := readOn(0); st != engine.StorageFailed {
			t.Fatal(name(st))
		}
		if f := trouble(t, n, `^reading segments/[0-9a-f]{16}, \d+ bytes at 0: EIO: input/output error$`); f.Log != 2 {
			t.Errorf("it names log %d", f.Log)
		}
	})
	t.Run("a file that cannot be opened", func(t *testing.T) {
		h, _, _ := ofRuns(t, 6, runs, 20_000, perRun)
		must(t, h.stop())
		must(t, h.open())
		h.disk.Fail = func(code ioring.Code, path string, _ uint64, _ int) int32 {
			if code == ioring.Open && strings.HasPrefix(path, "segments/") {
				return -int32(ioring.EACCES)
			}
			return 0
		}
		n, s, err := h.slot(2)
		must(t, err)
		if st := n.engine.ReadDisk(s, 0, 9); st != engine.OK {
			t.Fatal(name(st))
		}
		must(t, n.until("an answer", func() bool { k, _ := n.engine.Troubles(); return k > 0 }))
		f := trouble(t, n, `^opening segments/[0-9a-f]{16}: EACCES: permission denied$`)
		if f.Advice() != "give the user that runs tailbound the right to read and write it" {
			t.Errorf("the advice is %q", f.Advice())
		}
	})
	t.Run("what is not what was written", func(t *testing.T) {
		h, n, readOn := ofRuns(t, 6, runs, 20_000, perRun)
		for _, path := range h.disk.Paths() {
			if strings.HasPrefix(path, "segments/") {
				h.disk.Overwrite(path, format.HeaderBytes+format.EntryHeaderBytes, []byte("rot"))
			}
		}
		if _, st := readOn(0); st != engine.Corrupt {
			t.Fatal(name(st))
		}
		f := trouble(t, n, `^reading segments/[0-9a-f]{16}, at 0: what lies there is not what was written$`)
		if f.Log != 2 || f.From != 0 || f.To != perRun || !f.Corrupt {
			t.Errorf("it names offsets %d to %d of log %d", f.From, f.To, f.Log)
		}
	})
	t.Run("a drain", func(t *testing.T) {
		h := newHost(t, 6)
		must(t, h.open())
		must(t, h.openLog(2))
		if st, err := h.append(2, 4096, 10); err != nil || st != engine.OK {
			t.Fatal(err, name(st))
		}
		must(t, h.settle())
		h.disk.Fail = func(code ioring.Code, path string, _ uint64, _ int) int32 {
			if code == ioring.Write && strings.HasPrefix(path, "segments/") {
				return -int32(ioring.EIO)
			}
			return 0
		}
		n, _, err := h.slot(2)
		must(t, err)
		must(t, n.until("trouble", func() bool { k, _ := n.engine.Troubles(); return k > 0 }))
		h.disk.Fail = nil
		f := trouble(t, n, `^writing segments/[0-9a-f]{16}, 8192 bytes at 0: EIO: input/output error$`)
		if f.Log != 2 || f.From != 0 || f.To != 10 {
			t.Errorf("it names offsets %d to %d of log %d", f.From, f.To, f.Log)
		}
	})
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
