package interop

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"
)

// compatibility is the document that TestCompatibility holds the broker to: what each client was seen to do.
const compatibility = "../docs/COMPATIBILITY.md"

// A foreign is a client in another language: how it is had from its registry, and how it is run. Its program prints a line "did: ..." for each thing it has done
// and seen to be right, and ends with another status than 0 where something was not.
type foreign struct {
	name, version string
	needs         []string // tools that are on the machine, or it is skipped
	install       []string // run in testdata/foreign; DIR is where to
	run           []string // likewise, with ADDR and TOPIC
}

var foreigns = []foreign{
	{"Java (kafka-clients and the console tools)", "4.4.0", []string{"java", "javac", "mvn"},
		[]string{"mvn", "-q", "-B", "dependency:copy-dependencies", "-DoutputDirectory=DIR"},
		[]string{"java", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-cp", "DIR/*", "Interop.java", "ADDR", "TOPIC"}},
	{"kafka-python", "3.0.12", []string{"python3"}, pip("kafka-python==3.0.12"), []string{"DIR/bin/python", "kafka_python.py", "ADDR", "TOPIC"}},
	{"aiokafka", "0.14.0", []string{"python3"}, pip("aiokafka==0.14.0"), []string{"DIR/bin/python", "aiokafka_client.py", "ADDR", "TOPIC"}},
	{"kafkajs", "2.2.4", []string{"node", "npm"},
		[]string{"npm", "install", "--silent", "--no-audit", "--no-fund", "--prefix", "DIR", "kafkajs@2.2.4"},
		[]string{"env", "NODE_PATH=DIR/node_modules", "node", "kafkajs.js", "ADDR", "TOPIC"}},
	{"rdkafka (Rust)", "0.39.0", []string{"cargo", "cc", "make"},
		[]string{"cargo", "build", "--quiet", "--locked", "--manifest-path", "rdkafka/Cargo.toml", "--target-dir", "DIR"},
		[]string{"cargo", "run", "--quiet", "--locked", "--manifest-path", "rdkafka/Cargo.toml", "--target-dir", "DIR", "--", "ADDR", "TOPIC"}},
}

func pip(what string) []string {
	return []string{"sh", "-c", "python3 -m venv DIR && DIR/bin/python -m pip install --quiet " + what}
}

// exercised is what each client has done, in the order of the document.
type exercised struct {
	mu   sync.Mutex
	rows map[string][]string // by "client|version"
}

func (e *exercised) did(client, version, what string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.rows[client+"|"+version] = append(e.rows[client+"|"+version], what)
}

// TestCompatibility: every client there is does its main job: makes a topic, produces, consumes from offsets and from times, works in a group, administers.
// Those that are not Go's come from their registries; where a tool chain or a registry is missing they are skipped. Clients of former years are franz-go
// with the versions of requests that those had.
func TestCompatibility(t *testing.T) {
	needReal(t, "it is about this broker")
	b := ownBroker(t, groupFlags...)
	e := &exercised{rows: map[string][]string{}}
	var order []string
	complete := true // no client was skipped
	t.Run("clients", func(t *testing.T) {
		for _, name := range clientNames {
			version := moduleVersion(t, name)
			order = append(order, name+"|"+version)
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				c, ok := clients[name]
				if !ok {
					e.mu.Lock()
					complete = false
					e.mu.Unlock()
					t.Skip("built without cgo")
				}
				mainJob(t, b, c, func(what string) { e.did(name, version, what) })
			})
		}
		for _, f := range foreigns {
			order = append(order, f.name+"|"+f.version)
			t.Run(f.name, func(t *testing.T) {
				t.Parallel()
				dir, why := f.had(t)
				if why != "" {
					e.mu.Lock()
					complete = false
					e.mu.Unlock()
					t.Skip(why)
				}
				f.exercise(t, b, dir, func(what string) { e.did(f.name, f.version, what) })
			})
		}
		for _, v := range []struct {
			name string
			max  *kversion.Versions
		}{{"0.11", kversion.V0_11_0()}, {"1.1", kversion.V1_1_0()}, {"2.8", kversion.V2_8_0()}, {"3.9", kversion.V3_9_0()}} {
			name, version := "a client of Kafka "+v.name, "franz-go with its requests"
			order = append(order, name+"|"+version)
			t.Run("Kafka "+v.name, func(t *testing.T) {
				t.Parallel()
				oldJob(t, b, v.max, func(what string) { e.did(name, version, what) })
			})
		}
	})
	if t.Failed() || !complete || testing.Short() {
		return
	}
	text := &bytes.Buffer{}
	text.WriteString(compatibilityHead)
	for _, row := range order {
		name, version, _ := strings.Cut(row, "|")
		fmt.Fprintf(text, "| %s | %s | %s |\n", name, version, strings.Join(e.rows[row], "; "))
	}
	text.WriteString(compatibilityFoot)
	if os.Getenv("TAILBOUND_COMPATIBILITY") == "write" {
		if err := os.WriteFile(compatibility, text.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if have, err := os.ReadFile(compatibility); err != nil || !bytes.Equal(have, text.Bytes()) {
		t.Errorf("docs/COMPATIBILITY.md is not what was exercised (%v); run `make compatibility`", err)
	}
}

const compatibilityHead = `# Clients that were seen to work

A run of the tests against a running broker writes this page (` + "`make compatibility`" + `), and ` + "`make interop`" + ` fails if it would write another. Each client did
what its row lists, in this order, with the expected results; franz-go read back what the client wrote.

| client | version | what it did |
|---|---|---|
`

const compatibilityFoot = `
Groups are of the classic protocol, in which clients assign partitions, unless a row says both protocols (the newer one is KIP-848's). No client used
transactions.

As in Kafka 4, version 0 of DescribeConfigs and DescribeLogDirs, which clients of Kafka 0.11 and 1 use, is not served, and record batches of formats before
Kafka 0.11 are not accepted.

An offset for a time is that of the record, also inside a compressed batch, if the record is in the first 16 MiB of its uncompressed batch and a data shard can
lend the batch (up to 4 MiB). Otherwise it is the batch's first offset, and a consumer that starts there reads a few records more.
`

// moduleVersion is the version of a Go client, by this module's go.mod.
func moduleVersion(t *testing.T, name string) string {
	path := map[string]string{"franz-go": "github.com/twmb/franz-go", "sarama": "github.com/IBM/sarama", "kafka-go": "github.com/segmentio/kafka-go", "confluent": "github.com/confluentinc/confluent-kafka-go/v2"}[name]
	text, err := os.ReadFile("go.mod")
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`(?m)^\s*` + regexp.QuoteMeta(path) + ` v(\S+)`).FindSubmatch(text)
	if m == nil {
		t.Fatalf("go.mod does not require %s", path)
	}
	return string(m[1])
}

// timed are records for the main job, a second apart, so that times tell them apart.
func timed(n, partitions int) (rs []record) {
	now := time.Now().UnixMilli() - int64(n)*1000
	for i := range n {
		rs = append(rs, record{partition: int32(i % partitions), offset: int64(i / partitions), timeMS: now + int64(i)*1000, key: fmt.Appendf(nil, "k%d", i), value: fmt.Appendf(nil, "v%d", i)})
	}
	return rs
}

// mainJob is what every Go client is asked for.
func mainJob(t *testing.T, b *broker, c client, did func(string)) {
	ctx := within(t, 2*time.Minute)
	topic := topicName(t)
	const partitions = 3
	check := func(what string, err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		did(what)
	}
	check("create a topic", c.create(ctx, b, topic, partitions, 1))
	rs := timed(30, partitions)
	for i, codec := range codecs {
		if _, err := c.produce(ctx, b, topic, produceOptions{codec: codec, acks: -1, idempotent: true}, rs[i*6:i*6+6]); err != nil {
			t.Fatalf("produce, %s: %v", codec, err)
		}
	}
	check("produce by every codec", readsBack(ctx, b, topic, rs, partitions))
	got, err := c.consume(ctx, b, topic, []int64{4, 5, 6}, []int{6, 5, 4})
	if err == nil && len(got) != 15 {
		err = fmt.Errorf("%d records, want 15", len(got))
	}
	for _, r := range got {
		if want := rs[r.offset*partitions+int64(r.partition)]; !bytes.Equal(r.value, want.value) {
			err = errors.Join(err, fmt.Errorf("partition %d offset %d is %q, want %q", r.partition, r.offset, r.value, want.value))
		}
	}
	check("consume from an offset", err)
	at, err := c.offsetAt(ctx, b, topic, 0, rs[3].timeMS-500)
	if err == nil && at != 1 {
		err = fmt.Errorf("offset %d, want 1", at)
	}
	if err == nil {
		got, err = c.consume(ctx, b, topic, []int64{at, 0, 0}, []int{1, 0, 0})
		if err == nil && string(got[0].value) != "v3" {
			err = fmt.Errorf("%q, want v3", got[0].value)
		}
	}
	check("consume from a time", err)
	check("delete the topic", c.remove(ctx, b, topic))
}

// readsBack says whether franz-go reads the records that another client wrote.
func readsBack(ctx context.Context, b *broker, topic string, rs []record, partitions int) error {
	got, err := (franz{}).consume(ctx, b, topic, zeroes(partitions), counts(rs, partitions))
	if err != nil {
		return err
	}
	if len(got) != len(rs) {
		return fmt.Errorf("%d records, want %d", len(got), len(rs))
	}
	for _, r := range got {
		want := rs[int(r.offset)*partitions+int(r.partition)]
		if !bytes.Equal(r.key, want.key) || !bytes.Equal(r.value, want.value) {
			return fmt.Errorf("partition %d offset %d is %q: %q, want %q: %q", r.partition, r.offset, r.key, r.value, want.key, want.value)
		}
	}
	return nil
}

// oldJob is the main job by the requests of another version of Kafka.
func oldJob(t *testing.T, b *broker, max *kversion.Versions, did func(string)) {
	ctx := within(t, 2*time.Minute)
	topic := topicName(t)
	const partitions = 3
	// Version 0 of some requests is below the floor of Kafka 4, and so of this broker.
	has := func(key kmsg.Key, least int16) bool {
		v, ok := max.LookupMaxKeyVersion(int16(key))
		return ok && v >= least
	}
	dial := func(opts ...kgo.Opt) *kgo.Client {
		c, err := (franz{}).dial(b, append(opts, kgo.MaxVersions(max))...)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(c.Close)
		return c
	}
	check := func(what string, err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		did(what)
	}
	writer := dial(kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerBatchCompression(kgo.Lz4Compression()))
	adm := kadm.NewClient(writer)
	_, err := adm.CreateTopic(ctx, partitions, 1, map[string]*string{"retention.ms": kmsg.StringPtr("86400000")}, topic)
	check("create a topic", err)
	rs := timed(30, partitions)
	var out []*kgo.Record
	for _, r := range rs {
		out = append(out, &kgo.Record{Topic: topic, Partition: r.partition, Timestamp: time.UnixMilli(r.timeMS), Key: r.key, Value: r.value})
	}
	if err = writer.ProduceSync(ctx, out...).FirstErr(); err == nil {
		err = readsBack(ctx, b, topic, rs, partitions)
	}
	check("produce, idempotent", err)
	for _, from := range []struct {
		what string
		at   kgo.Offset
	}{{"consume from an offset", kgo.NewOffset().At(3)}, {"consume from a time", kgo.NewOffset().AfterMilli(rs[0].timeMS)}} {
		reader := dial(kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {0: from.at}}))
		fetched := reader.PollRecords(ctx, 1)
		err := fetched.Err()
		if r := fetched.Records(); err == nil && (len(r) != 1 || !bytes.Equal(r[0].Value, rs[r[0].Offset*partitions].value)) {
			err = fmt.Errorf("%d records", len(r))
		}
		check(from.what, err)
	}
	member := dial(kgo.ConsumerGroup("g."+topic), kgo.ConsumeTopics(topic), kgo.DisableAutoCommit(), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.Balancers(kgo.RangeBalancer()))
	for n := 0; n < len(rs) && err == nil; {
		fetched := member.PollRecords(ctx, 0)
		n, err = n+fetched.NumRecords(), fetched.Err0()
	}
	if err == nil {
		err = member.CommitUncommittedOffsets(ctx)
	}
	if err == nil {
		var committed kadm.OffsetResponses
		if committed, err = adm.FetchOffsets(ctx, "g."+topic); err == nil {
			if o, _ := committed.Lookup(topic, 0); o.At != 10 {
				err = fmt.Errorf("committed %d, want 10", o.At)
			}
		}
	}
	check("groups", err)
	_, err = adm.AlterTopicConfigsState(ctx, []kadm.AlterConfig{setConfig("segment.ms", "50000")}, topic)
	if err == nil && has(kmsg.DescribeConfigs, 1) && configOf(t, adm, topic, "segment.ms").MaybeValue() != "50000" {
		err = errors.New("segment.ms is not what it was altered to")
	}
	check(map[bool]string{true: "describe and alter configurations", false: "alter configurations"}[has(kmsg.DescribeConfigs, 1)], err)
	if has(kmsg.CreatePartitions, 0) {
		_, err = adm.UpdatePartitions(ctx, partitions+1, topic)
		check("create partitions", err)
	}
	to := kadm.Offsets{}
	to.Add(kadm.Offset{Topic: topic, Partition: 0, At: 2})
	_, err = adm.DeleteRecords(ctx, to)
	check("delete records", err)
	if has(kmsg.DescribeLogDirs, 1) {
		_, err = adm.DescribeAllLogDirs(ctx, nil)
		check("describe log directories", err)
	}
	ds, err := adm.DeleteTopics(ctx, topic)
	check("delete the topic", errors.Join(err, ds.Error()))
}

// had installs a client, once for a machine, and says where; or why not.
func (f *foreign) had(t *testing.T) (dir, why string) {
	for _, tool := range f.needs {
		if _, err := exec.LookPath(tool); err != nil {
			return "", "there is no " + tool + " on this machine"
		}
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err.Error()
	}
	word := regexp.MustCompile(`[^a-z0-9.-]+`).ReplaceAllString(strings.ToLower(f.name), "-")
	dir = filepath.Join(cache, "tailbound-interop", word+"-"+f.version)
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return "", err.Error()
	}
	lock, err := os.Create(dir + ".lock") // another run of these tests may be installing it
	if err != nil {
		return "", err.Error()
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return "", err.Error()
	}
	done := filepath.Join(dir, "installed")
	if _, err := os.Stat(done); err == nil {
		return dir, ""
	}
	os.RemoveAll(dir) // of a try that was cut off
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err.Error()
	}
	ctx, cancel := context.WithTimeout(context.Background(), 6*time.Minute) // librdkafka is compiled for Rust
	defer cancel()
	if said, err := f.command(ctx, f.install, "DIR", dir).CombinedOutput(); err != nil {
		return "", fmt.Sprintf("it cannot be had from its registry: %v\n%s", err, said)
	}
	if err := os.WriteFile(done, nil, 0o644); err != nil {
		return "", err.Error()
	}
	return dir, ""
}

func (f *foreign) command(ctx context.Context, words []string, replace ...string) *exec.Cmd {
	words = slices.Clone(words)
	for i := range words {
		words[i] = strings.NewReplacer(replace...).Replace(words[i])
	}
	cmd := exec.CommandContext(ctx, words[0], words[1:]...)
	cmd.Dir = filepath.Join("testdata", "foreign")
	return cmd
}

// exercise runs a client's program, then reads what it wrote.
func (f *foreign) exercise(t *testing.T, b *broker, dir string, did func(string)) {
	ctx := within(t, 2*time.Minute)
	topic := topicName(t)
	said, err := f.command(ctx, f.run, "DIR", dir, "ADDR", b.addr(), "TOPIC", topic).CombinedOutput()
	for _, line := range strings.Split(string(said), "\n") {
		if what, ok := strings.CutPrefix(line, "did: "); ok {
			did(what)
		}
	}
	if err != nil {
		t.Fatalf("%v\n%s", err, said)
	}
	got, err := (franz{}).consume(ctx, b, topic, []int64{20, 0, 0}, []int{80, 100, 100})
	if err != nil {
		t.Fatalf("franz-go reads what it wrote: %v", err)
	}
	for _, r := range got {
		i := r.offset*3 + int64(r.partition)
		if string(r.key) != fmt.Sprint("k", i) || string(r.value) != fmt.Sprint("v", i) || len(r.headers) != 1 || string(r.headers[0].value) != fmt.Sprint(i) {
			t.Fatalf("partition %d offset %d is %q: %q, headers %v", r.partition, r.offset, r.key, r.value, r.headers)
		}
	}
}
