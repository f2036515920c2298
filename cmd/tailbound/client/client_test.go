package client

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tailbound/tailbound/cmd/tailbound/program"
)

// kafkaWorld is a broker and a way to run client commands at it.
type kafkaWorld struct {
	t    *testing.T
	addr string
}

func (w kafkaWorld) run(stdin string, args ...string) string {
	w.t.Helper()
	return program.Must(w.t, stdin, append(args, "--brokers", w.addr)...)
}

func (w kafkaWorld) refused(args []string, words ...string) {
	w.t.Helper()
	program.Refused(w.t, append(args, "--brokers", w.addr), words...)
}

// has reports what is missing in a text.
func (w kafkaWorld) has(text string, words ...string) {
	w.t.Helper()
	for _, x := range words {
		if !strings.Contains(text, x) {
			w.t.Errorf("nothing of %q in:\n%s", x, text)
		}
	}
}

func TestTopics(t *testing.T) {
	b := program.Start(t)
	w := kafkaWorld{t, b.Addr}
	w.has(w.run("", "topic", "create", "orders", "audit", "-p", "3", "-c", "retention.ms=60000"), "orders", "created, 3 partitions", "audit")
	w.refused([]string{"topic", "create", "orders"}, "orders", "TOPIC_ALREADY_EXISTS", "--if-not-exists")
	w.has(w.run("", "topic", "create", "orders", "--if-not-exists"), "was there already")
	w.run("", "topic", "create", "maybe", "--dry-run")
	w.refused([]string{"topic", "create", "bad", "-c", "retention"}, "KEY=VALUE")
	var rows []topicRow
	if err := json.Unmarshal([]byte(w.run("", "topic", "list", "--output", "json")), &rows); err != nil || len(rows) != 2 || rows[0].Topic != "audit" || rows[1].Partitions != 3 {
		t.Errorf("list: %+v, %v", rows, err)
	}
	if text := w.run("", "topic", "list", "o*"); strings.Contains(text, "audit") || !strings.Contains(text, "orders") {
		t.Errorf("list o*:\n%s", text)
	}
	var inYAML []map[string]any
	if err := yaml.Unmarshal([]byte(w.run("", "topic", "list", "--output", "yaml")), &inYAML); err != nil || len(inYAML) != 2 || inYAML[1]["topic"] != "orders" {
		t.Errorf("list as YAML: %v, %v", inYAML, err)
	}
	w.has(w.run("", "topic", "describe", "orders"), "3 partitions, 1 replica", "PARTITION", "LEADER", "retention.ms", "60000")
	w.refused([]string{"topic", "describe", "ordres"}, `did you mean "orders"?`)
	w.refused([]string{"topic", "describe", "somethingelse"}, "topic list", "topic create")
	w.run("", "topic", "alter", "orders", "--set", "retention.ms=120000")
	w.has(w.run("", "topic", "describe", "orders"), "120000")
	w.run("", "topic", "alter", "orders", "--delete", "retention.ms")
	w.refused([]string{"topic", "alter", "orders", "--set", "retention.mss=1"}, "INVALID_CONFIG")
	w.refused([]string{"topic", "alter", "orders"}, "nothing to alter")
	w.run("one\ntwo\nthree\n", "produce", "orders", "-p", "1")
	w.has(w.run("", "topic", "purge", "orders", "-p", "1", "--before", "2"), "orders/1", "begins at 2, began at 0")
	if out := w.run("", "consume", "orders", "-e"); out != "three\n" {
		t.Errorf("after a purge: %q", out)
	}
	w.run("", "topic", "delete", "audit")
	w.refused([]string{"topic", "delete", "order"}, `did you mean "orders"?`)
	w.refused([]string{"topic", "list", "--output", "xml"}, "table, json or yaml")
}

