package interop

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
	"golang.org/x/sys/unix"
)

// ballast fills a file system to the last block and the last inode, and says what it made: a file of all free blocks, and empty ones. Their names begin with
// that of the round. Inodes go first, as names need blocks.
func ballast(t *testing.T, at, round string) (files []string) {
	t.Helper()
	path := filepath.Join(at, round+"-blocks")
	blocks, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o600)
	if errors.Is(err, unix.ENOSPC) {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	defer blocks.Close()
	files = append(files, path)
	inodes := func(most int) {
		for len(files) < most {
			path := filepath.Join(at, fmt.Sprintf("%s-inode-%d", round, len(files)))
			f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o600)
			if errors.Is(err, unix.ENOSPC) {
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			f.Close()
			files = append(files, path)
		}
	}
	end := int64(0)
	fill := func() {
		for size := int64(256 << 20); size >= 4096; {
			switch err := unix.Fallocate(int(blocks.Fd()), 0, end, size); {
			case err == nil:
				end += size
			case err == unix.ENOSPC:
				size /= 2
			case err != unix.EINTR:
				t.Fatal(err)
			}
		}
	}
	inodes(2000) // all that an ext4 of ballastInodes has; those of XFS are made as long as there are blocks
	fill()
	inodes(200_000)
	fill()
	blocks.Sync()
	return files
}

// ballastInodes have mkfs.ext4 make few inodes, so that a test can use them up.
var ballastInodes = map[string][]string{"ext4": {"-N", "1024"}}

// said waits until the broker has said something, so many times.
func (b *broker) said(t *testing.T, text string, times int) {
	t.Helper()
	for limit := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		b.out.mu.Lock()
		n := strings.Count(b.out.said.String(), text)
		b.out.mu.Unlock()
		switch {
		case n == times:
			return
		case n > times:
			t.Fatalf("it says %q %d times, not %d", text, n, times)
		case time.Now().After(limit):
			t.Fatalf("it does not say %q, but\n%s", text, b.out.tail())
		}
	}
}

// TestCommitsOnAFullDisk: on a full disk offsets are committed as long as they replace others, many times what the control log has room for; the operator
// is told in the log and in the metrics; and whatever makes room is done.
func TestCommitsOnAFullDisk(t *testing.T) {
	kinds := []string{"ext4"}
	if os.Getenv("TAILBOUND_TESTS") == "long" {
		kinds = append(kinds, "xfs")
	}
	for _, kind := range kinds {
		t.Run(kind, func(t *testing.T) { commitOnAFullDisk(t, kind) })
	}
}

