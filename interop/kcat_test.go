package interop

import (
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// TestKcat: the lines that people paste.
func TestKcat(t *testing.T) {
	path, err := exec.LookPath("kcat")
	if err != nil {
		t.Skip("kcat is not installed (Debian package kcat)")
	}
	b := sharedBroker(t)
	topic := topicName(t)
	ctx := within(t, time.Minute)
	run := func(line string) string {
		t.Helper()
		line = strings.NewReplacer("kcat", path, "HOST", b.addr(), "TOPIC", topic).Replace(line)
		out, err := exec.CommandContext(ctx, "sh", "-c", line).CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v\n%s", line, err, out)
		}
		return string(out)
	}
	run(`for i in 1 2 3; do echo "key$i:value $i"; done | kcat -b HOST -t TOPIC -P -K :`)
	if got, want := run(`kcat -b HOST -t TOPIC -C -e -q -o beginning -f '%o %k=%s\n'`), "0 key1=value 1\n1 key2=value 2\n2 key3=value 3\n"; got != want {
		t.Errorf("consumed %q, want %q", got, want)
	}
	if got := run(`kcat -b HOST -t TOPIC -C -e -q -o -1`); got != "value 3\n" {
		t.Errorf("the last record is %q", got)
	}
	if got := run(`kcat -b HOST -t TOPIC -L`); !strings.Contains(got, fmt.Sprintf("topic %q with 1 partitions", topic)) {
		t.Errorf("listed: %s", got)
	}
	for _, codec := range []string{"gzip", "snappy", "lz4", "zstd"} {
		run(`for i in 1 2 3 4 5; do echo "a line that compresses, compresses and compresses"; done | kcat -b HOST -t TOPIC -P -z ` + codec)
	}
	if got := run(`kcat -b HOST -t TOPIC -C -e -q -o 3 | sort | uniq -c`); strings.Join(strings.Fields(got), " ") != "20 a line that compresses, compresses and compresses" {
		t.Errorf("consumed: %s", got)
	}
	if got := run(`kcat -b HOST -Q -t TOPIC:0:-1`); !strings.Contains(got, "offset 23") {
		t.Errorf("the end: %s", got)
	}
}
