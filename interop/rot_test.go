package interop

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// TestRot: a bit that changes on disk after a clean stop is found by `tailbound check`, never served, and hurts no other topic.
func TestRot(t *testing.T) {
	needReal(t, "it has no disk")
	b := ownBroker(t)
	const sick, sound = "sick", "sound"
	createTopic(t, b, sound, 1)
	leader := createTopic(t, b, sick, 1)
	rotten := strings.Repeat("this will rot ", 1000)
	mustProduce(t, dialTo(t, leaderOf(t, b, sound, 0)), sound, bytesOf(batchOf("healthy")))
	mustProduce(t, dialTo(t, leader), sick, bytesOf(batchOf("before")))
	mustProduce(t, dialTo(t, leader), sick, bytesOf(batchOf(rotten)))
	mustProduce(t, dialTo(t, leader), sick, bytesOf(batchOf("after")))
	if err := b.stop(); err != nil {
		t.Fatal(err)
	}
	if err := b.check(); err != nil {
		t.Fatal(err)
	}
	flipped := flip(t, filepath.Join(b.dir, "segments"), rotten)
	if flipped == 0 {
		t.Fatal("the record is in no segment file after a clean stop")
	}
	if err := b.check(); err == nil {
		t.Error("tailbound check finds nothing")
	} else {
		t.Log(err)
	}
	if err := b.start(); err != nil {
		t.Fatalf("rot in one log keeps the broker from starting: %v", err)
	}
	read := func(topic string, offset int64) ([]byte, int16) {
		p := mustAsk[*kmsg.FetchResponse](t, dialTo(t, leaderOf(t, b, topic, 0)), fetchRequest(topic, 11, offset, 100*time.Millisecond)).Topics[0].Partitions[0]
		return p.RecordBatches, p.ErrorCode
	}
	if got, code := read(sound, 0); code != 0 || !bytes.Contains(got, []byte("healthy")) {
		t.Errorf("the other topic: error %d", code)
	}
	got, code := read(sick, 1)
	if code == 0 && len(got) > 0 {
		t.Errorf("a fetch of what has rotted is answered with %d bytes and no error", len(got))
	}
	t.Logf("a fetch of what has rotted: error %d", code)
	// The bit is not restored: the directory stays corrupt, and the end of the test must not fail for that.
	if err := b.stop(); err != nil {
		t.Error(err)
	}
}

// flip changes a bit in the middle of what is looked for, wherever it lies in a file of that folder.
func flip(t *testing.T, folder, what string) (n int) {
	t.Helper()
	filepath.WalkDir(folder, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		raw, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for at := 0; ; {
			i := bytes.Index(raw[at:], []byte(what))
			if i < 0 {
				return nil
			}
			at += i + len(what)/2
			f, err := os.OpenFile(path, os.O_WRONLY, 0)
			if err != nil {
				return err
			}
			f.WriteAt([]byte{raw[at] ^ 4}, int64(at))
			f.Close()
			n++
		}
	})
	return n
}

// repair runs `tailbound repair`, which has to end so.
func (b *broker) repair(t *testing.T, status int, args ...string) string {
	t.Helper()
	said, err := exec.Command(b.binary, append([]string{"repair", b.dir}, args...)...).CombinedOutput()
	var ended *exec.ExitError
	have := 0
	if errors.As(err, &ended) {
		have = ended.ExitCode()
	}
	if have != status || err != nil && ended == nil {
		t.Fatalf("tailbound repair %v: %v, want status %d\n%s", args, err, status, said)
	}
	return string(said)
}

