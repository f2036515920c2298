package interop

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

// dawn is when the times of the tests' records begin: old, and not so old that retention takes them.
var dawn = time.Now().Add(-time.Hour).UnixMilli()

// A record is what a client was given to produce, or handed out when it consumed. A nil key or value is Kafka's null.
type record struct {
	partition  int32
	offset     int64
	timeMS     int64
	key, value []byte
	headers    []header
}

type header struct {
	key   string
	value []byte
}

// codecs are the compressions a batch may have, by the names that Kafka's own configuration uses.
var codecs = []string{"none", "gzip", "snappy", "lz4", "zstd"}

// A nullness says how well a client tells null from empty. The wire has both, some clients' interfaces do not.
type nullness struct {
	fields  bool // keys and values
	headers bool // header values
}

func (a nullness) and(b nullness) nullness {
	return nullness{a.fields && b.fields, a.headers && b.headers}
}

// shapes are records of every shape: what is null, what is empty, what is binary, what is long enough to span blocks and pages.
func shapes() []record {
	rng := rand.New(rand.NewPCG(1, 2))
	noise := make([]byte, 9000)
	for i := range noise {
		noise[i] = byte(rng.Uint32())
	}
	every := make([]byte, 256)
	for i := range every {
		every[i] = byte(i)
	}
	text := []byte(strings.Repeat("the tail is bound ", 1200))
	return []record{
		{key: []byte("key"), value: []byte("value")},
		{value: []byte("no key")},
		{key: []byte("tombstone")},
		{key: []byte{}, value: []byte{}},
		{},
		{value: []byte{}},
		{key: every, value: every, headers: []header{{"all bytes", every}}},
		{key: []byte("h"), value: []byte("headers"), headers: []header{
			{"null", nil}, {"empty", []byte{}}, {"binary", []byte{0, 255, 10, 13}}, {"twice", []byte("1")}, {"twice", []byte("2")}, {"", []byte("a header without a name")},
			{"söme ütf-8 ✓", []byte("✓")},
		}},
		{key: []byte("text"), value: text},
		{key: []byte("noise"), value: noise},
	}
}

// recordsFor spreads records of every shape over the partitions; those of one partition are in the order in which they must be stored.
func recordsFor(partitions int) []record {
	all := shapes()
	perPartition := len(all) + 2
	if partitions > 8 {
		perPartition = 3
	}
	start := dawn
	var rs []record
	for i := range perPartition {
		for p := range partitions {
			r := all[(p+i)%len(all)]
			if partitions <= 8 {
				r = all[i%len(all)]
			}
			r.partition, r.offset = int32(p), int64(i)
			r.timeMS = start + int64(i*1000) - int64(i%3)*1500 + int64(p) // not in order
			rs = append(rs, r)
		}
	}
	return rs
}

// same says how got differs from want, nothing being lost: the order within each partition counts, that between partitions does not.
func same(want, got []record, tells nullness) error {
	if len(want) != len(got) {
		return fmt.Errorf("%d records, want %d", len(got), len(want))
	}
	order := func(a, b record) int {
		if a.partition != b.partition {
			return int(a.partition - b.partition)
		}
		return int(a.offset - b.offset)
	}
	want, got = slices.Clone(want), slices.Clone(got)
	slices.SortStableFunc(want, order)
	slices.SortStableFunc(got, order)
	for i, w := range want {
		g := got[i]
		at := fmt.Sprintf("record %d of partition %d", w.offset, w.partition)
		switch {
		case g.partition != w.partition || g.offset != w.offset:
			return fmt.Errorf("%s came as %d of %d", at, g.offset, g.partition)
		case g.timeMS != w.timeMS:
			return fmt.Errorf("%s: time %d, want %d", at, g.timeMS, w.timeMS)
		case !sameBytes(w.key, g.key, tells.fields):
			return fmt.Errorf("%s: key %s, want %s", at, show(g.key), show(w.key))
		case !sameBytes(w.value, g.value, tells.fields):
			return fmt.Errorf("%s: value %s, want %s", at, show(g.value), show(w.value))
		case len(g.headers) != len(w.headers):
			return fmt.Errorf("%s: %d headers, want %d", at, len(g.headers), len(w.headers))
		}
		for j, h := range w.headers {
			if g.headers[j].key != h.key || !sameBytes(h.value, g.headers[j].value, tells.headers) {
				return fmt.Errorf("%s: header %d is %q=%s, want %q=%s", at, j, g.headers[j].key, show(g.headers[j].value), h.key, show(h.value))
			}
		}
	}
	return nil
}

func sameBytes(a, b []byte, tells bool) bool {
	return bytes.Equal(a, b) && (!tells || (a == nil) == (b == nil))
}

func show(b []byte) string {
	switch {
	case b == nil:
		return "null"
	case len(b) > 40:
		return fmt.Sprintf("%q... (%d bytes)", b[:40], len(b))
	}
	return fmt.Sprintf("%q", b)
}
