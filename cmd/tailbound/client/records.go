package client

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/twmb/franz-go/pkg/kgo"
)

// recordJSON is a record as a line of JSON: consume prints it, produce reads it.
type recordJSON struct {
	Topic     string       `json:"topic,omitempty"`
	Partition *int32       `json:"partition,omitempty"`
	Offset    int64        `json:"offset"`
	Time      recordTime   `json:"time"`
	Key       *string      `json:"key"`
	Value     *string      `json:"value"`
	Headers   []headerJSON `json:"headers,omitempty"`
	Base64    bool         `json:"base64,omitempty"` // key, value and the values of headers are in base64
}

type headerJSON struct {
	Key       string `json:"key"`
	Value     string `json:"value"`
	KeyBase64 bool   `json:"key_base64,omitempty"` // apart from Base64, as keys of headers are rarely binary
}

// recordTime is a time in RFC 3339, or a number of milliseconds if its year is out of
// RFC 3339's range: producers may write any timestamp.
type recordTime struct{ time.Time }

// MarshalJSON writes either form.
func (t recordTime) MarshalJSON() ([]byte, error) {
	if y := t.Year(); y < 0 || y > 9999 {
		return strconv.AppendInt(nil, t.UnixMilli(), 10), nil
	}
	return t.Time.MarshalJSON()
}

// UnmarshalJSON reads either form.
func (t *recordTime) UnmarshalJSON(text []byte) error {
	if ms, err := strconv.ParseInt(string(text), 10, 64); err == nil {
		t.Time = time.UnixMilli(ms)
		return nil
	}
	return t.Time.UnmarshalJSON(text)
}

// recordPrinter is a function that prints a record in a format of --format.
func recordPrinter(format string) (func(io.Writer, *kgo.Record) error, error) {
	if format == "json" {
		return func(w io.Writer, r *kgo.Record) error { return json.NewEncoder(w).Encode(toJSON(r)) }, nil
	}
	f, err := kgo.NewRecordFormatter(format)
	if err != nil {
		return nil, fmt.Errorf("--format %q: %w", format, err)
	}
	var line []byte
	return func(w io.Writer, r *kgo.Record) error {
		line = f.AppendRecord(line[:0], r)
		_, err := w.Write(line)
		return err
	}, nil
}

// toJSON and fromJSON are inverse, except for topic, partition and offset, which a
// record that is produced does not have yet.
func toJSON(r *kgo.Record) recordJSON {
	x := recordJSON{Topic: r.Topic, Partition: &r.Partition, Offset: r.Offset, Time: recordTime{r.Timestamp.UTC()}}
	x.Base64 = !utf8.Valid(r.Key) || !utf8.Valid(r.Value)
	for _, h := range r.Headers {
		x.Base64 = x.Base64 || !utf8.Valid(h.Value)
	}
	text := func(b []byte) *string {
		if b == nil {
			return nil
		}
		s := string(b)
		if x.Base64 {
			s = base64.StdEncoding.EncodeToString(b)
		}
		return &s
	}
	x.Key, x.Value = text(r.Key), text(r.Value)
	for _, h := range r.Headers {
		v := ""
		if p := text(h.Value); p != nil {
			v = *p
		}
		k := headerJSON{Key: h.Key, Value: v}
		if !utf8.ValidString(h.Key) {
			k.Key, k.KeyBase64 = base64.StdEncoding.EncodeToString([]byte(h.Key)), true
		}
		x.Headers = append(x.Headers, k)
	}
	return x
}

func fromJSON(j recordJSON) (*kgo.Record, error) {
	var wrong error
	data := func(s *string) []byte {
		if s == nil {
			return nil
		}
		if !j.Base64 {
			return []byte(*s)
		}
		b, err := base64.StdEncoding.DecodeString(*s)
		wrong = errors.Join(wrong, err)
		return b
	}
	r := &kgo.Record{Key: data(j.Key), Value: data(j.Value), Timestamp: j.Time.Time}
	for _, h := range j.Headers {
		key := h.Key
		if h.KeyBase64 {
			b, err := base64.StdEncoding.DecodeString(key)
			key, wrong = string(b), errors.Join(wrong, err)
		}
		r.Headers = append(r.Headers, kgo.RecordHeader{Key: key, Value: data(&h.Value)})
	}
	return r, wrong
}
