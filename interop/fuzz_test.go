package interop

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"net"
	"os"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// A fuzzer makes requests that a client could have written, of every key and version that is served, and then damages some of them. Its values are those
// with which something might go wrong: names that are there and names that cannot be, the ends of every number, batches that are almost right.
type fuzzer struct {
	*rand.Rand
	topics []string
	ids    [][16]byte
	groups []string
	last   []string // the last requests, to be printed if the broker dies
}

var numbers = []int64{0, 1, -1, 2, 3, 5, 77, 1000, -2, -3, 100, 65535, 1 << 20, math.MaxInt32, math.MinInt32, math.MaxInt64, math.MinInt64}

func (f *fuzzer) number() int64 {
	switch f.IntN(10) {
	case 0:
		return int64(f.Uint64())
	case 1:
		return int64(f.IntN(1 << 16))
	case 2, 3, 4: // the first ones mostly
		return numbers[f.IntN(len(numbers))]
	}
	return numbers[f.IntN(4)]
}

var words = []string{
	"", ".", "..", "range", "consumer", "classic", "0", "1", "2", "-1", "99999", "true", "retention.ms", "cleanup.policy", "max.message.bytes", "log.retention.ms",
	"segment.bytes", "compact", "delete", "message.timestamp.type", "LogAppendTime", "num.partitions", "group.max.size", "in valid", "ümlaut", "\x00", strings.Repeat("x", 249),
	strings.Repeat("y", 250), strings.Repeat("z", 30000),
}

// word is a string for a field of that name.
func (f *fuzzer) word(field string) string {
	switch {
	case f.IntN(8) == 0:
		return words[f.IntN(len(words))]
	case strings.Contains(field, "Topic"):
		return f.topics[f.IntN(len(f.topics))]
	case strings.Contains(field, "Group") || field == "CoordinatorKey":
		return f.groups[f.IntN(len(f.groups))]
	}
	return words[f.IntN(len(words))]
}

// some are bytes for a field of that name.
func (f *fuzzer) some(field string) []byte {
	switch {
	case field == "Records" || f.IntN(6) == 0:
		return f.batch()
	case f.IntN(3) == 0:
		return subscribing(f.topics[:1+f.IntN(2)]...)
	}
	b := make([]byte, f.IntN(64))
	for i := range b {
		b[i] = byte(f.Uint32())
	}
	return b
}

// batch is a record batch, whole or nearly so.
func (f *fuzzer) batch() []byte {
	b := batchOf("one", "two", "three")
	switch f.IntN(8) {
	case 0:
		b.ProducerID, b.ProducerEpoch, b.FirstSequence = f.number(), int16(f.number()), int32(f.number())
	case 1:
		b.Attributes = int16(f.number())
	case 2:
		b.FirstTimestamp, b.MaxTimestamp = f.number(), f.number()
	case 3:
		b.LastOffsetDelta, b.NumRecords = int32(f.number()), int32(f.number())
	case 4:
		b.ProducerID, b.ProducerEpoch, b.FirstSequence = int64(f.IntN(4)), 0, int32(f.IntN(6))
	}
	raw := bytesOf(b)
	switch f.IntN(10) {
	case 0:
		raw[f.IntN(len(raw))] ^= 1 << f.IntN(8)
	case 1:
		raw[f.IntN(len(raw))] ^= 1 << f.IntN(8)
		seal(raw)
	case 2:
		raw = raw[:f.IntN(len(raw))]
	case 3:
		raw = append(raw, raw...)
	case 4:
		binary.BigEndian.PutUint32(raw[8:], uint32(f.number()))
	}
	return raw
}

// fill sets every field of a request.
func (f *fuzzer) fill(v reflect.Value, field string, depth int) {
	switch v.Kind() {
	case reflect.Pointer:
		if f.IntN(4) == 0 {
			v.SetZero()
			return
		}
		v.Set(reflect.New(v.Type().Elem()))
		f.fill(v.Elem(), field, depth)
	case reflect.Struct:
		for i := range v.NumField() {
			name := v.Type().Field(i).Name
			if name != "Version" && name != "UnknownTags" && v.Field(i).CanSet() {
				f.fill(v.Field(i), name, depth)
			}
		}
	case reflect.Slice:
		if v.Type().Elem().Kind() == reflect.Uint8 {
			v.SetBytes(f.some(field))
			return
		}
		n := f.IntN(4)
		if depth == 0 && f.IntN(50) == 0 {
			n = f.IntN(500)
		}
		if f.IntN(20) == 0 {
			v.SetZero()
			return
		}
		v.Set(reflect.MakeSlice(v.Type(), n, n))
		for i := range n {
			f.fill(v.Index(i), field, depth+1)
		}
	case reflect.Array: // a topic's id
		if f.IntN(4) > 0 {
			reflect.Copy(v, reflect.ValueOf(f.ids[f.IntN(len(f.ids))]))
		}
	case reflect.String:
		v.SetString(f.word(field))
	case reflect.Bool:
		v.SetBool(f.IntN(2) == 0)
	case reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		n := f.number()
		if strings.Contains(field, "Wait") || strings.Contains(field, "Timeout") { // a request that rightly waits for days tells nothing
			n = []int64{n & 63, 0, -1, 100, 6000}[f.IntN(5)]
		}
		v.SetInt(n)
	case reflect.Uint8, reflect.Uint16, reflect.Uint32:
		v.SetUint(uint64(f.number()))
	case reflect.Float64:
		v.SetFloat(float64(f.number()))
	}
}

