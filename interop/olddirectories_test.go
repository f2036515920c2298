package interop

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Data directories of earlier versions lie packed in testdata/directories, each beside what a client saw in it: every version opens them and loses nothing.
// Of each version that changes what is on disk another pair is packed, named by its
// commit or release, and the older ones stay:
//
//	TAILBOUND_BIN=/path/to/that/tailbound TAILBOUND_PACK=NAME go test -count=1 -run TestPackDirectories .
const oldDirectories = "testdata/directories"

// oldFlags are what those directories were and are served with: small files pack well.
var oldFlags = []string{"--arena", "64MiB", "--journal", "8MiB", "--retention-check-interval", "50ms"}

// A picture is all that a client can tell of a broker.
type picture struct {
	Tailbound    string                       `json:"tailbound"` // the version that left the directory
	Topics       map[string]pictureTopic      `json:"topics"`
	Gone         []string                     `json:"gone"` // topics that were deleted
	Groups       map[string]pictureGroup      `json:"groups"`
	GroupConfigs map[string]map[string]string `json:"group_configs"`
	Brokers      map[string]map[string]string `json:"brokers"` // dynamic configurations, by node; "" is all of them
	ProducerID   int64                        `json:"producer_id"`
	Duplicates   []pictureBatch               `json:"duplicates"` // what is sent again is known, and where it is
}

type pictureTopic struct {
	ID         string             `json:"id"`
	Configs    map[string]string  `json:"configs"`
	Partitions []picturePartition `json:"partitions"`
}

// picturePartition: SHA256 is of all its records, one after another, with offset, epoch, codec, time, key, value and headers.
type picturePartition struct {
	Start   int64  `json:"start"`
	End     int64  `json:"end"`
	Records int    `json:"records"`
	SHA256  string `json:"sha256"`
	Last    string `json:"last"` // its last record, to find a difference by eye
}

type pictureGroup struct {
	Kind     string            `json:"kind"`
	State    string            `json:"state"`
	Members  []string          `json:"members"`
	Offsets  map[string]string `json:"offsets"`  // TOPIC/PARTITION: offset, leader epoch
	Metadata string            `json:"metadata"` // SHA256 of all offsets' metadata
}

// pictureBatch is one batch of an idempotent producer, of partition 0: a single record.
type pictureBatch struct {
	Topic    string `json:"topic"`
	Producer int64  `json:"producer"`
	Epoch    int16  `json:"epoch"`
	Sequence int32  `json:"sequence"`
	Base     int64  `json:"base"`
}

func (d pictureBatch) bytes() []byte {
	b := batchOf(fmt.Sprintf("number %d of producer %d", d.Sequence, d.Producer))
	b.FirstTimestamp, b.MaxTimestamp = 1_790_000_000_000, 1_790_000_000_000
	b.ProducerID, b.ProducerEpoch, b.FirstSequence = d.Producer, d.Epoch, d.Sequence
	return bytesOf(b)
}

// TestOldDirectories: a directory that an earlier version left, stopped cleanly or killed, opens with everything in it, takes more, and is sound after
// a clean stop and after kill -9, with as many shards and with more.
func TestOldDirectories(t *testing.T) {
	needReal(t, "it has no directory")
	packed, err := filepath.Glob(filepath.Join(oldDirectories, "*.tar.gz"))
	if err != nil || len(packed) < 2 {
		t.Fatalf("no packed directories: %v", err)
	}
	for _, path := range packed {
		name := strings.TrimSuffix(filepath.Base(path), ".tar.gz")
		for _, shards := range []int{dataShards, dataShards + 1} {
			t.Run(fmt.Sprintf("%s/%d", name, shards), func(t *testing.T) {
				t.Parallel()
				text, err := os.ReadFile(filepath.Join(oldDirectories, name+".json"))
				if err != nil {
					t.Fatal(err)
				}
				var want picture
				if err := json.Unmarshal(text, &want); err != nil {
					t.Fatal(err)
				}
				dir := t.TempDir()
				if root := tempRoot(); root != "" {
					if dir, err = os.MkdirTemp(root, "old-"); err != nil {
						t.Fatal(err)
					}
					t.Cleanup(func() { os.RemoveAll(dir) })
				}
				unpack(t, path, dir)
				opensOld(t, dir, shards, &want)
			})
		}
	}
}

