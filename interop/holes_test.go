package interop

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// holed is a broker that was killed, some of whose bytes changed then, and that was started again: partition 0 of holedTopic has lost the
// records of holedLost, in two ranges, of holedRecords.
func holed(t *testing.T) *broker {
	t.Helper()
	needReal(t, "it has no disk")
	b := ownBroker(t)
	leader := createTopic(t, b, holedTopic, 1)
	lost := map[int64]string{}
	for i := range int64(holedRecords) {
		value := fmt.Sprintf("record %d, ", i)
		value = strings.Repeat(value, 120_000/len(value)) // large: each is a run of its own in its segment
		if slices.Contains(holedLost, i) {
			lost[i] = value
		}
		batch := batchOf(value)
		batch.FirstTimestamp, batch.MaxTimestamp = holedTime(i), holedTime(i)
		if at := mustProduce(t, dialTo(t, leader), holedTopic, bytesOf(batch)); at != i {
			t.Fatalf("record %d is at %d", i, at)
		}
	}
	b.kill()
	for i, value := range lost {
		if flip(t, filepath.Join(b.dir, "segments"), value[:100_000]) == 0 {
			t.Fatalf("record %d is in no segment", i)
		}
	}
	if err := b.start(); err != nil {
		t.Fatal(err)
	}
	return b
}

const (
	holedTopic   = "holed"
	holedRecords = 20
)

var holedLost = []int64{6, 7, 13}

var holedSince = time.Now().Add(-time.Minute).UnixMilli()

func holedTime(record int64) int64 { return holedSince + record*1000 }

// holedWhole is the records that are not lost.
func holedWhole() (whole []int64) {
	for i := range int64(holedRecords) {
		if !slices.Contains(holedLost, i) {
			whole = append(whole, i)
		}
	}
	return whole
}

// leavesUnsound ends a broker whose directory stays unsound, which the end of the test must not call a fault.
func (b *broker) leavesUnsound(t *testing.T) {
	t.Helper()
	if err := b.stop(); err != nil {
		t.Error(err)
	}
}

