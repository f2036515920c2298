package client

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// FuzzWords: no word of a command line, no format and no file of offsets stops
// the program that reads it.
func FuzzWords(f *testing.F) {
	for _, text := range []string{
		"@-10m", "+5", "-5", "start", "@2026-11-21T09:00:00Z", "1GiB", "1.5K", "1-3,5", "a=:1,b=:2", "[::1]:20", "10.1.2.3:200", "orders,0,17\n", "%k %v\n", "%p/%o %h{%k=%v}\n", "%v{hex} %K{big32}%d{go[2006]}",
		"%Ts[%k{3}%v{json}", "%", "%%%{", "\\x00\\t\\q", "%h{", "%d{strftime[%Y]}", "%v{unpack[b>H]}", "%k{re[a+]}", "%v{4}", "%V{number}%v", "json",
	} {
		f.Add(text, []byte("some bytes\nand a line\n1 2 3 4"))
	}
	now := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, text string, input []byte) {
		parsePosition(text)
		parseTime(text, now)
		readOffsets(strings.NewReader(text), "f")
		keyValues("-c", []string{text})
		pattern("--grep", text)
		r := &kgo.Record{Topic: "t", Key: input, Value: input, Timestamp: now, Headers: []kgo.RecordHeader{{Key: "h", Value: input}}}
		if print, err := recordPrinter(text); err == nil {
			if err := print(io.Discard, r); err != nil {
				t.Fatalf("%q prints a record: %v", text, err)
			}
		}
		x := produceOptions{format: text}
		next, err := x.reader(source{"f", bytes.NewReader(input)})
		for n := 0; err == nil && n < 1000; n++ {
			_, err = next()
		}
		if err == nil && len(input) < 1000 { // it reads for ever
			t.Fatalf("%q of %q never ends", text, input)
		}
	})
}

// FuzzRecordJSON: a record that is printed as JSON is read as it was.
func FuzzRecordJSON(f *testing.F) {
	f.Add([]byte("k"), []byte("v"), "h", []byte("x"), int64(1700000000000), true)
	f.Add([]byte(nil), []byte("\xff\x00"), "", []byte(nil), int64(-1), false)
	f.Add([]byte{}, []byte{}, "\xff", []byte("\xfe"), int64(1)<<60, false)
	f.Fuzz(func(t *testing.T, key, value []byte, name string, header []byte, timeMS int64, null bool) {
		r := &kgo.Record{Topic: "t", Partition: 3, Key: key, Value: value, Timestamp: time.UnixMilli(timeMS), Headers: []kgo.RecordHeader{{Key: name, Value: header}}}
		if null {
			r.Value = nil
		}
		print, err := recordPrinter("json")
		if err != nil {
			t.Fatal(err)
		}
		line := &bytes.Buffer{}
		if err := print(line, r); err != nil {
			t.Fatalf("%+v: %v", r, err)
		}
		x := produceOptions{format: "json"}
		next, err := x.reader(source{"f", bytes.NewReader(line.Bytes())})
		if err != nil {
			t.Fatal(err)
		}
		got, err := next()
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		if !bytes.Equal(got.Key, r.Key) || (got.Key == nil) != (r.Key == nil) || !bytes.Equal(got.Value, r.Value) || (got.Value == nil) != (r.Value == nil) || !got.Timestamp.Equal(r.Timestamp) ||
			len(got.Headers) != 1 || got.Headers[0].Key != name || !bytes.Equal(got.Headers[0].Value, header) {
			t.Fatalf("%+v\nis printed as %sand read as %+v", r, line, got)
		}
		if _, err := next(); !errors.Is(err, io.EOF) {
			t.Fatalf("after the record: %v", err)
		}
	})
}
