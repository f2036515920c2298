package interop

import (
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
	"golang.org/x/sys/unix"
)

// smallDisk mounts a file system of its own, of so many bytes, made with these arguments.
func smallDisk(t *testing.T, kind string, size int64, args ...string) string {
	t.Helper()
	needReal(t, "it has no disk")
	if os.Geteuid() != 0 {
		t.Skip("mounting a small file system wants root")
	}
	mkfs, err := exec.LookPath("mkfs." + kind)
	if err != nil {
		t.Skipf("no mkfs.%s here", kind)
	}
	// Not the test's own directory: what is mounted below it must be gone before it is.
	top, err := os.MkdirTemp(tempRoot(), "small-disk-")
	if err != nil {
		t.Fatal(err)
	}
	image, at := filepath.Join(top, "image"), filepath.Join(top, "at")
	t.Cleanup(func() { os.Remove(image); os.Remove(at); os.Remove(top) })
	if err := os.Mkdir(at, 0o755); err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(image)
	if err == nil {
		err = f.Truncate(size)
		f.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	if said, err := exec.Command(mkfs, append(args, "-q", image)...).CombinedOutput(); err != nil {
		t.Skipf("mkfs.%s: %v: %s", kind, err, said)
	}
	if said, err := exec.Command("mount", "-o", "loop", image, at).CombinedOutput(); err != nil {
		t.Skipf("mounting a small file system: %v: %s", err, said)
	}
	t.Cleanup(func() {
		// The kernel closes a dead process's rings, and what they held open, a little later.
		err := unix.Unmount(at, 0)
		for limit := time.Now().Add(10 * time.Second); err == unix.EBUSY && time.Now().Before(limit); err = unix.Unmount(at, 0) {
			time.Sleep(20 * time.Millisecond)
		}
		if err != nil {
			unix.Unmount(at, unix.MNT_DETACH)
			t.Errorf("unmounting %s: %v", at, err)
		}
	})
	return filepath.Join(at, "data")
}

// brokerOn starts a broker on a disk of its own, whose end verifies that its data directory is sound.
func brokerOn(t *testing.T, dir string, args ...string) *broker {
	t.Helper()
	b, err := newBroker(dir, args...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the broker's output:\n%s", b.out.tail())
		}
		if b.alive() {
			if err := b.stop(); err != nil {
				t.Error(err)
			}
		}
		if err := b.check(); err != nil {
			t.Error(err)
		}
	})
	return b
}