func TestProduceAndConsume(t *testing.T) {
	b := program.Start(t)
	w := kafkaWorld{t, b.Addr}
	w.refused([]string{"produce", "orders"}, `no topic "orders"`, "topic create orders")
	w.run("", "topic", "create", "orders", "-p", "2")

	for i, codec := range []string{"none", "gzip", "snappy", "lz4", "zstd"} {
		w.run(codec+"\n", "produce", "orders", "-p", "0", "-z", codec, "--acks", []string{"all", "1", "all", "-1", "all"}[i])
	}
	if out := w.run("", "consume", "orders", "-e", "-p", "0"); out != "none\ngzip\nsnappy\nlz4\nzstd\n" {
		t.Errorf("codecs: %q", out)
	}
	w.run("no answer\n", "produce", "orders", "-p", "1", "--acks", "0")
	if out := w.run("", "consume", "orders", "-p", "1", "-n", "1"); out != "no answer\n" {
		t.Errorf("acks 0: %q", out)
	}

	// Lines: with and without an end, empty, and with a return.
	var sum produced
	if err := json.Unmarshal([]byte(w.run("a=1\r\n=\nb=x=y", "produce", "orders", "-p", "0", "-K", "=", "-H", "source=test", "-H", "empty=", "--output", "json")), &sum); err != nil ||
		sum.Records != 3 || len(sum.Partitions) != 1 || sum.Partitions[0] != (producedPartition{0, 3, 5, 7}) {
		t.Errorf("summed up as %+v, %v", sum, err)
	}
	if out := w.run("", "consume", "orders", "-p", "0", "-o", "5", "-e", "-f", `%p/%o [%k] [%v] %h{%k:%v;}\n`); out != "0/5 [a] [1\r] source:test;empty:;\n0/6 [] [] source:test;empty:;\n0/7 [b] [x=y] source:test;empty:;\n" {
		t.Errorf("keys and headers: %q", out)
	}
	w.refused([]string{"produce", "orders", "-K", "=", "/dev/null", filepath.Join(t.TempDir(), "nothing")}, "no such file")

	// Ranges.
	for _, x := range []struct {
		args, want string
	}{
		{"-o start --to +2", "none\ngzip\n"},
		{"-o 1 --to 3", "gzip\nsnappy\n"},
		{"-o -3 --to -2", "1\r\n"},
		{"--offset 2 -n 1", "snappy\n"},
		{"-o end -e", ""},
		{"-o @-1h --to 1", "none\n"},
		{"-o @2100-01-01 -e", ""},
		{"-e --grep-key ^b$", "x=y\n"},
		{"-e --grep z", "gzip\nlz4\nzstd\n"},
		{"-o start -e -n 2", "none\ngzip\n"},
	} {
		if out := w.run("", append([]string{"consume", "orders", "-p", "0"}, strings.Fields(x.args)...)...); out != x.want {
			t.Errorf("consume %s: %q, want %q", x.args, out, x.want)
		}
	}
	w.refused([]string{"consume", "orders", "-o", "somewhere"}, "start, end, an offset")
	w.refused([]string{"consume", "orders", "-p", "2"}, "no partition 2", "2 partitions")
	w.refused([]string{"produce", "orders", "-p", "2"}, "no partition 2")
	w.refused([]string{"consume", "ordesr"}, `did you mean "orders"?`)
	w.refused([]string{"consume", "orders", "--grep", "("}, "--grep")
	w.refused([]string{"produce", "orders", "-z", "brotli"}, "zstd")

	// A topic copied by way of JSON is the same: bytes that are no text, null keys,
	// headers.
	whole := filepath.Join(t.TempDir(), "whole")
	if err := os.WriteFile(whole, []byte("\xff\x00two\nlines"), 0o600); err != nil {
		t.Fatal(err)
	}
	w.run("", "produce", "orders", whole, "--whole", "-p", "0", "-k", "\xfe")
	w.run("\n", "produce", "orders", "-p", "0", "-Z", "-k", "gone")
	w.run("", "topic", "create", "copy")
	w.run(w.run("", "consume", "orders", "-p", "0", "-e", "-f", "json"), "produce", "copy", "-f", "json")
	const all = `%K %k %V %v %h{%k=%v} %d\n`
	from, to := w.run("", "consume", "orders", "-p", "0", "-e", "-f", all), w.run("", "consume", "copy", "-e", "-f", all)
	if from != to || strings.Count(from, "\n") != 11 {
		t.Errorf("a copy through JSON differs:\n%q\n%q", from, to)
	}
	var last recordJSON
	lines := strings.Split(strings.TrimSpace(w.run("", "consume", "copy", "-o", "-1", "-e", "--output", "json")), "\n")
	if err := json.Unmarshal([]byte(lines[0]), &last); err != nil || last.Value != nil || *last.Key != "gone" {
		t.Errorf("the tombstone: %+v, %v", last, err)
	}

	// A pace is kept: 5 records at 50 a second are 80 ms or more.
	begin := time.Now()
	w.run("1\n2\n3\n4\n5\n6\n", "produce", "copy", "--rate", "50", "-n", "5")
	if took := time.Since(begin); took < 80*time.Millisecond {
		t.Errorf("5 records at 50 a second took %s", took)
	}
	if out := w.run("", "consume", "copy", "-o", "-5", "-e"); out != "1\n2\n3\n4\n5\n" {
		t.Errorf("with a pace: %q", out)
	}
	w.run("k:v\n", "produce", "copy", "-f", `%k:%v\n`)
	if out := w.run("", "consume", "copy", "-o", "-1", "-e", "-f", `%k %v`); out != "k v" {
		t.Errorf("a format: %q", out)
	}
	large := filepath.Join(t.TempDir(), "large")
	if err := os.WriteFile(large, bytes.Repeat([]byte("0123456789"), 200e3), 0o600); err != nil {
		t.Fatal(err)
	}
	w.refused([]string{"produce", "copy", "--whole", large}, "MESSAGE_TOO_LARGE", "max.message.bytes", "--max-message-bytes")
	w.run("made\n", "produce", "madetoo", "--create")
	if out := w.run("", "consume", "madetoo", "-e"); out != "made\n" {
		t.Errorf("--create: %q", out)
	}
}

