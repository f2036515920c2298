package interop

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// TestUnopenable: a directory of which something is not as it should be is refused by `serve` and `check` alike, in one line that says which file it is,
// what is wrong with it and what to do next; nothing is lost by that, and once it is put right all of it is served.
func TestUnopenable(t *testing.T) {
	needReal(t, "it has no directory")
	b := ownBroker(t, "--journal", "8MiB")
	const topic = "kept"
	mustProduce(t, dialTo(t, createTopic(t, b, topic, 1)), topic, bytesOf(batchOf("all of it")))
	b.kill()
	restore := "restore the directory from a copy of all of it"
	journal := filepath.Join(b.dir, "shard-001", "journal")
	aside := filepath.Join(t.TempDir(), "aside")
	move := func(path string) { // to the test's own directory and back
		if err := os.Rename(path, aside); err != nil {
			t.Fatal(err)
		}
	}
	back := func(path string) {
		os.RemoveAll(path)
		if err := os.Rename(aside, path); err != nil {
			t.Fatal(err)
		}
	}
	for _, x := range []struct {
		name, path string
		with       func(path string) error // what is done in its place
		want       []string
	}{
		{"the journal is missing", journal, nil, []string{"shard-001/journal is missing (ENOENT: no such file or directory)", restore}},
		{"a checkpoint is missing", filepath.Join(b.dir, "shard-000", "checkpoint-0"), nil, []string{"shard-000/checkpoint-0 is missing", restore}},
		{"the journal is empty", journal, func(path string) error { return os.WriteFile(path, nil, 0o644) }, []string{"shard-001/journal at 0: it ends here", restore}},
		{"a directory in the journal's place", journal, func(path string) error { return os.Mkdir(path, 0o755) }, []string{"opening shard-001/journal: EISDIR: is a directory; something else stands there"}},
		{"a file in a shard's place", filepath.Join(b.dir, "shard-001"), func(path string) error { return os.WriteFile(path, nil, 0o644) }, []string{"shard-001/journal: ", "not a directory"}},
		{"a link to itself", filepath.Join(b.dir, "shard-002", "checkpoint-1"), func(path string) error { return os.Symlink("checkpoint-1", path) }, []string{"opening shard-002/checkpoint-1: ELOOP", "something else stands there"}},
		{"an empty superblock", filepath.Join(b.dir, "superblock"), func(path string) error { return os.WriteFile(path, nil, 0o644) }, []string{"superblock: neither of its two slots can be read", restore}},
	} {
		t.Run(x.name, func(t *testing.T) {
			move(x.path)
			if x.with != nil {
				if err := x.with(x.path); err != nil {
					t.Fatal(err)
				}
			}
			said := map[string]string{}
			out, err := exec.Command(b.binary, "check", b.dir).CombinedOutput()
			said["check"] = string(out)
			if ended, ok := err.(*exec.ExitError); !ok || ended.ExitCode() != 2 {
				t.Errorf("check ends with %v", err)
			}
			if err := b.start(); err == nil {
				b.kill()
				t.Error("it is served")
			} else {
				said["serve"] = err.Error()
			}
			back(x.path)
			for what, text := range said {
				line := ""
				for _, l := range strings.Split(text, "\n") {
					if strings.Contains(l, x.want[0]) {
						line = l
					}
				}
				for _, want := range x.want {
					if !strings.Contains(line, want) {
						t.Errorf("%s does not say %q:\n%s", what, want, text)
					}
				}
				if strings.Contains(text, "engine:") || strings.Contains(text, "%!") || strings.Contains(text, "goroutine ") {
					t.Errorf("%s says what no operator can read:\n%s", what, text)
				}
			}
		})
	}
	if err := b.start(); err != nil {
		t.Fatal(err)
	}
	if p := mustAsk[*kmsg.FetchResponse](t, dialTo(t, leaderOf(t, b, topic, 0)), fetchRequest(topic, 11, 0, 0)).Topics[0].Partitions[0]; !strings.Contains(string(p.RecordBatches), "all of it") {
		t.Errorf("what was there is not: error %d", p.ErrorCode)
	}
}