// TestFullDisk: a full disk refuses what finds no room with KAFKA_STORAGE_ERROR, loses nothing, keeps no other topic from its own room, survives
// kill -9, and is over when a topic is deleted.
func TestFullDisk(t *testing.T) {
	for _, x := range []struct {
		name, kind string
		args       []string
	}{{"ext4", "ext4", nil}, {"xfs", "xfs", nil}, {"files kept ready", "ext4", []string{"--prepare", "128MiB"}}} {
		t.Run(x.name, func(t *testing.T) {
			dir := smallDisk(t, x.kind, 700<<20)
			b := brokerOn(t, dir, x.args...)
			const big, small = "big", "small"
			fill := bytesOf(batchOf(strings.Repeat("fill", 50_000)))
			word := bytesOf(batchOf("word"))
			produce := func(w *wire, topic string, records []byte) (int64, int16) {
				p := mustAsk[*kmsg.ProduceResponse](t, w, produceRequest(topic, 8, -1, records)).Topics[0].Partitions[0]
				return p.BaseOffset, p.ErrorCode
			}
			createTopic(t, b, small, 1)
			createTopic(t, b, big, 1)
			ws, wb := dialTo(t, leaderOf(t, b, small, 0)), dialTo(t, leaderOf(t, b, big, 0))
			words := 0
			say := func(when string) {
				t.Helper()
				if at, code := produce(ws, small, word); code != 0 || at != int64(words) {
					t.Fatalf("%s: the other topic gets offset %d, error %v; want %d", when, at, kerr.ErrorForCode(code), words)
				}
				words++
			}
			say("at first")
			full := func() (stored int64) {
				t.Helper()
				for n := range 10_000 {
					at, code := produce(wb, big, fill)
					if code == kerr.KafkaStorageError.Code {
						return stored
					}
					if code != 0 {
						t.Fatalf("batch %d: %v", n, kerr.ErrorForCode(code))
					}
					stored = at + 1
				}
				t.Fatal("the disk does not fill")
				return 0
			}
			stored := full()
			t.Logf("%d batches of 200 KB fit", stored)
			if stored < 100 {
				t.Errorf("only %d batches of 200 KB fit", stored)
			}
			for range 50 {
				say("on a full disk")
			}
			all := func(when string) {
				t.Helper()
				for at := int64(0); at < stored; {
					p := mustAsk[*kmsg.FetchResponse](t, wb, fetchRequest(big, 11, at, time.Second)).Topics[0].Partitions[0]
					if p.ErrorCode != 0 || len(p.RecordBatches) < len(fill) {
						t.Fatalf("%s: offset %d of %d: %v, %d bytes", when, at, stored, kerr.ErrorForCode(p.ErrorCode), len(p.RecordBatches))
					}
					for rest := p.RecordBatches; len(rest) >= len(fill); rest = rest[len(fill):] {
						if string(rest[61:len(fill)]) != string(fill[61:]) {
							t.Fatalf("%s: offset %d has other bytes", when, at)
						}
						at++
					}
				}
			}
			all("on a full disk")
			b.kill()
			if err := b.start(); err != nil {
				t.Fatalf("a full disk keeps the broker from starting: %v", err)
			}
			ws, wb = dialTo(t, leaderOf(t, b, small, 0)), dialTo(t, leaderOf(t, b, big, 0))
			all("after kill -9")
			say("after kill -9")
			if end := endOf(t, leaderOf(t, b, big, 0), big); end != stored {
				t.Fatalf("after kill -9 the log ends at %d, not %d", end, stored)
			}
			gone := kmsg.NewPtrDeleteTopicsRequest()
			gone.Version, gone.TopicNames, gone.TimeoutMillis = 3, []string{big}, 10_000
			if code := mustAsk[*kmsg.DeleteTopicsResponse](t, dialTo(t, b.addr()), gone).Topics[0].ErrorCode; code != 0 {
				t.Fatalf("deleting a topic on a full disk: %v", kerr.ErrorForCode(code))
			}
			const again = "again"
			createTopic(t, b, again, 1)
			wa := dialTo(t, leaderOf(t, b, again, 0))
			ok := 0
			for limit := time.Now().Add(20 * time.Second); ok < 50; {
				switch _, code := produce(wa, again, fill); {
				case code == 0:
					ok++
				case code != kerr.KafkaStorageError.Code || time.Now().After(limit):
					t.Fatalf("after a delete: %v, %d batches in", kerr.ErrorForCode(code), ok)
				default:
					time.Sleep(20 * time.Millisecond)
				}
			}
			say("at last")
		})
	}
}