// request is one of a key that is served.
func (f *fuzzer) request(k kmsg.ApiVersionsResponseApiKey) kmsg.Request {
	req := kmsg.RequestForKey(k.ApiKey)
	f.fill(reflect.ValueOf(req).Elem(), "", 0)
	req.SetVersion(k.MinVersion + int16(f.IntN(int(k.MaxVersion-k.MinVersion)+1)))
	return req
}

// damage changes a request's bytes. Its key stays.
func (f *fuzzer) damage(raw []byte) []byte {
	for range 1 + f.IntN(3) {
		at := 6
		if len(raw) > 7 {
			at += f.IntN(len(raw) - 6)
		}
		switch f.IntN(6) {
		case 0:
			raw[at] ^= 1 << f.IntN(8)
		case 1:
			raw[at] = byte(f.Uint32())
		case 2:
			raw = raw[:max(at, 8)]
		case 3:
			raw = append(raw[:at:at], append(make([]byte, f.IntN(9)), raw[at:]...)...)
		case 4:
			if at+4 < len(raw) {
				binary.BigEndian.PutUint32(raw[at:], uint32(f.number()))
			}
		case 5:
			if at+2 < len(raw) {
				binary.BigEndian.PutUint16(raw[at:], uint16(f.number()))
			}
		}
	}
	binary.BigEndian.PutUint32(raw, uint32(len(raw)-4))
	return raw
}

// burst sends a few requests on one connection and reads their answers: what was not damaged and is answered has an answer that can be read, to that request.
func (f *fuzzer) burst(addr string, keys []kmsg.ApiVersionsResponseApiKey) error {
	w, err := dial(addr)
	if err != nil {
		return err
	}
	defer w.Close()
	type sent struct {
		req     kmsg.Request
		damaged bool
	}
	var all []sent
	var out []byte
	damaged := f.IntN(2) == 0 // else every answer has to be right
	f.last = f.last[:0]
	for i := range 1 + f.IntN(8) {
		req := f.request(keys[f.IntN(len(keys))])
		raw := frame(req, int32(i+1))
		if p, ok := req.(*kmsg.ProduceRequest); ok && p.Acks == 0 {
			p.Acks = -1 // else nothing is answered, and nothing can be told
			raw = frame(req, int32(i+1))
		}
		bad := damaged && f.IntN(2) == 0
		if bad {
			raw = f.damage(raw)
		}
		all = append(all, sent{req, bad})
		out = append(out, raw...)
		f.last = append(f.last, fmt.Sprintf("%s v%d to %s, damaged %t: %x", kmsg.NameForKey(req.Key()), req.GetVersion(), addr, bad, raw[:min(len(raw), 2000)]))
	}
	w.SetDeadline(time.Now().Add(400 * time.Millisecond)) // some rightly wait
	w.Write(out)
	for i, s := range all {
		body, err := w.receiveRaw()
		if err != nil {
			return nil // closed, or it waits: neither is wrong
		}
		if damaged {
			continue
		}
		if len(body) < 4 || int32(binary.BigEndian.Uint32(body)) != int32(i+1) {
			return fmt.Errorf("%s v%d is answered with %x", kmsg.NameForKey(s.req.Key()), s.req.GetVersion(), body[:min(len(body), 64)])
		}
		body = body[4:]
		resp := s.req.ResponseKind()
		if resp.IsFlexible() && resp.Key() != 18 {
			if len(body) == 0 || body[0] != 0 {
				return fmt.Errorf("%s v%d has no header of its answer: %x", kmsg.NameForKey(s.req.Key()), s.req.GetVersion(), body[:min(len(body), 64)])
			}
			body = body[1:]
		}
		if err := resp.ReadFrom(body); err != nil {
			return fmt.Errorf("the answer to %s v%d cannot be read (%w): %x", kmsg.NameForKey(s.req.Key()), s.req.GetVersion(), err, body[:min(len(body), 500)])
		}
		if err := formed(s.req.Key(), s.req.GetVersion(), body, nil); err != nil {
			return err
		}
		if again := resp.AppendTo(nil); !bytes.Equal(again, body) {
			return fmt.Errorf("the answer to %s v%d has %d bytes and means %d", kmsg.NameForKey(s.req.Key()), s.req.GetVersion(), len(body), len(again))
		}
		if code := strangeCode(reflect.ValueOf(resp).Elem()); code != 0 {
			return fmt.Errorf("%s v%d is answered with %d, which says nothing", kmsg.NameForKey(s.req.Key()), s.req.GetVersion(), code)
		}
	}
	return nil
}

