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
		return func(out io.Writer, record *kgo.Record) error { return json.NewEncoder(out).Encode(toJSON(record)) }, nil
	}
	formatter, err := kgo.NewRecordFormatter(format)
	if err != nil {
		return nil, fmt.Errorf("--format %q: %w", format, err)
	}
	var line []byte
	return func(out io.Writer, record *kgo.Record) error {
		line = formatter.AppendRecord(line[:0], record)
		_, err := out.Write(line)
		return err
	}, nil
}

// toJSON and fromJSON are inverse, except for topic, partition and offset, which a
// record that is produced does not have yet.
func toJSON(record *kgo.Record) recordJSON {
	fields := recordJSON{Topic: record.Topic, Partition: &record.Partition, Offset: record.Offset, Time: recordTime{record.Timestamp.UTC()}}
	fields.Base64 = !utf8.Valid(record.Key) || !utf8.Valid(record.Value)
	for _, header := range record.Headers {
		fields.Base64 = fields.Base64 || !utf8.Valid(header.Value)
	}
	encoded := func(text []byte) *string {
		if text == nil {
			return nil
		}
		s := string(text)
		if fields.Base64 {
			s = base64.StdEncoding.EncodeToString(text)
		}
		return &s
	}
	fields.Key, fields.Value = encoded(record.Key), encoded(record.Value)
	for _, header := range record.Headers {
		field := headerJSON{Key: header.Key}
		if value := encoded(header.Value); value != nil {
			field.Value = *value
		}
		if !utf8.ValidString(header.Key) {
			field.Key, field.KeyBase64 = base64.StdEncoding.EncodeToString([]byte(header.Key)), true
		}
		fields.Headers = append(fields.Headers, field)
	}
	return fields
}

func fromJSON(fields recordJSON) (*kgo.Record, error) {
	var wrong error
	data := func(s *string) []byte {
		if s == nil {
			return nil
		}
		if !fields.Base64 {
			return []byte(*s)
		}
		text, err := base64.StdEncoding.DecodeString(*s)
		wrong = errors.Join(wrong, err)
		return text
	}
	record := &kgo.Record{Key: data(fields.Key), Value: data(fields.Value), Timestamp: fields.Time.Time}
	for _, header := range fields.Headers {
		key := header.Key
		if header.KeyBase64 {
			text, err := base64.StdEncoding.DecodeString(key)
			key, wrong = string(text), errors.Join(wrong, err)
		}
		record.Headers = append(record.Headers, kgo.RecordHeader{Key: key, Value: data(&header.Value)})
	}
	return record, wrong
}