// TestSmallDiskUnderLoad: 400 MB, on which journals take less than they would elsewhere, are filled by several producers at once. Each batch is stored or refused
// with KAFKA_STORAGE_ERROR; whatever was acknowledged is there, also after kill -9 and a start on the full disk; and when a topic is deleted the others go
// on by themselves.
func TestSmallDiskUnderLoad(t *testing.T) {
	dir := smallDisk(t, "ext4", 400<<20)
	b := brokerOn(t, dir)
	topics := []string{"first", "second", "third", "fourth"}
	sizes := []int{300, 5_000, 50_000, 400_000} // of a batch's record
	stored := make([][]int64, len(topics))      // offsets of the batches that were acknowledged: each is its serial number in its record
	for _, topic := range topics {
		createTopic(t, b, topic, 1)
	}
	record := func(i int, serial int64) string {
		return fmt.Sprintf("%012d", serial) + strings.Repeat("x", sizes[i])
	}
	// load has every producer go on until it was refused, or for so long where it is not.
	load := func(d time.Duration) (refusals []int) {
		refusals = make([]int, len(topics))
		var all sync.WaitGroup
		for i, topic := range topics {
			leader := leaderOf(t, b, topic, 0)
			all.Go(func() {
				w, err := dial(leader)
				if err != nil {
					t.Error(err)
					return
				}
				defer w.Close()
				w.SetDeadline(time.Now().Add(2 * time.Minute))
				for end := time.Now().Add(d); time.Now().Before(end) && refusals[i] < 3; {
					next := int64(len(stored[i]))
					resp, err := w.ask(produceRequest(topic, 8, -1, bytesOf(batchOf(record(i, next)))))
					if err != nil {
						t.Errorf("%s, batch %d: %v", topic, next, err)
						return
					}
					switch p := resp.(*kmsg.ProduceResponse).Topics[0].Partitions[0]; {
					case p.ErrorCode == 0:
						stored[i] = append(stored[i], p.BaseOffset)
					case p.ErrorCode == kerr.KafkaStorageError.Code:
						refusals[i]++
						time.Sleep(20 * time.Millisecond)
					default:
						t.Errorf("%s, batch %d: %v", topic, next, kerr.ErrorForCode(p.ErrorCode))
						return
					}
				}
			})
		}
		all.Wait()
		return refusals
	}
	there := func(when string, topics []string) {
		t.Helper()
		for i, topic := range topics {
			if len(stored[i]) == 0 {
				continue
			}
			w := dialTo(t, leaderOf(t, b, topic, 0))
			w.SetDeadline(time.Now().Add(time.Minute))
			next := 0
			for at := stored[i][0]; next < len(stored[i]); {
				p := mustAsk[*kmsg.FetchResponse](t, w, fetchRequest(topic, 11, at, time.Second)).Topics[0].Partitions[0]
				if p.ErrorCode != 0 || len(p.RecordBatches) < 61 {
					t.Fatalf("%s: %s, offset %d of %d: %v, %d bytes", when, topic, at, len(stored[i]), kerr.ErrorForCode(p.ErrorCode), len(p.RecordBatches))
				}
				for rest := p.RecordBatches; len(rest) >= 61; {
					n := int(binary.BigEndian.Uint32(rest[8:])) + 12
					if n > len(rest) {
						break
					}
					base := int64(binary.BigEndian.Uint64(rest))
					if next < len(stored[i]) && base == stored[i][next] {
						if !strings.Contains(string(rest[:n]), record(i, int64(next))) {
							t.Fatalf("%s: %s, offset %d is not what was acknowledged there", when, topic, base)
						}
						next++
					} else if next < len(stored[i]) && base > stored[i][next] {
						t.Fatalf("%s: %s, offset %d was acknowledged and is not there", when, topic, stored[i][next])
					}
					at, rest = base+1, rest[n:]
				}
			}
		}
	}
	refusals := load(time.Minute)
	if t.Failed() {
		return
	}
	bytes, refused := 0, 0
	for i := range topics {
		bytes += len(stored[i]) * sizes[i]
		refused += refusals[i]
	}
	t.Logf("%d MB of records fit, %v refusals", bytes>>20, refusals)
	if bytes < 100<<20 || refused == 0 {
		t.Errorf("%d MB of records were stored before the disk was full, %d batches refused", bytes>>20, refused)
	}
	there("on the full disk", topics)
	b.kill()
	if err := b.start(); err != nil {
		t.Fatalf("a full disk keeps the broker from starting: %v", err)
	}
	there("after kill -9", topics)
	gone := kmsg.NewPtrDeleteTopicsRequest()
	gone.Version, gone.TopicNames, gone.TimeoutMillis = 3, []string{topics[3]}, 10_000
	if code := mustAsk[*kmsg.DeleteTopicsResponse](t, dialTo(t, b.addr()), gone).Topics[0].ErrorCode; code != 0 {
		t.Fatalf("deleting a topic on a full disk: %v", kerr.ErrorForCode(code))
	}
	topics = topics[:3]
	before := make([]int, len(topics))
	for i := range topics {
		before[i] = len(stored[i])
	}
	for i, limit := 0, time.Now().Add(30*time.Second); i < len(topics); {
		load(300 * time.Millisecond)
		if t.Failed() {
			return
		}
		for i < len(topics) && len(stored[i]) > before[i] {
			i++
		}
		if i < len(topics) && time.Now().After(limit) {
			t.Fatalf("there is room again, and %s takes nothing", topics[i])
		}
	}
	there("at last", topics)
}

// doesNotStart has a broker refuse to start, and say what of.
func doesNotStart(t *testing.T, dir string, wants []string, args ...string) {
	t.Helper()
	b, err := newBroker(dir, args...)
	if err == nil {
		b.kill()
		t.Fatalf("it starts with %q", args)
	}
	for _, want := range wants {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("it does not speak of %q: %v", want, err)
		}
	}
}

// TestPrepareDoesNotFit: a disk that cannot hold what is to be kept ready is told of.
func TestPrepareDoesNotFit(t *testing.T) {
	doesNotStart(t, smallDisk(t, "ext4", 300<<20), []string{"--prepare", "256MiB", "half"}, "--journal", "8MiB", "--prepare", "256MiB")
}

// TestJournalDoesNotFit: a disk that cannot hold the journals is told of before anything is made there.
func TestJournalDoesNotFit(t *testing.T) {
	dir := smallDisk(t, "ext4", 100<<20)
	doesNotStart(t, dir, []string{"--journal", "80MiB", "free"}, "--journal", "80MiB")
	if names, _ := filepath.Glob(filepath.Join(dir, "*")); slices.ContainsFunc(names, func(n string) bool { return strings.Contains(n, "shard") }) {
		t.Errorf("and left behind %v", names)
	}
}