// TestHoles: after kill -9 damage in a partition's newest segment takes what is damaged and nothing else. The partition keeps its offsets, and both sides of each
// hole are read, in later lives too. It is named where an operator looks, and takes no records until its start has passed the damage.
func TestHoles(t *testing.T) {
	b := holed(t)
	at := func(offset int64) kmsg.FetchResponseTopicPartition {
		t.Helper()
		req := fetchRequest(holedTopic, 11, offset, 100*time.Millisecond)
		return mustAsk[*kmsg.FetchResponse](t, dialTo(t, leaderOf(t, b, holedTopic, 0)), req).Topics[0].Partitions[0]
	}
	reads := func(from int64) {
		t.Helper()
		for i := from; i < holedRecords; i++ {
			switch p := at(i); {
			case slices.Contains(holedLost, i):
				if p.ErrorCode != kerr.CorruptMessage.Code || len(p.RecordBatches) > 0 {
					t.Errorf("a fetch of record %d, which is lost: error %d, %d bytes", i, p.ErrorCode, len(p.RecordBatches))
				}
			case p.ErrorCode != 0 || !strings.Contains(string(p.RecordBatches), fmt.Sprintf("record %d, ", i)):
				t.Errorf("a fetch of record %d: error %d, %d bytes", i, p.ErrorCode, len(p.RecordBatches))
			}
		}
		if p := at(holedRecords); p.ErrorCode != 0 || p.HighWatermark != holedRecords || p.LogStartOffset != from {
			t.Errorf("a fetch at the end: error %d, %d to %d", p.ErrorCode, p.LogStartOffset, p.HighWatermark)
		}
	}
	refuses := func() {
		t.Helper()
		p := mustAsk[*kmsg.ProduceResponse](t, dialTo(t, leaderOf(t, b, holedTopic, 0)), produceRequest(holedTopic, 8, -1, bytesOf(batchOf("more")))).Topics[0].Partitions[0]
		if p.ErrorCode != kerr.KafkaStorageError.Code {
			t.Errorf("a produce to a partition that has lost records: error %d", p.ErrorCode)
		}
	}
	reads(0)
	refuses()

	said := b.out.tail()
	for _, want := range []string{"offsets 6 to 7 are lost of holed/0", "offsets 13 to 13 are lost of holed/0", "segments/"} {
		if !strings.Contains(said, want) {
			t.Errorf("the log does not say %q:\n%s", want, said)
		}
	}
	var described []struct {
		Lost []struct {
			Partition int
			From, To  int64
			File      string
			At        int64
		}
	}
	out, err := exec.Command(b.binary, "topic", "describe", holedTopic, "--output", "json", "--brokers", b.addr()).Output()
	if err == nil {
		err = json.Unmarshal(out, &described)
	}
	if err != nil || len(described) != 1 || len(described[0].Lost) != 2 || described[0].Lost[0].From != 6 || described[0].Lost[0].To != 8 || described[0].Lost[1].From != 13 ||
		described[0].Lost[0].At == 0 || !strings.HasPrefix(described[0].Lost[0].File, "segments/") {
		t.Errorf("topic describe: %v, %+v\n%s", err, described, out)
	}

	ctx := within(t, time.Minute)
	adm := admin(t, b)
	for record, want := range map[int64]int64{0: 0, 5: 5, 6: 8, 7: 8, 12: 12, 13: 14, 19: 19} {
		found, err := adm.ListOffsetsAfterMilli(ctx, holedTime(record), holedTopic)
		if o, ok := found.Lookup(holedTopic, 0); err != nil || !ok || o.Err != nil || o.Offset != want {
			t.Errorf("the first record of the time of record %d: %+v %v, want %d", record, o, err, want)
		}
	}
	epochs := kmsg.NewPtrOffsetForLeaderEpochRequest()
	epochs.Version, epochs.ReplicaID = 3, -1
	asked := kmsg.NewOffsetForLeaderEpochRequestTopic()
	asked.Topic = holedTopic
	partition := kmsg.NewOffsetForLeaderEpochRequestTopicPartition()
	partition.LeaderEpoch = 1
	asked.Partitions = append(asked.Partitions, partition)
	epochs.Topics = append(epochs.Topics, asked)
	if p := mustAsk[*kmsg.OffsetForLeaderEpochResponse](t, dialTo(t, leaderOf(t, b, holedTopic, 0)), epochs).Topics[0].Partitions[0]; p.ErrorCode != 0 || p.EndOffset != holedRecords {
		t.Errorf("the first leader epoch: %+v", p)
	}

	for _, end := range []func() error{b.stop, func() error { b.kill(); return nil }} { // later lives know of it
		if err := end(); err != nil {
			t.Fatal(err)
		}
		if err := b.check(); err == nil || strings.Count(err.Error(), "PROBLEM: holed/0") != 2 {
			t.Errorf("tailbound check: %v", err)
		}
		if err := b.start(); err != nil {
			t.Fatal(err)
		}
		reads(0)
		refuses()
	}

	if err := b.stop(); err != nil {
		t.Fatal(err)
	}
	ways := b.repair(t, 1)
	for _, want := range []string{
		"kept    records 0 to 5", "lost    records 6 to 19; 3 of them are broken, and 11 are sound",
		"tailbound topic purge holed -p 0 --before 14", "kept    records 14 to 19", "lost    records 0 to 13; 3 of them are broken, and 11 are sound",
	} {
		if !strings.Contains(ways, want) {
			t.Errorf("tailbound repair does not say %q:\n%s", want, ways)
		}
	}
	if err := b.start(); err != nil {
		t.Fatal(err)
	}
	remove := func(before int64) {
		t.Helper()
		offsets := kadm.Offsets{}
		offsets.AddOffset(holedTopic, 0, before, -1)
		if deleted, err := admin(t, b).DeleteRecords(ctx, offsets); err != nil || deleted.Error() != nil {
			t.Fatal(err, deleted.Error())
		}
	}
	remove(10)
	refuses()
	reads(10)
	remove(14)
	if at := mustProduce(t, dialTo(t, leaderOf(t, b, holedTopic, 0)), holedTopic, bytesOf(batchOf("more"))); at != holedRecords {
		t.Errorf("the first record after the damage is deleted is at %d", at)
	}
	if said := b.out.tail(); !strings.Contains(said, "holed/0 takes records again") {
		t.Errorf("the log does not say that the partition takes records again:\n%s", said)
	}
	if err := b.stop(); err != nil {
		t.Fatal(err)
	}
	if err := b.check(); err != nil {
		t.Error(err)
	}
	if err := b.start(); err != nil { // ownBroker stops and checks it
		t.Fatal(err)
	}
}