// TestRepair: a partition that has lost acknowledged records accepts no more until the loss is accepted, partition by partition; then it continues where it
// is broken. Other partitions are unchanged, and the files that are cut are copied first.
func TestRepair(t *testing.T) {
	needReal(t, "it has no disk")
	for _, x := range []struct {
		name string
		end  func(b *broker) error // of the life that wrote
		file string                // where its records lie then
	}{
		{"segments", (*broker).stop, "segments"},
		{"journal", func(b *broker) error { b.kill(); return nil }, "shard-00*"},
	} {
		t.Run(x.name, func(t *testing.T) {
			b := ownBroker(t)
			const sick, worse, sound = "sick", "worse", "sound"
			rotten := map[string]string{sick: strings.Repeat("this will rot ", 300), worse: strings.Repeat("this too ", 400)}
			for _, topic := range []string{sick, worse, sound} {
				leader := createTopic(t, b, topic, 1)
				mustProduce(t, dialTo(t, leader), topic, bytesOf(batchOf("before", "and before")))
			}
			for topic, what := range rotten {
				mustProduce(t, dialTo(t, leaderOf(t, b, topic, 0)), topic, bytesOf(batchOf(what)))
			}
			time.Sleep(100 * time.Millisecond) // a later frame says that those were durable
			for _, topic := range []string{sick, worse, sound} {
				mustProduce(t, dialTo(t, leaderOf(t, b, topic, 0)), topic, bytesOf(batchOf("after")))
			}
			b.repair(t, 2) // a broker runs on it
			if err := x.end(b); err != nil {
				t.Fatal(err)
			}
			folders, _ := filepath.Glob(filepath.Join(b.dir, x.file))
			for topic, what := range rotten {
				n := 0
				for _, folder := range folders {
					n += flip(t, folder, what)
				}
				if n == 0 {
					t.Fatalf("the record of %s is in no file of %s", topic, x.file)
				}
			}
			if err := b.check(); err == nil || !strings.Contains(err.Error(), "sick/0") {
				t.Fatalf("tailbound check: %v", err)
			}
			for look := range 2 { // looking changes nothing
				if look == 1 && x.name == "journal" {
					break // reading a journal takes a while
				}
				said := b.repair(t, 1)
				if !strings.Contains(said, "kept    records 0 to 1") || !strings.Contains(said, "--accept-loss sick/0 --accept-loss worse/0") || strings.Contains(said, sound+"/0") {
					t.Fatalf("tailbound repair:\n%s", said)
				}
				b.repair(t, 1, "--accept-loss", "sick/0", "--dry-run")
			}
			b.repair(t, 2, "--accept-loss", "sick/1")
			b.repair(t, 2, "--accept-loss", "sound/0")
			b.repair(t, 2, "--accept-loss", "(control)")
			said := b.repair(t, 1, "--accept-loss", "sick/0")
			if !strings.Contains(said, "cut: sick/0 has records 0 to 1, and takes more from 2 on") {
				t.Fatalf("tailbound repair:\n%s", said)
			}
			t.Log(said)
			if x.name == "segments" {
				kept, _ := filepath.Glob(filepath.Join(b.dir, "lost", "*", "log-*"))
				raw := []byte{}
				for _, path := range kept {
					more, _ := os.ReadFile(path)
					raw = append(raw, more...)
				}
				if !bytes.Contains(raw, []byte("after")) {
					t.Errorf("what was cut is not in %v", kept)
				}
			}
			for life := range 2 {
				if err := b.start(); err != nil {
					t.Fatal(err)
				}
				end := int64(2 + life)
				if base := mustProduce(t, dialTo(t, leaderOf(t, b, sick, 0)), sick, bytesOf(batchOf("again"))); base != end {
					t.Errorf("after the cut a record is at %d, want %d", base, end)
				}
				p := mustAsk[*kmsg.FetchResponse](t, dialTo(t, leaderOf(t, b, sick, 0)), fetchRequest(sick, 11, 0, time.Second)).Topics[0].Partitions[0]
				if p.ErrorCode != 0 || p.HighWatermark != end+1 || !bytes.Contains(p.RecordBatches, []byte("and before")) || bytes.Contains(p.RecordBatches, []byte("after")) {
					t.Errorf("the partition that was cut: error %d, up to %d", p.ErrorCode, p.HighWatermark)
				}
				if life == 0 {
					b.kill()
				}
			}
			if got := endOf(t, leaderOf(t, b, sound, 0), sound); got != 3 {
				t.Errorf("the sound partition ends at %d", got)
			}
			if err := b.stop(); err != nil {
				t.Fatal(err)
			}
			if said := b.repair(t, 0, "--accept-loss", "worse/0"); !strings.Contains(said, "cut: worse/0") {
				t.Fatalf("tailbound repair:\n%s", said)
			}
			if said := b.repair(t, 0); !strings.Contains(said, "nothing is broken") {
				t.Fatalf("tailbound repair:\n%s", said)
			}
			if err := b.check(); err != nil {
				t.Error(err)
			}
			if err := b.start(); err != nil {
				t.Fatal(err)
			}
			if base := mustProduce(t, dialTo(t, leaderOf(t, b, worse, 0)), worse, bytesOf(batchOf("again"))); base != 2 {
				t.Errorf("after the cut a record is at %d, want 2", base)
			}
		})
	}
}
