package main

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tailbound/tailbound/cmd/tailbound/program"
	"github.com/tailbound/tailbound/engine/format"
)

// A control log that a later version wrote is refused as every other reason not to
// start is: with one line that names it, and exit status 1.
func TestNewerCommand(t *testing.T) {
	b := program.Start(t)
	program.Must(t, "", "topic", "create", "orders", "--brokers", b.Addr)
	if err := b.Stop(); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(b.Dir, "segments", "*"))
	if err != nil || len(files) == 0 { // the first has the log, the next is kept for it
		t.Fatalf("segments: %q, %v", files, err)
	}
	content, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	makeNewer(t, content)
	if err := os.WriteFile(files[0], content, 0o644); err != nil {
		t.Fatal(err)
	}
	program.Must(t, "", "check", b.Dir)
	r := program.Run(t, "", "serve", "--data-dir", b.Dir, "--listen", "127.0.0.1:0", "--shards", "1", "--arena", "64MiB", "--buffered")
	var said []string
	for line := range strings.Lines(r.Err) {
		if !strings.Contains(line, "level=WARN") { // of this machine's limits
			said = append(said, line)
		}
	}
	if r.Status != 1 || len(said) != 1 || !strings.HasPrefix(said[0], "tailbound: the control log ") || !strings.Contains(said[0], "written by a newer Tailbound: commands of kind 99") {
		t.Errorf("exit status %d, and this is said:\n%s", r.Status, r.Err)
	}
}

// makeNewer gives the command in the first run of a segment a kind that is not served.
// Its batch, its entry and its run stay whole.
func makeNewer(t *testing.T, segment []byte) {
	var run format.RunHeader
	var entry format.Entry
	body := segment[format.HeaderBytes:]
	if !run.Get(segment) || !entry.Get(body) {
		t.Fatal("the segment does not begin with a run")
	}
	batch := body[format.EntryHeaderBytes:][:entry.Length]
	at := bytes.Index(batch, []byte{format.CommandVersion, 1, 0, 0})
	if at < 0 {
		t.Fatalf("no command in %x", batch)
	}
	batch[at+1] = 99
	castagnoli := crc32.MakeTable(crc32.Castagnoli)
	entry.CRC = crc32.Checksum(batch[21:], castagnoli)
	binary.BigEndian.PutUint32(batch[17:], entry.CRC)
	entry.Put(body)
	run.BodyCRC = format.CRC(body[:run.BodyBytes])
	run.Put(segment)
}
