package control

import (
	"fmt"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tailbound/tailbound/kafka"
	"github.com/tailbound/tailbound/shard"
)

// A key that is served has a whole row: versions that there are, the functions that its
// place needs, and a count of whatever the request may have many of.
func TestTable(t *testing.T) {
	// Requests with lists that are not counted, and why.
	uncounted := map[int16]string{
		kafka.KeyFindCoordinator:            "the answer for a key is the key and an address",
		kafka.KeyDescribeLogDirs:            "the answer has the logs there are, each once",
		kafka.KeyListPartitionReassignments: "the answer is empty",
	}
	for key, row := range newTable() {
		k, known := kafka.KeyOf(int16(key))
		if row.served == (shard.Served{}) {
			if row.names != nil || row.start != nil || row.fail != nil {
				t.Errorf("key %d has functions and is not served", key)
			}
			continue
		}
		if row.key != int16(key) || !known {
			t.Errorf("row %d is of key %d, which Kafka knows: %v", key, row.key, known)
			continue
		}
		if v := row.served.Versions; v.Min < 0 || v.Min > v.Max || v.Max > k.Latest {
			t.Errorf("%s is served from %d to %d, and has versions to %d", k.Name, v.Min, v.Max, k.Latest)
		}
		if row.served.Where == shard.AtEveryNode {
			if row.key != kafka.KeyApiVersions || row.start != nil {
				t.Errorf("%s is said to be answered by every node from what was made at start: only ApiVersions is", k.Name)
			}
			continue
		}
		if row.names == nil || row.start == nil || row.fail == nil {
			t.Errorf("the row of %s lacks how its names are counted, how it starts, or how it fails", k.Name)
			continue
		}
		for version := row.served.Versions.Min; version <= row.served.Versions.Max; version++ {
			req := kmsg.RequestForKey(row.key)
			req.SetVersion(version)
			if got := row.names(req); got != 0 {
				t.Errorf("%s %d without names is said to have %d", k.Name, version, got)
			}
			lists := fill(reflect.ValueOf(req).Elem())
			got, uncountable := row.names(req), uncounted[row.key] != "" || row.served.Where == shard.AtLeader
			if (got == 0) == (lists > 0 && !uncountable) {
				t.Errorf("%s %d with %d lists is said to have %d names", k.Name, version, lists, got)
			}
		}
	}
}

// fill puts two elements into every list of a message, and says how many lists it has.
func fill(message reflect.Value) (lists int) {
	for i := range message.NumField() {
		field := message.Field(i)
		switch {
		case message.Type().Field(i).Name == "UnknownTags":
		case field.Kind() == reflect.Slice && field.Type().Elem().Kind() != reflect.Uint8:
			lists++
			field.Set(reflect.MakeSlice(field.Type(), 2, 2))
			for k := range 2 {
				if field.Index(k).Kind() == reflect.Struct {
					fill(field.Index(k))
				}
			}
		}
	}
	return lists
}

// What ApiVersions advertises is what is served, in order.
func TestAdvertised(t *testing.T) {
	api := API(GroupOptions{})
	for version := range api.Versions {
		resp := kmsg.NewPtrApiVersionsResponse()
		resp.SetVersion(int16(version))
		if err := resp.ReadFrom(api.Versions[version]); err != nil {
			t.Fatal(err)
		}
		served := 0
		for _, row := range api.Keys {
			if row.Where != shard.NotServed {
				served++
			}
		}
		if len(resp.ApiKeys) != served {
			t.Errorf("ApiVersions %d has %d keys, and %d are served", version, len(resp.ApiKeys), served)
		}
		for i, k := range resp.ApiKeys {
			if row := api.Keys[k.ApiKey]; row.Versions != (kafka.Versions{Min: k.MinVersion, Max: k.MaxVersion}) || i > 0 && k.ApiKey <= resp.ApiKeys[i-1].ApiKey {
				t.Errorf("ApiVersions %d has key %d from %d to %d; served is %+v", version, k.ApiKey, k.MinVersion, k.MaxVersion, row)
			}
		}
	}
}

// A request that says of itself that it has more than its bytes can hold is refused
// for what those bytes cost, not for what it says: four billion tags that are not
// there were counted one by one once, and the control shard stood still for half a
// minute.
func TestCountsAreBounded(t *testing.T) {
	at := make(chan string, 1)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for _, row := range newTable() {
			if row.start == nil {
				continue
			}
			for version := row.served.Versions.Min; version <= row.served.Versions.Max; version++ {
				full := kmsg.RequestForKey(row.key)
				full.SetVersion(version)
				fill(reflect.ValueOf(full).Elem())
				body := full.AppendTo(nil)
				for i := range len(body) {
					for _, huge := range [][]byte{{0xff, 0xff, 0xff, 0xff, 0x0f}, {0xff, 0xff, 0xff, 0xff, 0x07}, {0x7f, 0xff, 0xff, 0xff}} {
						select {
						case <-at:
						default:
						}
						at <- fmt.Sprintf("%s %d: % x instead of byte %d of %d", kmsg.NameForKey(row.key), version, huge, i, len(body))
						req := kmsg.RequestForKey(row.key)
						req.SetVersion(version)
						_ = req.ReadFrom(slices.Concat(body[:i], huge, body[i+1:])) // whole or not, it ends
					}
				}
			}
		}
	}()
	select {
	case <-done:
	case <-time.After(time.Minute):
		t.Fatal(<-at)
	}
}
