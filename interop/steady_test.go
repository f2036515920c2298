package interop

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"io"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// usage is what `tailbound profile` says of a running broker's process.
type usage struct {
	Objects     uint64 `json:"heap_allocs_objects"`
	Profiles    uint64 `json:"profile_allocs_objects"`
	Bytes       uint64 `json:"heap_allocs_bytes"`
	Live        uint64 `json:"heap_live_bytes"`
	Limit       uint64 `json:"heap_limit_bytes"`
	Collections uint64 `json:"gc_cycles"`
	Resident    uint64 `json:"rss_bytes"`
}

func (b *broker) usage(t *testing.T) usage {
	t.Helper()
	said, err := exec.Command(b.binary, "profile", "--data-dir", b.dir, "--once", "--json").Output()
	if err != nil {
		t.Fatalf("tailbound profile: %v\n%s", err, said)
	}
	var all struct{ Process usage }
	if err := json.Unmarshal(said, &all); err != nil {
		t.Fatalf("tailbound profile: %v\n%s", err, said)
	}
	u := all.Process
	if u.Objects == 0 || u.Resident == 0 {
		t.Fatalf("the profile does not say what the process uses: %s", said)
	}
	return u
}

// TestSteady: a broker under steady load makes no garbage and takes no more memory: fewer than one heap object in a thousand requests, whole process.
func TestSteady(t *testing.T) {
	needReal(t, "its heap is ours")
	b := ownBroker(t, "--arena", "64MiB")
	const topic, window = "steady", 100
	// Asking twice takes 120 to 280 objects by itself, however many requests are between.
	const requests = 400_000
	leader := createTopic(t, b, topic, 1)
	w := dialTo(t, leader)
	records := bytesOf(batchOf(strings.Repeat("steady ", 20)))
	produce := frame(produceRequest(topic, 8, -1, records), 7)
	const mark = 0x1234567812345678
	fetch := frame(fetchRequest(topic, 11, mark, 0), 8)
	at := strings.Index(string(fetch), string(binary.BigEndian.AppendUint64(nil, mark)))
	in := bufio.NewReaderSize(w, 1<<20)
	out := make([]byte, 0, 1<<20)
	head := make([]byte, 4)
	offset := uint64(0)
	exchange := func(what string, n, least int) {
		w.SetDeadline(time.Now().Add(time.Minute))
		if _, err := w.Write(out); err != nil {
			t.Fatal(err)
		}
		for range n {
			if _, err := io.ReadFull(in, head); err != nil {
				t.Fatal(err)
			}
			size := int(binary.BigEndian.Uint32(head))
			if size < least {
				t.Fatalf("a %s is answered with %d bytes", what, size)
			}
			if _, err := in.Discard(size); err != nil {
				t.Fatal(err)
			}
		}
		out = out[:0]
	}
	// Half produces, half fetches of what was produced, pipelined.
	run := func(n int) {
		for ; n > 0; n -= 2 * window {
			for range window {
				out = append(out, produce...)
			}
			exchange("produce", window, 0)
			for range window {
				binary.BigEndian.PutUint64(fetch[at:], offset)
				out = append(out, fetch...)
				offset++
			}
			exchange("fetch", window, len(records))
		}
	}
	// Log memory is a cache that becomes resident as it is filled. From then on nothing grows.
	before := b.usage(t)
	for range 20 {
		run(requests / 4)
		u := b.usage(t)
		grown := u.Resident > before.Resident+1<<20
		if before = u; !grown {
			break
		}
	}
	run(requests)
	after := b.usage(t)
	objects := (after.Objects - after.Profiles) - (before.Objects - before.Profiles)
	t.Logf("%d requests: %d heap objects; resident %d KiB, then %d KiB", requests, objects, before.Resident>>10, after.Resident>>10)
	if objects > uint64(requests/1000) {
		t.Errorf("%d heap objects for %d requests", objects, requests)
	}
	if after.Resident > before.Resident+4<<20 {
		t.Errorf("resident memory grew from %d to %d KiB", before.Resident>>10, after.Resident>>10)
	}
}