func commitOnAFullDisk(t *testing.T, kind string) {
	const kept, big, group, idle, partitions = "kept", "big", "group", "idle", 8
	dir := smallDisk(t, kind, 400<<20, ballastInodes[kind]...)
	metrics, err := freePorts(1)
	if err != nil {
		t.Fatal(err)
	}
	b := brokerOn(t, dir, "--metrics-listen", fmt.Sprintf("127.0.0.1:%d", metrics))
	createTopic(t, b, kept, partitions)
	createTopic(t, b, big, 1)
	offset := int64(0)
	metadata := strings.Repeat("m", 2000)
	commit := func(group string) {
		t.Helper()
		offset++
		req := kmsg.NewPtrOffsetCommitRequest()
		req.Version, req.Group, req.Generation = 7, group, -1
		topic := kmsg.NewOffsetCommitRequestTopic()
		topic.Topic = kept
		for i := range int32(partitions) {
			p := kmsg.NewOffsetCommitRequestTopicPartition()
			p.Partition, p.Offset, p.Metadata = i, offset, &metadata
			topic.Partitions = append(topic.Partitions, p)
		}
		req.Topics = append(req.Topics, topic)
		for _, p := range mustAsk[*kmsg.OffsetCommitResponse](t, dialTo(t, b.addr()), req).Topics[0].Partitions {
			if p.ErrorCode != 0 {
				t.Fatalf("commit %d: %v", offset, kerr.ErrorForCode(p.ErrorCode))
			}
		}
	}
	committed := func() int64 {
		t.Helper()
		req := kmsg.NewPtrOffsetFetchRequest()
		req.Version, req.Group = 5, group
		resp := mustAsk[*kmsg.OffsetFetchResponse](t, dialTo(t, b.addr()), req)
		if resp.ErrorCode != 0 || len(resp.Topics) != 1 || len(resp.Topics[0].Partitions) != partitions {
			t.Fatalf("the group's offsets: %+v", resp)
		}
		return resp.Topics[0].Partitions[partitions-1].Offset
	}
	produce := func(topic string, size int) int16 {
		t.Helper()
		w := dialTo(t, leaderOf(t, b, topic, 0))
		return mustAsk[*kmsg.ProduceResponse](t, w, produceRequest(topic, 8, -1, bytesOf(batchOf(strings.Repeat("x", size))))).Topics[0].Partitions[0].ErrorCode
	}
	commit(idle)
	commit(group)
	// The control log has its segment, and the next one: in time of peace.
	for limit := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if files, _ := filepath.Glob(filepath.Join(dir, "segments", "*")); len(files) >= 2 {
			break
		}
		if time.Now().After(limit) {
			t.Fatal("the control log has no second segment")
		}
	}
	for _, topic := range []string{kept, big} {
		if code := produce(topic, 1000); code != 0 {
			t.Fatal(kerr.ErrorForCode(code))
		}
	}
	ballast(t, filepath.Dir(dir), "first")
	for refused := 0; refused < 3; {
		switch code := produce(big, 100_000); code {
		case 0:
		case kerr.KafkaStorageError.Code:
			refused++
		default:
			t.Fatal(kerr.ErrorForCode(code))
		}
	}
	for range 400 { // of 16 KB: six times what is there for them
		commit(group)
	}
	b.said(t, "the disk is full", 1)
	answer, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/metrics", metrics))
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(answer.Body)
	answer.Body.Close()
	if err != nil || !strings.Contains(string(text), `pool="short of room"`) || !strings.Contains(string(text), "tailbound_disk_free_bytes") ||
		!strings.Contains(sumOf(string(text), "tailbound_no_room_total"), "some") || !strings.Contains(sumOf(string(text), `tailbound_pool_used{pool="short of room"`), "some") {
		t.Errorf("the metrics do not say it: %v\n%s", err, text)
	}
	b.kill()
	ballast(t, filepath.Dir(dir), "second") // what the broker has let go
	if err := b.start(); err != nil {
		t.Fatalf("a full disk keeps the broker from starting: %v", err)
	}
	if at := committed(); at != offset {
		t.Fatalf("the group has committed %d, and after kill -9 it is %d", offset, at)
	}
	for range 50 {
		commit(group)
	}
	w := dialTo(t, b.addr())
	alter := kmsg.NewPtrIncrementalAlterConfigsRequest()
	resource := kmsg.NewIncrementalAlterConfigsRequestResource()
	resource.ResourceType, resource.ResourceName = kmsg.ConfigResourceTypeTopic, big
	config := kmsg.NewIncrementalAlterConfigsRequestResourceConfig()
	config.Name, config.Value = "retention.ms", kmsg.StringPtr("3600000")
	resource.Configs = append(resource.Configs, config)
	alter.Resources = append(alter.Resources, resource)
	if code := mustAsk[*kmsg.IncrementalAlterConfigsResponse](t, w, alter).Resources[0].ErrorCode; code != 0 {
		t.Errorf("lowering retention.ms: %v", kerr.ErrorForCode(code))
	}
	drop := kmsg.NewPtrDeleteGroupsRequest()
	drop.Groups = []string{idle}
	if code := mustAsk[*kmsg.DeleteGroupsResponse](t, w, drop).Groups[0].ErrorCode; code != 0 {
		t.Errorf("deleting a group: %v", kerr.ErrorForCode(code))
	}
	purge := kmsg.NewPtrDeleteRecordsRequest()
	purge.TimeoutMillis = 10_000
	part := kmsg.NewDeleteRecordsRequestTopicPartition()
	part.Offset = -1
	topic := kmsg.NewDeleteRecordsRequestTopic()
	topic.Topic, topic.Partitions = big, append(topic.Partitions, part)
	purge.Topics = append(purge.Topics, topic)
	if code := mustAsk[*kmsg.DeleteRecordsResponse](t, dialTo(t, leaderOf(t, b, big, 0)), purge).Topics[0].Partitions[0].ErrorCode; code != 0 {
		t.Errorf("deleting records: %v", kerr.ErrorForCode(code))
	}
	gone := kmsg.NewPtrDeleteTopicsRequest()
	gone.Version, gone.TopicNames, gone.TimeoutMillis = 3, []string{big}, 10_000
	if code := mustAsk[*kmsg.DeleteTopicsResponse](t, w, gone).Topics[0].ErrorCode; code != 0 {
		t.Fatalf("deleting a topic: %v", kerr.ErrorForCode(code))
	}
	for limit := time.Now().Add(20 * time.Second); produce(kept, 500_000) != 0; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatal("there is no room after a topic was deleted")
		}
	}
	if at := committed(); at != offset {
		t.Errorf("the group has committed %d, and at last it is %d", offset, at)
	}
}