// The largest record that the broker is set to accept is stored and read; the control
// shard's own memory does not limit it.
func TestLargeRecords(t *testing.T) {
	b := program.Start(t, "--message-max-bytes", "4MiB", "--arena", "128MiB")
	w := kafkaWorld{t, b.Addr}
	large := string(bytes.Repeat([]byte("0123456789"), 300e3))
	w.run("", "topic", "create", "large")
	w.run(large, "produce", "large", "--max-message-bytes", "4MiB")
	if out := w.run("", "consume", "large", "-e"); out != large+"\n" {
		t.Errorf("%d bytes came of %d", len(out), len(large))
	}
	// A lower limit is for new records: what is stored stays readable, and the log
	// sound.
	if err := b.Stop(); err != nil {
		t.Fatal(err)
	}
	b.Again(t, "--message-max-bytes", "1MiB", "--arena", "128MiB")
	w.addr = b.Addr
	if out := w.run("", "consume", "large", "-e"); out != large+"\n" {
		t.Errorf("under a lower limit %d bytes came of %d", len(out), len(large))
	}
	w.refused([]string{"produce", "large", "--max-message-bytes", "4MiB", "--whole", program.Path}, "MESSAGE_TOO_LARGE")
	w.run("small\n", "produce", "large")
	if err := b.Stop(); err != nil {
		t.Fatal(err)
	}
	program.Must(t, "", "check", b.Dir)
}

// A consumer reports that its broker is gone, waits, and goes on.
func TestConsumerOutlivesItsBroker(t *testing.T) {
	b := program.Start(t)
	program.Must(t, "before\n", "produce", "outlived", "--create", "--brokers", b.Addr)
	cmd := exec.Command(program.Path, "consume", "outlived", "--brokers", b.Addr)
	out, said := &program.Output{}, &program.Output{}
	cmd.Stdout, cmd.Stderr = out, said
	stop := program.RunUntil(t, cmd, func() bool { return out.String() == "before\n" })
	if err := b.Stop(); err != nil {
		t.Fatal(err)
	}
	program.Await(t, func() bool { return strings.Contains(said.String(), "not to be reached, trying again") })
	b.Again(t, "--listen", b.Addr)
	program.Must(t, "after\n", "produce", "outlived", "--brokers", b.Addr)
	program.Await(t, func() bool { return out.String() == "before\nafter\n" })
	if err := stop(); err != nil {
		t.Errorf("%v\n%s", err, said)
	}
	if !strings.Contains(said.String(), "answers again") {
		t.Errorf("it said:\n%s", said)
	}
}

// A batch that a client cannot take apart is named, and is not taken for a broken
// connection.
func TestUnreadableBatch(t *testing.T) {
	b := program.Start(t)
	w := kafkaWorld{t, b.Addr}
	w.run("", "topic", "create", "orders")
	w.run("one\ntwo\n", "produce", "orders")
	for codec, name := range map[kgo.CompressionCodec]string{kgo.GzipCompression(): "gzip", kgo.ZstdCompression(): "zstd", kgo.Lz4Compression(): "lz4", kgo.SnappyCompression(): "snappy"} {
		whole, err := kgo.DefaultCompressor(codec)
		if err != nil {
			t.Fatal(err)
		}
		k, err := kgo.NewClient(kgo.SeedBrokers(b.Addr), kgo.DefaultProduceTopic("orders"), kgo.WithCompressor(cutShort{whole}))
		if err != nil {
			t.Fatal(err)
		}
		defer k.Close()
		if err := k.ProduceSync(t.Context(), kgo.StringRecord(strings.Repeat("a record ", 1000))).FirstErr(); err != nil {
			t.Logf("%s: the broker takes no such batch: %v", name, err)
			continue
		}
		r := program.Run(t, "", "consume", "orders", "-e", "--from", "1", "--brokers", b.Addr)
		if r.Status != 1 || r.Out != "two\n" || !strings.Contains(r.Err, "orders/0: the record batch with offset 2 cannot be read") || strings.Contains(r.Err, "TLS") {
			t.Errorf("%s: %d %q\n%s", name, r.Status, r.Out, r.Err)
		}
		w.run("", "topic", "delete", "orders")
		w.run("", "topic", "create", "orders")
		w.run("one\ntwo\n", "produce", "orders")
	}
}