func opensOld(t *testing.T, dir string, shards int, want *picture) {
	b := &broker{dir: dir, shards: shards, flags: oldFlags, out: &output{}}
	var err error
	if b.binary, err = binaryPath(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the broker's output:\n%s", b.out.tail())
		}
		if b.cmd != nil && b.alive() {
			b.kill()
		}
	})
	if err := b.check(); err != nil {
		t.Errorf("before it is opened: %v", err)
	}
	for try := 0; ; try++ { // a port may be taken meanwhile
		if b.port, err = freePorts(1 + portsSpare + dataShards); err != nil {
			t.Fatal(err)
		}
		if err = b.start(); err == nil {
			break
		}
		if try == 2 {
			t.Fatal(err)
		}
	}
	compare(t, "opened", want, takePicture(t, b, want))
	for _, d := range want.Duplicates {
		p := mustAsk[*kmsg.ProduceResponse](t, dialTo(t, leaderOf(t, b, d.Topic, 0)), produceRequest(d.Topic, 8, -1, d.bytes())).Topics[0].Partitions[0]
		if p.ErrorCode != 0 || p.BaseOffset != d.Base {
			t.Errorf("batch %d of producer %d, sent again, is at %d, error %d; it was at %d", d.Sequence, d.Producer, p.BaseOffset, p.ErrorCode, d.Base)
		}
	}
	if id := newProducer(t, b); id <= want.ProducerID {
		t.Errorf("producer id %d is given out again, after %d", id, want.ProducerID)
	}
	// What is there takes more, and keeps it.
	more := func(life string) map[string]int64 {
		stored := map[string]int64{}
		c := producerOf(t, b)
		defer c.Close()
		for name, topic := range want.Topics {
			for p := range topic.Partitions {
				value := life + strings.Repeat(" more", 20+len(stored)%2*16_000) // by the journal, and past it
				r := &kgo.Record{Topic: name, Partition: int32(p), Value: []byte(value)}
				if err := c.ProduceSync(within(t, time.Minute), r).FirstErr(); err != nil {
					t.Fatalf("%s/%d takes no more: %v", name, p, err)
				}
				stored[fmt.Sprintf("%s/%d", name, p)] = r.Offset
			}
		}
		return stored
	}
	first := more("first")
	for name, topic := range want.Topics {
		for p, part := range topic.Partitions {
			if at := first[fmt.Sprintf("%s/%d", name, p)]; at != part.End {
				t.Errorf("%s/%d goes on at %d, not at %d", name, p, at, part.End)
			}
		}
	}
	if err := b.stop(); err != nil {
		t.Fatal(err)
	}
	if err := b.check(); err != nil {
		t.Error(err)
	}
	if n := strings.Count(b.out.tail(), raisedLine); n != 1 {
		t.Errorf("that the directory is raised is said %d times:\n%s", n, b.out.tail())
	}
	if err := b.start(); err != nil {
		t.Fatal(err)
	}
	compare(t, "after a clean stop", want, takePicture(t, b, want))
	more("second")
	b.kill()
	if err := b.start(); err != nil {
		t.Fatal(err)
	}
	compare(t, "after kill -9", want, takePicture(t, b, want))
	for name, topic := range want.Topics {
		for p, part := range topic.Partitions {
			rs := readAll(t, b, name, int32(p), part.End, part.End+2)
			if len(rs) != 2 || !strings.HasPrefix(string(rs[0].Value), "first more") || !strings.HasPrefix(string(rs[1].Value), "second more") {
				t.Errorf("%s/%d: what was produced since is not there: %d records", name, p, len(rs))
			}
		}
	}
	if err := b.stop(); err != nil {
		t.Fatal(err)
	}
	if err := b.check(); err != nil {
		t.Error(err)
	}
	if n := strings.Count(b.out.tail(), raisedLine); n != 1 {
		t.Errorf("that the directory is raised is said %d times in three lives:\n%s", n, b.out.tail())
	}
}