// strangeCode is an error code in a response that is none of Kafka's, or UNKNOWN_SERVER_ERROR; 0 where there is none.
func strangeCode(v reflect.Value) int16 {
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			if code, ok := v.Field(i).Interface().(int16); ok && v.Type().Field(i).Name == "ErrorCode" && code != 0 && kerr.ErrorForCode(code) == kerr.UnknownServerError {
				return code
			} else if v.Type().Field(i).Name != "UnknownTags" {
				if code := strangeCode(v.Field(i)); code != 0 {
					return code
				}
			}
		}
	case reflect.Slice:
		for i := range v.Len() {
			if code := strangeCode(v.Index(i)); code != 0 {
				return code
			}
		}
	}
	return 0
}

// TestFuzz: whatever bytes clients send, the broker serves other clients, and its directory stays intact, after kill -9 too. INTEROP_FUZZ_SECONDS makes it
// run longer.
func TestFuzz(t *testing.T) {
	needReal(t, "it is about this broker")
	// a request of this seed kept the control shard busy for half a minute once
	seed, seconds := seedOf(t, 1795940746647384798), 10
	if s := os.Getenv("INTEROP_FUZZ_SECONDS"); s != "" {
		seconds, _ = strconv.Atoi(s)
	} else if testing.Short() {
		seconds = 4
	}
	b := ownBroker(t, "--partitions-max", "300", "--group-initial-rebalance-delay", "0s")
	topic := topicName(t)
	// What is altered for brokers is not for this one.
	adm := admin(t, b)
	configured(t, b, adm, topic, map[string]string{
		"max.message.bytes": "100000", "retention.ms": "-1", "retention.bytes": "-1", "message.timestamp.type": "CreateTime", "message.timestamp.after.max.ms": "9223372036854775807",
		"message.timestamp.before.max.ms": "9223372036854775807",
	})
	f := &fuzzer{Rand: rand.New(rand.NewPCG(seed, 0)), groups: []string{"g1", "g2", "g3"}}
	for i := range 4 {
		name := fmt.Sprintf("fuzz.%d", i)
		createTopic(t, b, name, 2)
		f.topics, f.ids = append(f.topics, name), append(f.ids, idOf(t, b, name))
	}
	f.topics = append(f.topics, "fuzz.not.there")
	f.ids = append(f.ids, [16]byte{9})
	keys := mustAsk[*kmsg.ApiVersionsResponse](t, dialTo(t, b.addr()), kmsg.NewPtrApiVersionsRequest()).ApiKeys
	end := int64(0)
	kept := bytesOf(batchOf("kept"))
	fail := func(format string, args ...any) {
		t.Helper()
		t.Fatalf("%s\nthe last requests:\n%s\n%s", fmt.Sprintf(format, args...), strings.Join(f.last, "\n"), b.out.tail())
	}
	serves := func() {
		t.Helper()
		leader := leaderOf(t, b, topic, 0)
		if base := mustProduce(t, dialTo(t, leader), topic, kept); base != end {
			fail("a record is at %d, want %d", base, end)
		}
		p := mustAsk[*kmsg.FetchResponse](t, dialTo(t, leader), fetchRequest(topic, 11, end, 0)).Topics[0].Partitions[0]
		if p.ErrorCode != 0 || len(p.RecordBatches) != len(kept) || !bytes.Equal(p.RecordBatches[17:], kept[17:]) {
			fail("the record at %d cannot be read: error %d, %d bytes", end, p.ErrorCode, len(p.RecordBatches))
		}
		end++
	}
	bursts := 0
	checked := time.Now()
	for until := time.Now().Add(time.Duration(seconds) * time.Second); time.Now().Before(until); bursts++ {
		if err := f.burst(net.JoinHostPort("127.0.0.1", strconv.Itoa(b.port+f.IntN(1+dataShards))), keys); err != nil {
			var refused net.Error
			if !errors.As(err, &refused) || !refused.Timeout() {
				fail("%v", err)
			}
		}
		if !b.alive() {
			fail("the broker has ended: %v", b.status)
		}
		if bursts%20 == 0 {
			serves()
		}
		if time.Since(checked) > 20*time.Second {
			checked = time.Now()
			if f.IntN(2) == 0 {
				b.kill()
			} else if err := b.stop(); err != nil {
				fail("%v", err)
			}
			if err := b.check(); err != nil && b.status == nil { // after kill -9 there may be a torn tail
				fail("%v", err)
			}
			if err := b.start(); err != nil {
				fail("%v", err)
			}
			serves()
		}
	}
	serves()
	t.Logf("%d bursts", bursts)
}