// cutShort is a compressor whose output lacks its end.
type cutShort struct{ kgo.Compressor }

func (c cutShort) Compress(to *bytes.Buffer, from []byte, flags ...kgo.CompressFlag) ([]byte, kgo.CompressionCodecType) {
	whole, codec := c.Compressor.Compress(to, from, flags...)
	return whole[:len(whole)-len(whole)/4], codec
}

func TestCluster(t *testing.T) {
	b := program.Start(t)
	w := kafkaWorld{t, b.Addr}
	w.run("", "topic", "create", "orders", "-p", "4")
	w.has(w.run("", "cluster", "info"), "controller node 0", "1 topic, 4 partitions", b.Addr)
	w.has(w.run("", "cluster", "health"), "all is well")
	var d clusterDescription
	if err := json.Unmarshal([]byte(w.run("", "cluster", "info", "--output", "json")), &d); err != nil || len(d.Brokers) != 2 || d.Brokers[1].Leads != 4 {
		t.Errorf("%+v, %v", d, err)
	}
	if err := b.Stop(); err != nil {
		t.Fatal(err)
	}
	w.refused([]string{"cluster", "info"}, "no broker listens on "+b.Addr, "tailbound serve", "TAILBOUND_BROKERS")
}

// cluster health reports a node that cannot be reached at its advertised address.
func TestHealthFindsWhatIsNotThere(t *testing.T) {
	b := program.Start(t, "--advertise", "127.0.0.1:1")
	r := program.Run(t, "", "cluster", "health", "--brokers", b.Addr, "--timeout", "2s")
	if r.Status != 1 || !strings.Contains(r.Out, "node 1 does not answer on 127.0.0.1:2") || !strings.Contains(r.Out, "--advertise") {
		t.Errorf("status %d\n%s%s", r.Status, r.Out, r.Err)
	}
}

func TestPositions(t *testing.T) {
	now := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	for text, want := range map[string]int64{
		"2026-11-21T09:30:00Z": now.Add(-150 * time.Minute).UnixMilli(), "-1h": now.Add(-time.Hour).UnixMilli(), "90m": now.Add(-90 * time.Minute).UnixMilli(),
		"1700000000": 1700000000000, "1700000000123": 1700000000123,
	} {
		if got, err := parseTime(text, now); err != nil || got != want {
			t.Errorf("%s: %d, %v; want %d", text, got, err, want)
		}
	}
	for text, want := range map[string]position{"earliest": {kind: atStart}, "end": {kind: atEnd}, "7": {atOffset, 7}, "+7": {afterStart, 7}, "-7": {beforeEnd, 7}, "@5": {atTime, 5000}} {
		if got, err := parsePosition(text); err != nil || got != want {
			t.Errorf("%s: %v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "x", "1x", "@", "@yesterday", "--5"} {
		if got, err := parsePosition(text); err == nil {
			t.Errorf("%q is %v", text, got)
		}
	}
}

func TestOffsetFiles(t *testing.T) {
	rows, err := readOffsets(strings.NewReader("# a comment\norders,0,17\n\"a,b\",1, 5\n"), "f")
	if err != nil || !slices.Equal(rows, []groupOffset{{"orders", 0, 17}, {"a,b", 1, 5}}) {
		t.Errorf("%v, %v", rows, err)
	}
	for text, want := range map[string]string{"orders,0": "f: ", "\n\norders,0,x": "f:3", "a,0,1\na,0,2": "f:2: a/0 is there twice", "": "no offsets", "a,-1,5": "f:1"} {
		if _, err := readOffsets(strings.NewReader(text), "f"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
	if known(-1)+known(0) != "-0" {
		t.Error("known")
	}
}