// raisedLine is what the opening of a former version's directory says, once.
const raisedLine = "the data directory is raised: versions of Tailbound before"

// compare says where two pictures differ, a line each.
func compare(t *testing.T, when string, want, got *picture) {
	t.Helper()
	lines := func(p *picture) map[string]string {
		out := map[string]string{"gone": fmt.Sprint(p.Gone)}
		for name, topic := range p.Topics {
			out["topic "+name] = fmt.Sprint(topic.ID, topic.Configs, len(topic.Partitions))
			for i, part := range topic.Partitions {
				out[fmt.Sprintf("partition %s/%d", name, i)] = fmt.Sprintf("%+v", part)
			}
		}
		for name, g := range p.Groups {
			out["group "+name] = fmt.Sprintf("%+v", g)
		}
		for name, c := range p.GroupConfigs {
			out["configurations of group "+name] = fmt.Sprint(c)
		}
		for node, c := range p.Brokers {
			out["configurations of node "+node] = fmt.Sprint(c)
		}
		return out
	}
	w, g := lines(want), lines(got)
	for _, k := range slices.Sorted(maps.Keys(w)) {
		if g[k] != w[k] {
			t.Errorf("%s: %s: it was\n%s\nand is\n%s", when, k, w[k], g[k])
		}
	}
	for k, v := range g {
		if _, ok := w[k]; !ok {
			t.Errorf("%s: %s was not there: %s", when, k, v)
		}
	}
}