// TestHolesFranz: franz-go reads over what is lost. It is told of the error, and set behind it.
func TestHolesFranz(t *testing.T) {
	t.Parallel()
	b := holed(t)
	defer b.leavesUnsound(t)
	c, err := kgo.NewClient(kgo.SeedBrokers(b.addr()), kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{holedTopic: {0: kgo.NewOffset().At(0)}}),
		kgo.KeepRetryableFetchErrors())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx := within(t, time.Minute)
	var read, lost []int64
	for next := int64(0); next < holedRecords; {
		fetches := c.PollFetches(ctx)
		if ctx.Err() != nil {
			t.Fatalf("read %v, told of %v", read, lost)
		}
		fetches.EachRecord(func(r *kgo.Record) { read, next = append(read, r.Offset), r.Offset+1 })
		for _, e := range fetches.Errors() {
			if !errors.Is(e.Err, kerr.CorruptMessage) {
				t.Fatal(e.Err)
			}
			if len(lost) == 0 || lost[len(lost)-1] != next {
				lost = append(lost, next)
			}
			next++
			c.SetOffsets(map[string]map[int32]kgo.EpochOffset{holedTopic: {0: {Epoch: -1, Offset: next}}})
		}
	}
	if !slices.Equal(read, holedWhole()) || !slices.Equal(lost, holedLost) {
		t.Errorf("read %v, told of %v", read, lost)
	}
}

// TestHolesKcat: kcat says what is wrong where it meets what is lost, and reads what is before it and behind it.
func TestHolesKcat(t *testing.T) {
	t.Parallel()
	path, err := exec.LookPath("kcat")
	if err != nil {
		t.Skip("kcat is not installed (Debian package kcat)")
	}
	b := holed(t)
	defer b.leavesUnsound(t)
	read := func(from string, limit time.Duration) (offsets []int64, said string, ended bool) {
		ctx, cancel := context.WithTimeout(context.Background(), limit)
		defer cancel()
		var warnings strings.Builder
		cmd := exec.CommandContext(ctx, path, "-b", b.addr(), "-t", holedTopic, "-C", "-e", "-o", from, "-f", "%o\n", "-X", "fetch.error.backoff.ms=10", "-u")
		cmd.Stderr = &warnings
		out, err := cmd.Output()
		for _, line := range strings.Fields(string(out)) {
			offset, _ := strconv.ParseInt(line, 10, 64)
			offsets = append(offsets, offset)
		}
		return offsets, warnings.String(), err == nil
	}
	for _, part := range []struct {
		from string
		want []int64
		ends bool
	}{{"beginning", []int64{0, 1, 2, 3, 4, 5}, false}, {"8", []int64{8, 9, 10, 11, 12}, false}, {"14", []int64{14, 15, 16, 17, 18, 19}, true}} {
		limit := time.Minute
		if !part.ends {
			limit = 5 * time.Second // it stays where it is told of the error
		}
		got, said, ended := read(part.from, limit)
		if !slices.Equal(got, part.want) || ended && !part.ends {
			t.Errorf("from %s kcat reads %v, and ends: %v\n%s", part.from, got, ended, said)
		}
		if !part.ends && !strings.Contains(strings.ToLower(said), "message") {
			t.Errorf("from %s kcat says nothing of what is lost:\n%s", part.from, said)
		}
	}
}

// TestHolesJava: Kafka's own consumer throws where it meets what is lost, and reads on when it has been set behind it.
func TestHolesJava(t *testing.T) {
	t.Parallel()
	classpath := javaProgram(t, &foreigns[0], "Holes")
	b := holed(t)
	defer b.leavesUnsound(t)
	cmd := java(within(t, 2*time.Minute), classpath, "Holes", b.addr(), holedTopic)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	var read, lost []int64
	for line := range strings.Lines(string(out)) {
		var offset int64
		if _, err := fmt.Sscanf(line, "read %d", &offset); err == nil {
			read = append(read, offset)
		} else if _, err := fmt.Sscanf(line, "lost %d", &offset); err == nil {
			lost = append(lost, offset)
		}
	}
	if !slices.Equal(read, holedWhole()) || !slices.Equal(lost, holedLost) || !strings.Contains(string(out), fmt.Sprintf("end %d", holedRecords)) {
		t.Errorf("read %v, told of %v:\n%s", read, lost, out)
	}
}
