package main

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tailbound/tailbound/cmd/tailbound/program"
)

func writeConfig(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "tailbound.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// Every mistake is named with its line and the nearest right name, all at once.
func TestConfigurationErrors(t *testing.T) {
	for _, x := range []struct {
		text string
		want []string
	}{
		{"shard: 3\nlog_levl: info\nfrobnicate: 1\n", []string{":1:1: there is no setting shard; did you mean shards?", ":2:1: there is no setting log_levl; did you mean log-level?", ":3:1: there is no setting frobnicate; `tailbound config example`"}},
		{"shards: four\nbuffered: perhaps\narena: big\nretention-check-interval: 5\n", []string{`:1:1: shards: "four": it is a whole number`, `:2:1: buffered: "perhaps": it is true or false`, `:3:1: arena: "big" is not a size`, `:4:1: retention-check-interval: "5": it is a duration`}},
		{"shards: 300\nlog-format: xml\nlog-level: loud\n\narena: 1MiB\nlisten: nowhere\ncpus: 3-1\nnum-partitions: 0\nstorage-failure-action: panic\nring-features: 3.2.1.0\n",
			[]string{":1:1: shards: 300: it is 1 to 250", ":2:1: log-format:", ":3:1: log-level:", ":5:1: arena: 1MiB", ":6:1: listen:", ":7:1: cpus:", ":8:1: num-partitions: 0", ":9:1: storage-failure-action:", ":10:1: ring-features:"}},
		{"shards: 3\nshards: 4\n", []string{":2:", "shards"}},
		{"shards: {a: 1}\ncpus:\n", []string{":1:", "a plain value is wanted", ":2:", "it has no value"}},
		{"- shards\n", []string{":1:", "a mapping of settings"}},
		{"shards: 1\n---\nshards: 2\n", []string{"more than one YAML document"}},
		{"shards: [1\n", []string{":1:"}},
		{"max-connections: 0\nmax-connections-per-ip: 0\nmax-connections-per-ip-overrides: localhost:3\n", []string{":1:1: max-connections: 0", ":2:1: max-connections-per-ip: 0", `:3:1: max-connections-per-ip-overrides: "localhost:3": it is an IP address`}},
		{"journal-inflight-max: 9\ndirect-bytes: 2KiB\nspin: 2ms\nreceive-buffer: 5000\nnice: 20\n", []string{":1:1: journal-inflight-max: 9", ":2:1: direct-bytes: 2048", ":3:1: spin: 2ms", ":4:1: receive-buffer: 5000", ":5:1: nice: 20"}},
		{"prepare: 1MiB\n", []string{":1:1: prepare: 1MiB"}},
		{"message-max-bytes: 10\nadvertise: host:99999\n", []string{":1:1: message-max-bytes: 10", ":2:1: advertise:"}},
	} {
		path := writeConfig(t, x.text)
		r := program.Run(t, "", "config", "check", path)
		if r.Status != 1 {
			t.Errorf("%q is taken:\n%s", x.text, r.Out)
		}
		for _, w := range x.want {
			if !strings.Contains(r.Err, w) || strings.HasPrefix(w, ":") && !strings.Contains(r.Err, path+w) {
				t.Errorf("%q: nothing of %q in:\n%s", x.text, w, r.Err)
			}
		}
	}
	program.Refused(t, []string{"config", "check", writeConfig(t, "message-max-bytes: 16MiB\narena: 128MiB\n")}, "do not fit", "--arena", "--message-max-bytes")
	program.Refused(t, []string{"serve", "--data-dir", t.TempDir(), "--listen", "127.0.0.1:0", "--shards", "1", "--buffered", "--message-max-bytes", "16MiB", "--arena", "128MiB"}, "do not fit")
	if out := program.Must(t, "", "config", "check", writeConfig(t, "shards: 2\nlisten: 0.0.0.0:9092\n")); !strings.Contains(out, "2 settings, nothing wrong") {
		t.Errorf("a right one: %s", out)
	}
	program.Must(t, "", "config", "check", writeConfig(t, "# nothing\n"))
	program.Refused(t, []string{"config", "check", "/nowhere/tailbound.yaml"}, "/nowhere/tailbound.yaml")
	program.Refused(t, []string{"serve"}, "data-dir", "TAILBOUND_DATA_DIR", "--config")
	program.Refused(t, []string{"serve", "--data-dir", t.TempDir(), "--shards", "-1"}, "--shards: -1")
}

// What --print-config prints is a configuration, and the example is one of defaults.
func TestPrintedConfigurationIsOne(t *testing.T) {
	path := writeConfig(t, "data-dir: /var/lib/tailbound\nshards: 2\ncpus: 1\n")
	out := program.Must(t, "", "serve", "--config", path, "--log-level", "warn", "--print-config")
	for _, w := range []string{"shards: 2", "# " + path + ":2:1", "log-level: warn", "# --log-level", "# default"} {
		if !strings.Contains(out, w) {
			t.Errorf("nothing of %q in:\n%s", w, out)
		}
	}
	again := program.Must(t, "", "serve", "--config", writeConfig(t, out), "--print-config")
	values := func(s string) (all []string) {
		for line := range strings.Lines(s) {
			value, _, _ := strings.Cut(line, " #")
			all = append(all, strings.TrimSpace(value))
		}
		return all[1:]
	}
	if a, b := strings.Join(values(out), "\n"), strings.Join(values(again), "\n"); a != b {
		t.Errorf("printed:\n%s\nread and printed again:\n%s", a, b)
	}
	example := program.Must(t, "", "config", "example")
	program.Must(t, "", "config", "check", writeConfig(t, example))
	uncommented := strings.ReplaceAll(strings.ReplaceAll(example, "\n#", "\n"), "\n ", "\n# ")
	uncommented = strings.ReplaceAll(uncommented, "\nTAILBOUND", "\n# TAILBOUND")
	if out := program.Must(t, "", "config", "check", writeConfig(t, uncommented)); !strings.Contains(out, "nothing wrong") || strings.Contains(out, " 0 settings") {
		t.Errorf("the example, uncommented:\n%s", out)
	}
}

// A broker runs from a file and variables alone, logs JSON, and its memory is
// what was planned.
func TestServeFromConfiguration(t *testing.T) {
	out := program.Must(t, "", "serve", "--print-memory", "--arena", "64MiB", "--shards", "3")
	for _, w := range []string{"control shard", "data shard (3 of them)", "= 64 MiB", "log memory", "receive", "resident while it starts, at most", "288 MiB", "resident at most", "garbage in Go's heap before a collection"} {
		if !strings.Contains(out, w) {
			t.Errorf("nothing of %q in:\n%s", w, out)
		}
	}
	dir := t.TempDir()
	cmd := exec.Command(program.Path, "serve", "--config", writeConfig(t, "data-dir: "+dir+"\nlisten: 127.0.0.1:0\nshards: 1\narena: 64MiB\nbuffered: true\n"))
	cmd.Env = append(os.Environ(), "TAILBOUND_LOG_FORMAT=json", "TAILBOUND_ADVERTISE=broker.example.org")
	log := &program.Output{}
	cmd.Stdout, cmd.Stderr = log, log
	stop := program.RunUntil(t, cmd, func() bool { return strings.Contains(log.String(), `"msg":"serving"`) })
	if err := stop(); err != nil {
		t.Errorf("%v\n%s", err, log)
	}
	for _, w := range []string{`"advertise":"broker.example.org:`, `"shards":1`, `"durable":`, `"msg":"stopped cleanly"`} {
		if !strings.Contains(log.String(), w) {
			t.Errorf("nothing of %s in:\n%s", w, log)
		}
	}
	for line := range strings.Lines(log.String()) {
		if !strings.HasPrefix(line, "{") {
			t.Errorf("no JSON: %s", line)
		}
	}
}

// What a broker was started with is described under Kafka's names: every setting whose
// sentence has one.
func TestDescribed(t *testing.T) {
	started := map[string]struct{ flag, described string }{
		"auto.create.topics.enable":                 {"--auto-create-topics=false", "false"},
		"message.max.bytes":                         {"--message-max-bytes=500000", "500000"},
		"max.connections":                           {"--max-connections=100", "100"},
		"max.connections.per.ip":                    {"--max-connections-per-ip=90", "90"},
		"max.connections.per.ip.overrides":          {"--max-connections-per-ip-overrides=10.1.2.3:7", "10.1.2.3:7"},
		"max.incremental.fetch.session.cache.slots": {"--max-incremental-fetch-session-cache-slots=50", "50"},
		"log.retention.check.interval.ms":           {"--retention-check-interval=3s", "3000"},
		"group.initial.rebalance.delay.ms":          {"--group-initial-rebalance-delay=20ms", "20"},
		"group.min.session.timeout.ms":              {"--group-min-session-timeout=2s", "2000"},
		"group.max.session.timeout.ms":              {"--group-max-session-timeout=20m", "1200000"},
		"group.max.size":                            {"--group-max-size=10", "10"},
		"group.consumer.migration.policy":           {"--group-consumer-migration-policy=upgrade", "upgrade"},
		"offsets.retention.minutes":                 {"--offsets-retention=1h", "60"},
		"num.partitions":                            {"--num-partitions=3", "3"},
	}
	for _, m := range regexp.MustCompile(`\(([a-z]+(?:\.[a-z]+)+)\)`).FindAllStringSubmatch(program.Must(t, "", "config", "example"), -1) {
		if _, ok := started[m[1]]; !ok {
			t.Errorf("a setting names %s, and this test does not start a broker with it", m[1])
		}
	}
	var flags []string
	for _, s := range started {
		flags = append(flags, s.flag)
	}
	b := program.Start(t, flags...)
	client, err := kgo.NewClient(kgo.SeedBrokers(b.Addr))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	got, err := kadm.NewClient(client).DescribeBrokerConfigs(ctx, 0, 1)
	if err != nil || len(got) != 2 {
		t.Fatalf("%v, %v", got, err)
	}
	for _, node := range got {
		described := map[string]kadm.Config{}
		for _, c := range node.Configs {
			described[c.Key] = c
		}
		for name, s := range started {
			if c := described[name]; c.MaybeValue() != s.described || c.Source != kmsg.ConfigSourceStaticBrokerConfig {
				t.Errorf("node %s, started with %s: %s is %q, of source %d", node.Name, s.flag, name, c.MaybeValue(), c.Source)
			}
		}
	}
}