// takePicture asks a broker for all of it. Of a partition that is in old it reads to where that ended: what came later is not of the picture.
func takePicture(t *testing.T, b *broker, old *picture) *picture {
	t.Helper()
	ctx := within(t, 2*time.Minute)
	adm := admin(t, b)
	p := &picture{Topics: map[string]pictureTopic{}, Groups: map[string]pictureGroup{}, GroupConfigs: map[string]map[string]string{}, Brokers: map[string]map[string]string{}}
	fail := func(what string, err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
	// Groups first: a member that does not come back is out after its session.
	groups, err := adm.ListGroups(ctx)
	fail("listing groups", err)
	modern, err := adm.ListGroupsByType(ctx, []string{"consumer"})
	fail("listing groups", err)
	for _, listed := range groups {
		kind := "classic"
		if _, ok := modern[listed.Group]; ok {
			kind = "consumer"
		}
		g := pictureGroup{Kind: kind, State: listed.State, Members: []string{}, Offsets: map[string]string{}}
		if kind == "consumer" {
			ds, err := adm.DescribeConsumerGroups(ctx, listed.Group)
			fail("describing a group", err)
			for _, m := range ds[listed.Group].Members {
				g.Members = append(g.Members, fmt.Sprintf("%s %s epoch %d %v", m.MemberID, deref(m.InstanceID), m.MemberEpoch, m.Assignment))
			}
		} else {
			ds, err := adm.DescribeGroups(ctx, listed.Group)
			fail("describing a group", err)
			for _, m := range ds[listed.Group].Members {
				as, _ := m.Assigned.AsConsumer()
				line := fmt.Sprintf("%s %s", m.MemberID, deref(m.InstanceID))
				if as != nil {
					for _, a := range as.Topics {
						line += fmt.Sprintf(" %s %v", a.Topic, a.Partitions)
					}
				}
				g.Members = append(g.Members, line)
			}
		}
		slices.Sort(g.Members)
		offsets, err := adm.FetchOffsets(ctx, listed.Group)
		fail("fetching offsets", err)
		sum := sha256.New()
		for _, o := range offsets.Sorted() {
			g.Offsets[fmt.Sprintf("%s/%d", o.Topic, o.Partition)] = fmt.Sprintf("%d in epoch %d", o.At, o.LeaderEpoch)
			fmt.Fprintf(sum, "%s\n", o.Metadata)
		}
		g.Metadata = hex.EncodeToString(sum.Sum(nil))
		p.Groups[listed.Group] = g
	}
	for _, group := range []string{"static", "modern", "modern-static"} {
		p.GroupConfigs[group] = groupConfigs(t, b, group)
	}
	for _, nodes := range [][]int32{nil, {0}, {1}, {2}} {
		rs, err := adm.DescribeBrokerConfigs(ctx, nodes...)
		fail("describing brokers", err)
		name := ""
		if nodes != nil {
			name = fmt.Sprint(nodes[0])
		}
		p.Brokers[name] = map[string]string{}
		for _, c := range rs[0].Configs {
			if c.Source == kmsg.ConfigSourceDynamicBrokerConfig && nodes != nil || c.Source == kmsg.ConfigSourceDynamicDefaultBrokerConfig && nodes == nil {
				p.Brokers[name][c.Key] = c.MaybeValue()
			}
		}
	}
	topics, err := adm.ListTopics(ctx)
	fail("listing topics", err)
	starts, err := adm.ListStartOffsets(ctx)
	fail("listing starts", err)
	ends, err := adm.ListEndOffsets(ctx)
	fail("listing ends", err)
	for name, d := range topics {
		topic := pictureTopic{ID: d.ID.String(), Configs: map[string]string{}}
		rs, err := adm.DescribeTopicConfigs(ctx, name)
		fail("describing a topic", err)
		for _, c := range rs[0].Configs {
			if c.Source == kmsg.ConfigSourceDynamicTopicConfig {
				topic.Configs[c.Key] = c.MaybeValue()
			}
		}
		for i := range int32(len(d.Partitions)) {
			start, _ := starts.Lookup(name, i)
			end, _ := ends.Lookup(name, i)
			if old != nil && int(i) < len(old.Topics[name].Partitions) {
				end.Offset = min(end.Offset, old.Topics[name].Partitions[i].End)
			}
			part := picturePartition{Start: start.Offset, End: end.Offset}
			sum := sha256.New()
			for _, r := range readAll(t, b, name, i, start.Offset, end.Offset) {
				line := fmt.Sprintf("%d epoch %d codec %d time %d type %d key %q value %q headers %q", r.Offset, r.LeaderEpoch, r.Attrs.CompressionType(), r.Timestamp.UnixMilli(),
					r.Attrs.TimestampType(), nullable(r.Key), nullable(r.Value), r.Headers)
				fmt.Fprintln(sum, line)
				part.Records++
				part.Last = line[:min(len(line), 120)]
			}
			part.SHA256 = hex.EncodeToString(sum.Sum(nil))
			topic.Partitions = append(topic.Partitions, part)
		}
		p.Topics[name] = topic
	}
	for _, name := range []string{"gone", "gone-full"} {
		if _, ok := topics[name]; !ok {
			p.Gone = append(p.Gone, name)
		}
	}
	return p
}

func deref(s *string) string {
	if s == nil {
		return "-"
	}
	return *s
}

// nullable tells nothing from an empty value.
func nullable(b []byte) string {
	if b == nil {
		return "(null)"
	}
	return string(b)
}

func groupConfigs(t *testing.T, b *broker, group string) map[string]string {
	t.Helper()
	req := kmsg.NewPtrDescribeConfigsRequest()
	req.Version = 4
	r := kmsg.NewDescribeConfigsRequestResource()
	r.ResourceType, r.ResourceName = kmsg.ConfigResourceTypeGroupConfig, group
	req.Resources = append(req.Resources, r)
	resp := mustAsk[*kmsg.DescribeConfigsResponse](t, dialTo(t, b.addr()), req).Resources[0]
	if resp.ErrorCode != 0 {
		t.Fatalf("describing group %s: error %d", group, resp.ErrorCode)
	}
	own := map[string]string{}
	for _, c := range resp.Configs {
		if c.Source == kmsg.ConfigSourceGroupConfig {
			own[c.Name] = deref(c.Value)
		}
	}
	return own
}

// readAll reads the records of a partition from one offset to before another.
func readAll(t *testing.T, b *broker, topic string, partition int32, from, to int64) (rs []*kgo.Record) {
	t.Helper()
	if from >= to {
		return nil
	}
	c, err := kgo.NewClient(kgo.SeedBrokers(b.addr()), kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {partition: kgo.NewOffset().At(from)}}))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx := within(t, time.Minute)
	for at := from; at < to; {
		fetches := c.PollFetches(ctx)
		if err := fetches.Err0(); err != nil {
			t.Fatalf("%s/%d from %d to %d: at %d: %v", topic, partition, from, to, at, err)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			if r.Offset < to {
				rs = append(rs, r)
			}
			at = max(at, r.Offset+1)
		})
	}
	return rs
}