// sumOf says whether any of a metric's values is above 0: "some" or "none".
func sumOf(text, metric string) string {
	for _, line := range strings.Split(text, "\n") {
		if strings.HasPrefix(line, metric) && !strings.HasSuffix(line, " 0") {
			return "some"
		}
	}
	return "none"
}

// TestStartWithoutAnInode: a broker starts, and serves all that it has, on a disk that is full to the last block and inode, though after a power cut neither its
// socket nor its lock may be there. What it does without is said, and tried again.
func TestStartWithoutAnInode(t *testing.T) {
	kinds := []string{"xfs"}
	if os.Getenv("TAILBOUND_TESTS") == "long" {
		kinds = append(kinds, "ext4")
	}
	for _, kind := range kinds {
		t.Run(kind, func(t *testing.T) {
			const topic, records = "there", 50
			dir := smallDisk(t, kind, 400<<20, ballastInodes[kind]...)
			b := brokerOn(t, dir, "--journal", "8MiB")
			createTopic(t, b, topic, 1)
			w := dialTo(t, leaderOf(t, b, topic, 0))
			produce := func() int16 {
				t.Helper()
				return mustAsk[*kmsg.ProduceResponse](t, w, produceRequest(topic, 8, -1, bytesOf(batchOf("word")))).Topics[0].Partitions[0].ErrorCode
			}
			for range records {
				if code := produce(); code != 0 {
					t.Fatal(kerr.ErrorForCode(code))
				}
			}
			b.kill()
			for _, name := range []string{"profile.sock", "LOCK"} {
				if err := os.Remove(filepath.Join(dir, name)); err != nil {
					t.Fatal(err)
				}
			}
			files := ballast(t, filepath.Dir(dir), "first")
			b.flags = []string{"--journal", "16MiB"}
			if err := b.start(); err != nil {
				t.Fatalf("a disk without an inode keeps the broker from starting: %v", err)
			}
			b.said(t, "the socket of `tailbound profile` is not served", 1)
			b.said(t, "the directory itself is locked", 1)
			b.said(t, "the journal has 8388608 bytes, of 16777216 that are asked for", b.shards)
			if other, err := newBroker(dir); err == nil {
				other.kill()
				t.Fatal("two brokers serve the directory")
			} else if !strings.Contains(err.Error(), "is in use") {
				t.Fatalf("a second broker: %v", err)
			}
			w = dialTo(t, leaderOf(t, b, topic, 0))
			if end := endOf(t, leaderOf(t, b, topic, 0), topic); end != records {
				t.Fatalf("the log ends at %d, not %d", end, records)
			}
			if code := produce(); code != 0 {
				t.Errorf("the room that the partition has is not used: %v", kerr.ErrorForCode(code))
			}
			for _, file := range files {
				if err := os.Remove(file); err != nil {
					t.Fatal(err)
				}
			}
			b.said(t, "the socket of `tailbound profile` is served now", 1)
			if said, err := exec.Command(b.binary, "profile", "--data-dir", dir, "--once").CombinedOutput(); err != nil || !strings.Contains(string(said), "inodes free") {
				t.Errorf("profile: %v\n%s", err, said)
			}
		})
	}
}
