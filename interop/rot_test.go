package interop

import (
	"bytes"
	"io/fs"
	"os"
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
	flipped := 0
	filepath.WalkDir(filepath.Join(b.dir, "segments"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		raw, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for at := 0; ; {
			i := bytes.Index(raw[at:], []byte(rotten))
			if i < 0 {
				return nil
			}
			at += i + len(rotten)/2
			f, err := os.OpenFile(path, os.O_WRONLY, 0)
			if err != nil {
				return err
			}
			f.WriteAt([]byte{raw[at] ^ 4}, int64(at))
			f.Close()
			flipped++
		}
	})
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
	// The bit is put back by nobody: the directory stays unsound, and the end of the test must not call that a fault.
	if err := b.stop(); err != nil {
		t.Error(err)
	}
}