func newProducer(t *testing.T, b *broker) int64 {
	t.Helper()
	req := kmsg.NewPtrInitProducerIDRequest()
	req.Version = 4
	req.ProducerID, req.ProducerEpoch = -1, -1
	resp := mustAsk[*kmsg.InitProducerIDResponse](t, dialTo(t, b.addr()), req)
	if resp.ErrorCode != 0 {
		t.Fatalf("InitProducerId: error %d", resp.ErrorCode)
	}
	return resp.ProducerID
}

func producerOf(t *testing.T, b *broker, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	c, err := kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(b.addr()), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerBatchCompression(kgo.NoCompression()),
		kgo.ProducerLinger(0)}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// unpack lays a packed directory out.
func unpack(t *testing.T, path, dir string) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if err == io.EOF {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		to := filepath.Join(dir, filepath.FromSlash(h.Name))
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			t.Fatal(err)
		}
		w, err := os.Create(to)
		if err == nil {
			_, err = io.Copy(w, r)
			err = errors.Join(err, w.Close())
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// pack is what unpack unpacks: the files of a directory, in order, without their times and owners.
func pack(dir, path string) error {
	var out bytes.Buffer
	z, _ := gzip.NewWriterLevel(&out, gzip.BestCompression)
	w := tar.NewWriter(z)
	err := filepath.WalkDir(dir, func(file string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() || d.Name() == "LOCK" {
			return err
		}
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		name, err := filepath.Rel(dir, file)
		if err != nil {
			return err
		}
		if err := w.WriteHeader(&tar.Header{Name: filepath.ToSlash(name), Mode: 0o644, Size: int64(len(text)), Format: tar.FormatUSTAR}); err != nil {
			return err
		}
		_, err = w.Write(text)
		return err
	})
	if err = errors.Join(err, w.Close(), z.Close()); err != nil {
		return err
	}
	return os.WriteFile(path, out.Bytes(), 0o644)
}

// TestPackDirectories packs a pair: see oldDirectories.
func TestPackDirectories(t *testing.T) {
	name := os.Getenv("TAILBOUND_PACK")
	if name == "" {
		t.Skip("TAILBOUND_PACK=NAME packs another pair of directories, by the broker of TAILBOUND_BIN")
	}
	if err := os.MkdirAll(oldDirectories, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, end := range []string{"clean", "killed"} {
		t.Run(end, func(t *testing.T) {
			b := ownBroker(t, oldFlags...)
			p := fillDirectory(t, b)
			p.Tailbound = name
			if end == "clean" {
				if err := b.stop(); err != nil {
					t.Fatal(err)
				}
			} else {
				b.kill()
			}
			out, err := exec.Command(b.binary, "check", b.dir, "--output", "json").Output()
			if err != nil {
				t.Fatalf("check: %v", err)
			}
			var found struct {
				Clean  bool `json:"clean_stop"`
				Frames int
			}
			if err := json.Unmarshal(out, &found); err != nil || found.Clean != (end == "clean") || end == "killed" && found.Frames == 0 {
				t.Fatalf("the directory is not as it should be: %+v %v", found, err)
			}
			text, err := json.MarshalIndent(p, "", " ")
			if err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(oldDirectories, name+"-"+end)
			if err := os.WriteFile(path+".json", append(text, '\n'), 0o644); err != nil {
				t.Fatal(err)
			}
			if err := pack(b.dir, path+".tar.gz"); err != nil {
				t.Fatal(err)
			}
			if err := b.start(); err != nil { // ownBroker stops and checks it
				t.Fatal(err)
			}
		})
	}
}

// fillDirectory does to a broker all that leaves traces on its disk, and says what it is then.
func fillDirectory(t *testing.T, b *broker) *picture {
	ctx := within(t, 5*time.Minute)
	adm := admin(t, b)
	must := func(what string, err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
	// Nothing is to become too old before it is opened again.
	must("altering brokers", alterBroker(ctx, adm, []kadm.AlterConfig{setConfig("log.retention.ms", "-1"), setConfig("offsets.retention.minutes", "2147483647"), setConfig("num.partitions", "2")}))
	must("altering node 1", alterBroker(ctx, adm, []kadm.AlterConfig{setConfig("message.max.bytes", "900000")}, 1))
	create := func(name string, partitions int32, configs map[string]string) {
		t.Helper()
		values := map[string]*string{}
		for k, v := range configs {
			values[k] = &v
		}
		_, err := adm.CreateTopic(ctx, partitions, 1, values, name)
		must("creating "+name, err)
		for p := range partitions {
			leaderOf(t, b, name, p)
		}
	}
	create("small", 3, nil)
	create("large", 2, map[string]string{"segment.bytes": "2097152"})
	create("mixed", 1, map[string]string{"retention.bytes": "-1"})
	create("retained", 1, map[string]string{"segment.bytes": "1048576", "retention.bytes": "2000000"})
	create("shortened", 2, nil)
	create("emptied", 1, nil)
	create("stamped", 1, map[string]string{"message.timestamp.type": "LogAppendTime"})
	create("cached", 1, map[string]string{"write.caching": "true"})
	create("grown", 1, map[string]string{"latency.slo.ms": "5"})
	create("configured", 1, map[string]string{"max.message.bytes": "500000", "retention.ms": "3600000000000", "latency.slo.ms": "9"})
	create("never-used", 2, nil)
	create("gone", 2, nil)
	create("gone-full", 1, nil)
	create("again", 1, nil)
	grow(t, adm, "grown", 3)
	for p := range int32(3) {
		leaderOf(t, b, "grown", p)
	}
	must("altering configured", alterTopic(ctx, adm, "configured", setConfig("max.message.bytes", "600000"), kadm.AlterConfig{Op: kadm.DeleteConfig, Name: "latency.slo.ms"}))

	long := strings.Repeat("all work and no play makes a dull log. ", 8000) // 312 kB
	at := time.UnixMilli(1_790_000_000_000)
	records := 0
	put := func(c *kgo.Client, topic string, partition int32, values ...string) {
		t.Helper()
		var rs []*kgo.Record
		for _, v := range values {
			r := &kgo.Record{Topic: topic, Partition: partition, Timestamp: at.Add(time.Duration(records) * time.Second), Value: []byte(v)}
			switch records % 5 {
			case 1:
				r.Key = fmt.Appendf(nil, "key %d", records)
			case 2:
				r.Key, r.Headers = []byte{}, []kgo.RecordHeader{{Key: "first", Value: []byte("1")}, {Key: "null"}}
			case 3:
				r.Key, r.Value = []byte("only a key"), nil
			}
			records++
			rs = append(rs, r)
		}
		must("producing to "+topic, c.ProduceSync(ctx, rs...).FirstErr())
	}
	some := func(what string, n int) (values []string) {
		for i := range n {
			values = append(values, fmt.Sprintf("%s %d of %d, and a little more", what, i, n))
		}
		return values
	}
	plain := producerOf(t, b)
	defer plain.Close()
	loose := producerOf(t, b, kgo.DisableIdempotentWrite(), kgo.RequiredAcks(kgo.LeaderAck()))
	defer loose.Close()
	codecs := map[string]kgo.CompressionCodec{"none": kgo.NoCompression(), "gzip": kgo.GzipCompression(), "snappy": kgo.SnappyCompression(), "lz4": kgo.Lz4Compression(), "zstd": kgo.ZstdCompression()}
	compressed := func(round string) {
		for _, codec := range []string{"none", "gzip", "snappy", "lz4", "zstd"} {
			c := producerOf(t, b, kgo.ProducerBatchCompression(codecs[codec]))
			for p := range int32(3) {
				put(c, "small", p, some(round+" "+codec, 20)...)
			}
			put(c, "large", 0, some(round+" "+codec+" "+long[:1200], 60)...)
			c.Close()
		}
	}
	compressed("first")
	for i := range 6 {
		put(plain, "large", int32(i%2), fmt.Sprint("large ", i, long[:90_000+i*40_000]))
		put(plain, "mixed", 0, fmt.Sprint("mixed ", i), fmt.Sprint("mixed on ", i))
		put(loose, "mixed", 0, fmt.Sprint("mixed large ", i, long[:70_000+i*9000]))
		put(loose, "stamped", 0, fmt.Sprint("stamped ", i))
		put(loose, "configured", 0, fmt.Sprint("configured ", i))
		put(plain, "grown", int32(i%3), fmt.Sprint("grown ", i))
		put(plain, "cached", 0, fmt.Sprint("cached ", i))
		put(plain, "gone", int32(i%2), fmt.Sprint("gone ", i))
		put(plain, "gone-full", 0, fmt.Sprint("gone ", i, long[:200_000]))
		put(plain, "again", 0, fmt.Sprint("before it was made again ", i))
		put(loose, "shortened", int32(i%2), some("shortened", 5)...)
		put(loose, "emptied", 0, some("emptied", 5)...)
	}
	for i := range 60 {
		put(plain, "retained", 0, fmt.Sprint("retained ", i, long[:100_000]))
	}
	remove := func(topic string, partition int32, before int64) {
		t.Helper()
		offsets := kadm.Offsets{}
		offsets.AddOffset(topic, partition, before, -1)
		rs, err := adm.DeleteRecords(ctx, offsets)
		must("removing records", err)
		must("removing records", rs.Error())
	}
	remove("shortened", 0, 7)
	remove("emptied", 0, 30)
	remove("large", 1, 2)
	var start kadm.ListedOffset
	eventually(t, "retention by size", func() bool {
		l, err := adm.ListStartOffsets(ctx, "retained")
		must("listing starts", err)
		start, _ = l.Lookup("retained", 0)
		return start.Offset >= 25
	})
	deleted := func(name string) {
		t.Helper()
		rs, err := adm.DeleteTopics(ctx, name)
		must("deleting "+name, err)
		must("deleting "+name, rs.Error())
	}
	deleted("gone-full")
	deleted("again")
	create("again", 1, nil)
	anew := producerOf(t, b) // the others know the topic by its old id
	defer anew.Close()
	put(anew, "again", 0, "made again")

	// Another life, so that there is more than one leader epoch.
	b.kill()
	must("starting again", b.start())
	adm = admin(t, b)
	put(loose, "mixed", 0, some("mixed in another life", 3)...)
	put(plain, "small", 0, some("small in another life", 3)...)
	put(plain, "large", 0, "large in another life "+long[:100_000])

	// Groups: of both protocols, with and without members, with much metadata, so that the control log is rewritten.
	must("a group's configuration", alterGroup(t, b, "modern-static", "consumer.session.timeout.ms", "60000"))
	must("a group's configuration", alterGroup(t, b, "modern", "consumer.heartbeat.interval.ms", "6000"))
	instance := func(id string) []kgo.Opt { return []kgo.Opt{kgo.InstanceID(id), kgo.SessionTimeout(30 * time.Minute)} }
	for group, opts := range map[string][]kgo.Opt{
		"classic":       {kgo.Balancers(kgo.CooperativeStickyBalancer())},
		"static":        append(instance("one"), kgo.Balancers(kgo.RangeBalancer())),
		"modern":        {kgo.ServerSideBalancer(), kgo.Balancers(kgo.StickyBalancer())},
		"modern-static": {kgo.ServerSideBalancer(), kgo.Balancers(kgo.RangeBalancer()), kgo.InstanceID("two")},
	} {
		c, err := kgo.NewClient(append(opts, kgo.SeedBrokers(b.addr()), kgo.ConsumerGroup(group), kgo.ConsumeTopics("small"), kgo.DisableAutoCommit(),
			kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))...)
		must("a member", err)
		for n := 0; n < 303; {
			fetches := c.PollFetches(ctx)
			must("a member", fetches.Err0())
			n += fetches.NumRecords()
		}
		must("committing", c.CommitUncommittedOffsets(ctx))
		c.Close()
	}
	commit := func(group, topic string, partition int32, offset int64, metadata string) {
		t.Helper()
		offsets := kadm.Offsets{}
		offsets.Add(kadm.Offset{Topic: topic, Partition: partition, At: offset, LeaderEpoch: 1, Metadata: metadata})
		rs, err := adm.CommitOffsets(ctx, group, offsets)
		must("committing", err)
		must("committing", rs.Error())
	}
	for i := range 420 {
		commit("much", "small", int32(i%3), int64(i), fmt.Sprint(i, long[:3900]))
	}
	commit("some", "small", 0, 3, "kept")
	commit("some", "large", 0, 4, "dropped")
	commit("some", "gone", 0, 1, "goes with its topic")
	var not kadm.TopicsSet
	not.Add("large", 0)
	dropped, err := adm.DeleteOffsets(ctx, "some", not)
	must("deleting offsets", err)
	must("deleting offsets", dropped.Error())
	commit("dissolved", "small", 0, 3, "")
	groups, err := adm.DeleteGroups(ctx, "dissolved")
	must("deleting a group", err)
	must("deleting a group", groups.Error())

	// A moment's rest, in which a shard that is quiet writes checkpoints; then what stays in the journals of a broker that is killed.
	time.Sleep(4 * time.Second)
	compressed("second")
	put(plain, "mixed", 0, "mixed at last "+long[:100_000])
	put(plain, "mixed", 0, "mixed at the very last")
	put(plain, "large", 1, "large at last "+long[:300_000])
	put(plain, "cached", 0, "cached at last")
	put(plain, "retained", 0, "retained at last")
	remove("shortened", 1, 4)
	create("late", 2, map[string]string{"retention.ms": "-1"})
	put(plain, "late", 0, some("late", 3)...)
	put(plain, "late", 1, "late, "+long[:120_000])
	deleted("gone")
	commit("some", "small", 1, 5, "late")
	commit("late", "late", 0, 2, "late")
	var duplicates []pictureBatch
	for _, topic := range []string{"mixed", "stamped", "late"} {
		id := newProducer(t, b)
		for sequence := range int32(7) {
			d := pictureBatch{Topic: topic, Producer: id, Sequence: sequence}
			p := mustAsk[*kmsg.ProduceResponse](t, dialTo(t, leaderOf(t, b, topic, 0)), produceRequest(topic, 8, -1, d.bytes())).Topics[0].Partitions[0]
			if p.ErrorCode != 0 {
				t.Fatalf("producing: error %d", p.ErrorCode)
			}
			d.Base = p.BaseOffset
			if sequence >= 2 { // the last five are known
				duplicates = append(duplicates, d)
			}
		}
	}
	time.Sleep(300 * time.Millisecond) // what is acknowledged from memory is written, too
	id := newProducer(t, b)
	p := takePicture(t, b, nil)
	p.ProducerID, p.Duplicates = id, duplicates
	if got := p.Topics["retained"].Partitions[0]; got.Start < 20 || got.Records == 0 {
		t.Fatalf("retention left %+v", got)
	}
	if len(p.Gone) != 2 || len(p.Groups["static"].Members) != 1 || len(p.Groups["modern-static"].Members) != 1 {
		t.Fatalf("gone: %v, groups: %+v", p.Gone, p.Groups)
	}
	return p
}

func alterGroup(t *testing.T, b *broker, group, name, value string) error {
	t.Helper()
	req := kmsg.NewPtrIncrementalAlterConfigsRequest()
	req.Version = 1
	r := kmsg.NewIncrementalAlterConfigsRequestResource()
	r.ResourceType, r.ResourceName = kmsg.ConfigResourceTypeGroupConfig, group
	c := kmsg.NewIncrementalAlterConfigsRequestResourceConfig()
	c.Name, c.Op, c.Value = name, kmsg.IncrementalAlterConfigOpSet, &value
	r.Configs = append(r.Configs, c)
	req.Resources = append(req.Resources, r)
	resp := mustAsk[*kmsg.IncrementalAlterConfigsResponse](t, dialTo(t, b.addr()), req).Resources[0]
	if resp.ErrorCode != 0 {
		return fmt.Errorf("error %d: %s", resp.ErrorCode, deref(resp.ErrorMessage))
	}
	return nil
}
