package interop

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// schemasFile has what the newest Kafka's own classes demand of each response, by key and version. testdata/foreign/Schemas.java, which writes it, says what
// its lines mean. `make schemas` writes it anew from the jar of this version:
const (
	schemasFile  = "testdata/schemas/kafka"
	schemasKafka = "4.4.0"
)

// A kafkaKey is an API key as Kafka has it.
type kafkaKey struct {
	number, first, last int16
	name                string
	controller          bool // controllers serve it, and brokers do not
	forms               []form
}

// A form is how the responses of a range of versions are laid out.
type form struct {
	first, last int16
	flexible    bool
	body        *shape
}

// A shape is one type of a schema: a plain type by its name, a structure, or an array of one other shape.
type shape struct {
	plain    string
	fields   []member // of a structure
	tagged   map[uint64]member
	element  *shape // of an array
	nullable bool
	filled   bool // with nullable: Kafka's class has something else than null in it until it is set
}

type member struct {
	name string
	*shape
}

// schemas reads the table, once.
var schemas = sync.OnceValues(func() (map[int16]*kafkaKey, error) {
	text, err := os.ReadFile(schemasFile)
	if err != nil {
		return nil, err
	}
	all := map[int16]*kafkaKey{}
	var last *kafkaKey
	number := func(s string) int16 { n, e := strconv.ParseInt(s, 10, 16); err = errors.Join(err, e); return int16(n) }
	for i, line := range strings.Split(strings.TrimSpace(string(text)), "\n") {
		words := strings.Fields(line)
		switch {
		case i == 0 && line == "kafka "+schemasKafka:
		case words[0] == "key" && len(words) >= 5:
			last = &kafkaKey{number: number(words[1]), name: words[2], first: number(words[3]), last: number(words[4]), controller: len(words) > 5}
			all[last.number] = last
		case words[0] == "response" && len(words) == 5 && last != nil:
			rest := words[4]
			body, e := parseShape(&rest)
			if e != nil || rest != "" {
				return nil, fmt.Errorf("%s:%d: %v at %q", schemasFile, i+1, e, rest)
			}
			last.forms = append(last.forms, form{number(words[1]), number(words[2]), words[3] == "flexible", body})
		default:
			return nil, fmt.Errorf("%s:%d is not a line of the table: %q", schemasFile, i+1, line)
		}
	}
	return all, err
})

// parseShape reads one type and what stands behind it, and leaves the rest.
func parseShape(s *string) (*shape, error) {
	out := &shape{}
	take := func(c string) bool {
		rest, ok := strings.CutPrefix(*s, c)
		*s = rest
		return ok
	}
	word := func() string {
		n := strings.IndexAny(*s, ":,?!{}[]<>")
		if n < 0 {
			n = len(*s)
		}
		w := (*s)[:n]
		*s = (*s)[n:]
		return w
	}
	var err error
	switch {
	case take("["):
		if out.element, err = parseShape(s); err != nil || !take("]") {
			return nil, fmt.Errorf("an array without an end: %v", err)
		}
	case take("{"):
		out.fields = []member{}
		for !take("}") {
			if take("<") {
				out.tagged = map[uint64]member{}
				for !take(">") {
					tag, err := strconv.ParseUint(word(), 10, 32)
					if err != nil || !take(":") {
						return nil, fmt.Errorf("not a tagged field: %v", err)
					}
					m := member{name: word()}
					take(":")
					if m.shape, err = parseShape(s); err != nil {
						return nil, err
					}
					out.tagged[tag] = m
					take(",")
				}
			} else {
				m := member{name: word()}
				if m.name == "" || !take(":") {
					return nil, errors.New("a field without a name")
				}
				if m.shape, err = parseShape(s); err != nil {
					return nil, err
				}
				out.fields = append(out.fields, m)
			}
			take(",")
		}
	default:
		if out.plain = word(); out.plain == "" {
			return nil, errors.New("no type")
		}
	}
	if take("?") {
		out.nullable = true
	} else if take("!") {
		out.nullable, out.filled = true, true
	}
	return out, nil
}

// mayBeNull are the fields that Kafka's brokers send as null on purpose, though Kafka's classes have something else in them until they are set. All others of
// their kind are never null here.
var mayBeNull = map[string]string{
	"Fetch.responses.partitions.aborted_transactions": "there are none where uncommitted records are read (FetchResponse)",
	"Metadata.topics.name":                            "a topic that was asked for by an id that is not there",
	"DeleteTopics.responses.name":                     "likewise",
	"FindCoordinator.error_message":                   "no error",
	"FindCoordinator.coordinators.error_message":      "no error",
	"JoinGroup.protocol_name":                         "an error, or a group of which nothing is known",
	"LeaveGroup.members.group_instance_id":            "a member that is not static",
	"CreateTopics.topics.error_message":               "no error",
	"AlterConfigs.responses.error_message":            "no error",
	"IncrementalAlterConfigs.responses.error_message": "no error",
	"DescribeConfigs.results.error_message":           "no error",
	"DescribeConfigs.results.configs.documentation":   "it was not asked for",
	"ListPartitionReassignments.error_message":        "no error",
}

// A walk reads one response by its form.
type walk struct {
	b        []byte
	flexible bool
	seen     func(path string) // is told of each structure in an array, and of each null
}

var errShort = errors.New("it ends too early")

func (w *walk) take(n int) ([]byte, error) {
	if n < 0 || n > len(w.b) {
		return nil, errShort
	}
	b := w.b[:n]
	w.b = w.b[n:]
	return b, nil
}

func (w *walk) varint() (int, error) {
	v, n := binary.Uvarint(w.b)
	if n <= 0 || v > 1<<31 {
		return 0, errShort
	}
	w.b = w.b[n:]
	return int(v), nil
}

// length reads a length or a count, of so many bytes where the form is not flexible. -1 is null.
func (w *walk) length(size int) (int, error) {
	if w.flexible {
		n, err := w.varint()
		return n - 1, err
	}
	b, err := w.take(size)
	if err != nil {
		return 0, err
	}
	if size == 2 {
		return int(int16(binary.BigEndian.Uint16(b))), nil
	}
	return int(int32(binary.BigEndian.Uint32(b))), nil
}

// read reads what has that shape. path names it, in Kafka's words.
func (w *walk) read(s *shape, path string) error {
	null := func() error {
		if !s.nullable {
			return fmt.Errorf("%s is null, which Kafka's classes refuse", path)
		}
		if s.filled && mayBeNull[path] == "" {
			return fmt.Errorf("%s is null, which Kafka never sends and its clients do not expect", path)
		}
		w.seen(path + " null")
		return nil
	}
	size := map[string]int{"boolean": 1, "int8": 1, "int16": 2, "uint16": 2, "int32": 4, "uint32": 4, "int64": 8, "float64": 8, "uuid": 16}[s.plain]
	switch {
	case size > 0:
		_, err := w.take(size)
		return err
	case s.plain == "string", s.plain == "bytes", s.plain == "records":
		n, err := w.length(map[bool]int{true: 2, false: 4}[s.plain == "string"])
		if err == nil && n == -1 {
			return null()
		}
		if err == nil {
			_, err = w.take(n)
		}
		return err
	case s.plain != "":
		return fmt.Errorf("%s has the type %s, which this test cannot read", path, s.plain)
	case s.element != nil:
		n, err := w.length(4)
		if err == nil && n == -1 {
			return null()
		}
		for i := 0; i < n && err == nil; i++ {
			w.seen(path)
			err = w.read(s.element, path)
		}
		if err == nil && n < -1 {
			err = fmt.Errorf("%s has %d elements", path, n)
		}
		return err
	}
	if s.nullable { // a structure that may be absent
		there, err := w.take(1)
		if err != nil {
			return err
		}
		if int8(there[0]) < 0 {
			return null()
		}
		w.seen(path)
	}
	dot := func(name string) string { return path + "." + name }
	for _, m := range s.fields {
		if err := w.read(m.shape, dot(m.name)); err == errShort {
			return fmt.Errorf("%w, in %s", err, dot(m.name))
		} else if err != nil {
			return err
		}
	}
	if !w.flexible {
		return nil
	}
	n, err := w.varint()
	last := -1
	for ; n > 0 && err == nil; n-- {
		tag, e1 := w.varint()
		size, e2 := w.varint()
		raw, e3 := w.take(size)
		if err = errors.Join(e1, e2, e3); err != nil {
			break
		}
		m, known := s.tagged[uint64(tag)]
		switch {
		case !known:
			return fmt.Errorf("%s has a tag %d, which Kafka has not", path, tag)
		case tag <= last:
			return fmt.Errorf("%s has its tags out of order", path)
		}
		last = tag
		inner := walk{raw, true, w.seen}
		w.seen(dot(m.name))
		if err = inner.read(m.shape, dot(m.name)); err == nil && len(inner.b) > 0 {
			err = fmt.Errorf("%s has %d bytes too many", dot(m.name), len(inner.b))
		}
	}
	return err
}

// formed holds the body of a response against its form: every byte belongs to a field, and nothing is null that must not be.
func formed(key, version int16, body []byte, seen func(path string)) error {
	all, err := schemas()
	if err != nil {
		return err
	}
	k := all[key]
	if k == nil {
		return fmt.Errorf("Kafka %s has no key %d", schemasKafka, key)
	}
	if version < k.first {
		return nil // Kafka refuses it, with whatever its answer can hold
	}
	if seen == nil {
		seen = func(string) {}
	}
	for i := range k.forms {
		f := &k.forms[i]
		if version < f.first || version > f.last {
			continue
		}
		w := walk{body, f.flexible, seen}
		if err := w.read(f.body, k.name); err != nil {
			return fmt.Errorf("%s v%d: %w: %x", k.name, version, err, body[:min(len(body), 300)])
		}
		if len(w.b) > 0 {
			return fmt.Errorf("%s v%d has %d bytes too many: %x", k.name, version, len(w.b), body[:min(len(body), 300)])
		}
		return nil
	}
	return fmt.Errorf("Kafka %s has no version %d of %s", schemasKafka, version, k.name)
}

// whole are the nullable and repeated parts of a shape, by their paths: what a walk may see.
func (s *shape) whole(path string, add func(path string)) {
	if s.element != nil {
		add(path)
		s.element.whole(path, add)
	}
	for _, m := range s.fields {
		m.whole(path+"."+m.name, add)
	}
	for _, m := range s.tagged {
		m.whole(path+"."+m.name, add)
	}
}

// unseen are the parts of responses of which no answer of TestResponseForms has one, and why.
var unseen = map[string]string{
	"Produce.responses.partition_responses.record_errors":                "a refused batch is refused as a whole",
	"Produce.node_endpoints":                                             "the leader of a partition does not move while the broker runs",
	"Fetch.node_endpoints":                                               "likewise",
	"Fetch.responses.partitions.aborted_transactions":                    "there are no transactions",
	"ListPartitionReassignments.topics":                                  "no partition ever moves",
	"ListPartitionReassignments.topics.partitions":                       "likewise",
	"ListPartitionReassignments.topics.partitions.replicas":              "likewise",
	"ListPartitionReassignments.topics.partitions.adding_replicas":       "likewise",
	"ListPartitionReassignments.topics.partitions.removing_replicas":     "likewise",
	"Metadata.topics.partitions.offline_replicas":                        "there is one replica, and it is online",
	"DescribeTopicPartitions.topics.partitions.offline_replicas":         "likewise",
	"DescribeTopicPartitions.topics.partitions.eligible_leader_replicas": "likewise",
	"DescribeTopicPartitions.topics.partitions.last_known_elr":           "likewise",
	"ApiVersions.supported_features":                                     "there are none",
	"ApiVersions.finalized_features":                                     "there are none",
}

// TestResponseForms: every response of every key and version that is served is laid out as Kafka's own classes demand, and has no null where they or Kafka's
// clients expect none: for requests that name what is there and what is not, with every nullable field null and set, and with every list empty. Each part
// of each form is seen at least once.
func TestResponseForms(t *testing.T) {
	needReal(t, "it is about this broker")
	all, err := schemas()
	if err != nil {
		t.Fatal(err)
	}
	b := ownBroker(t, "--group-initial-rebalance-delay", "0s", "--group-min-session-timeout", "1s")
	r := &round{t: t, b: b, w: map[string]*wire{}, seen: map[string]bool{}}
	keys := mustAsk[*kmsg.ApiVersionsResponse](t, r.to(b.addr()), kmsg.NewPtrApiVersionsRequest()).ApiKeys
	for _, k := range keys {
		for version := max(k.MinVersion, all[k.ApiKey].first); version <= k.MaxVersion; version++ {
			for variant := range variants {
				r.ready()
				req := kmsg.RequestForKey(k.ApiKey)
				req.SetVersion(version)
				r.fill(reflect.ValueOf(req).Elem(), "", variant)
				r.tweak(req, variant)
				r.ask(req)
			}
		}
	}
	r.groups(keys)
	if t.Failed() {
		return
	}
	for _, k := range keys {
		for _, f := range all[k.ApiKey].forms {
			if f.first > k.MaxVersion {
				continue
			}
			f.body.whole(all[k.ApiKey].name, func(path string) {
				if r.seen[path] == (unseen[path] != "") {
					t.Errorf("%s: an answer had it: %t, and the list of what none has says %q", path, r.seen[path], unseen[path])
				}
			})
		}
	}
	for path := range mayBeNull {
		if !r.seen[path+" null"] {
			t.Errorf("%s may be null, and never was", path)
		}
	}
}

// A variant is one way to fill the fields of a request.
type variant struct {
	there bool // what it names is there
	yes   bool // what is said with yes or no
	set   bool // nullable fields are not null
	many  int  // elements of each list
}

var variants = []variant{
	{true, false, true, 1}, {true, true, true, 1}, {true, true, false, 1}, {true, false, false, 1}, {false, false, true, 1}, {false, true, false, 1}, {true, false, true, 0}, {false, true, false, 0},
	{true, false, true, 2},
}

// A round asks one broker for everything.
type round struct {
	t    *testing.T
	b    *broker
	w    map[string]*wire
	seen map[string]bool

	topic  string
	id     [16]byte
	leader string // of partition 0
	many   int    // topics of which nothing is known
}

func (r *round) to(addr string) *wire {
	if r.w[addr] == nil {
		r.w[addr] = dialTo(r.t, addr)
	}
	r.w[addr].SetDeadline(time.Now().Add(30 * time.Second))
	return r.w[addr]
}

// ready has a topic with a record of a producer, and a group with an offset: a request may have deleted them.
func (r *round) ready() {
	if r.topic != "" {
		m := mustAsk[*kmsg.MetadataResponse](r.t, r.to(r.b.addr()), r.metadata())
		if m.Topics[0].ErrorCode == 0 {
			return
		}
	}
	r.topic = topicName(r.t)
	r.leader = createTopic(r.t, r.b, r.topic, 1)
	r.id = idOf(r.t, r.b, r.topic)
	batch := batchOf("one", "two")
	batch.ProducerID, batch.ProducerEpoch, batch.FirstSequence = 7, 0, 0
	mustProduce(r.t, r.to(r.leader), r.topic, bytesOf(batch))
	commit := commitRequest("group.there", r.topic, 0, 1)
	mustAsk[*kmsg.OffsetCommitResponse](r.t, r.to(r.b.addr()), commit)
}

func (r *round) metadata() *kmsg.MetadataRequest {
	req := kmsg.NewPtrMetadataRequest()
	rt := kmsg.NewMetadataRequestTopic()
	rt.Topic = kmsg.StringPtr(r.topic)
	req.Version, req.Topics = 7, append(req.Topics, rt)
	return req
}

// fill sets every field of a request.
func (r *round) fill(v reflect.Value, field string, how int) {
	x := variants[how]
	switch v.Kind() {
	case reflect.Pointer:
		if !x.set && field != "Topic" {
			v.SetZero()
			return
		}
		v.Set(reflect.New(v.Type().Elem()))
		r.fill(v.Elem(), field, how)
	case reflect.Struct:
		if d, ok := v.Addr().Interface().(interface{ Default() }); ok {
			version := v.FieldByName("Version")
			was := int16(0)
			if version.IsValid() {
				was = int16(version.Int())
			}
			d.Default()
			if version.IsValid() {
				version.SetInt(int64(was))
			}
		}
		for i := range v.NumField() {
			name := v.Type().Field(i).Name
			if name != "Version" && name != "UnknownTags" && v.Field(i).CanSet() {
				r.fill(v.Field(i), name, how)
			}
		}
	case reflect.Slice:
		if v.Type().Elem().Kind() == reflect.Uint8 {
			v.SetBytes(subscribing(r.topic))
			if field == "Records" {
				v.SetBytes(bytesOf(batchOf("three")))
			}
			return
		}
		if x.many == 0 && !x.set {
			v.SetZero()
			return
		}
		v.Set(reflect.MakeSlice(v.Type(), x.many, x.many))
		for i := range x.many {
			r.fill(v.Index(i), field, how)
		}
	case reflect.Array: // a topic's id
		id := [16]byte{1, byte(r.many), byte(r.many >> 8), byte(r.many >> 16)}
		if x.there {
			id = r.id
		}
		reflect.Copy(v, reflect.ValueOf(id))
	case reflect.String:
		r.many++
		switch {
		case strings.Contains(field, "Topic") && x.there:
			v.SetString(r.topic)
		case strings.Contains(field, "Topic"):
			v.SetString(fmt.Sprint("not.there.", r.many))
		case (strings.Contains(field, "Group") || strings.HasPrefix(field, "CoordinatorKey")) && x.there:
			v.SetString("group.there")
		default:
			v.SetString(fmt.Sprint("word.", r.many))
		}
	case reflect.Bool:
		v.SetBool(x.yes)
	case reflect.Int32, reflect.Int64:
		switch {
		case strings.Contains(field, "Wait"), strings.Contains(field, "Timeout"):
			v.SetInt(1000)
		case strings.Contains(field, "Bytes"):
			v.SetInt(1 << 20)
		case strings.HasPrefix(field, "Partition") && !x.there:
			v.SetInt(77)
		case strings.HasPrefix(field, "Replicas"):
			v.SetInt(1)
		}
	}
}

// tweak sets what one key only has, so that its requests ask for something.
func (r *round) tweak(req kmsg.Request, how int) {
	x := variants[how]
	switch req := req.(type) {
	case *kmsg.ProduceRequest:
		req.Acks = 1
		if x.there {
			req.TransactionID = nil
		}
	case *kmsg.FetchRequest:
		req.MaxWaitMillis, req.SessionID, req.SessionEpoch = 1, 0, -1
		for i := range req.Topics {
			for k := range req.Topics[i].Partitions {
				p := &req.Topics[i].Partitions[k]
				p.CurrentLeaderEpoch = -1
				if x.yes { // it has read records of an epoch that is not this life's
					p.LastFetchedEpoch, p.FetchOffset = 0, 1
				} else if x.set && x.there {
					p.CurrentLeaderEpoch = 0 // long over
				}
			}
		}
	case *kmsg.ListOffsetsRequest:
		for i := range req.Topics {
			for k := range req.Topics[i].Partitions {
				req.Topics[i].Partitions[k].CurrentLeaderEpoch, req.Topics[i].Partitions[k].Timestamp = -1, -1
			}
		}
	case *kmsg.MetadataRequest:
		for i := range req.Topics {
			if x.set {
				req.Topics[i].TopicID = [16]byte{}
			} else if req.Version >= 10 {
				req.Topics[i].Topic = nil
			}
		}
	case *kmsg.CreateTopicsRequest:
		for i := range req.Topics {
			rt := &req.Topics[i]
			if rt.NumPartitions, rt.ReplicationFactor, rt.ReplicaAssignment = 1, 1, nil; x.many == 1 && (x.set || x.yes) {
				rt.Topic = fmt.Sprint("made.", r.many) // else it is there
			}
			for k := range rt.Configs {
				rt.Configs[k].Name, rt.Configs[k].Value = "retention.ms", kmsg.StringPtr("86400000")
			}
		}
	case *kmsg.DeleteTopicsRequest:
		for i := range req.Topics {
			if x.set {
				req.Topics[i].TopicID = [16]byte{}
			} else {
				req.Topics[i].Topic = nil
			}
		}
	case *kmsg.CreatePartitionsRequest:
		for i := range req.Topics {
			if req.Topics[i].Count = 2; x.yes {
				req.Topics[i].Assignment = nil
			}
			req.ValidateOnly = true
		}
	case *kmsg.DescribeConfigsRequest:
		for i := range req.Resources {
			res := &req.Resources[i]
			if res.ConfigNames = nil; x.there {
				res.ResourceType, res.ResourceName = kmsg.ConfigResourceTypeTopic, r.topic
			} else {
				res.ResourceType, res.ResourceName = kmsg.ConfigResourceTypeBroker, "0"
			}
		}
	case *kmsg.AlterConfigsRequest:
		for i := range req.Resources {
			req.ValidateOnly = true
			req.Resources[i].ResourceType = kmsg.ConfigResourceTypeTopic
			if x.there {
				req.Resources[i].ResourceName = r.topic
			}
			for k := range req.Resources[i].Configs {
				req.Resources[i].Configs[k].Name = "retention.ms"
				if x.set {
					req.Resources[i].Configs[k].Value = kmsg.StringPtr("86400000")
				}
			}
		}
	case *kmsg.IncrementalAlterConfigsRequest:
		for i := range req.Resources {
			req.ValidateOnly = true
			req.Resources[i].ResourceType = kmsg.ConfigResourceTypeTopic
			if x.there {
				req.Resources[i].ResourceName = r.topic
			}
			for k := range req.Resources[i].Configs {
				req.Resources[i].Configs[k].Name = "retention.ms"
				if x.set {
					req.Resources[i].Configs[k].Value = kmsg.StringPtr("86400000")
				}
			}
		}
	case *kmsg.DescribeTopicPartitionsRequest:
		if req.Cursor = nil; x.yes {
			req.ResponsePartitionLimit, req.Topics = 1, nil
		}
	case *kmsg.ElectLeadersRequest:
		req.TimeoutMillis = 1000
	case *kmsg.InitProducerIDRequest:
		if req.ProducerID, req.ProducerEpoch = -1, -1; x.there {
			req.TransactionalID = nil
		}
	case *kmsg.ListGroupsRequest:
		req.StatesFilter, req.TypesFilter = nil, nil
	case *kmsg.ListConfigResourcesRequest:
		req.ResourceTypes = nil
	case *kmsg.JoinGroupRequest:
		req.SessionTimeoutMillis, req.Group = 1000, "never" // with an id that no member has
	case *kmsg.DescribeClusterRequest:
		if req.EndpointType = 1; x.yes {
			req.EndpointType = 2
		}
	}
}

// ask asks the node that answers such a request, and another one, and holds what they say against its form.
func (r *round) ask(req kmsg.Request) {
	addrs := []string{r.b.addr(), r.leader}
	switch req.(type) {
	case *kmsg.ProduceRequest, *kmsg.FetchRequest, *kmsg.ListOffsetsRequest, *kmsg.OffsetForLeaderEpochRequest:
		slices.Reverse(addrs)
	}
	for _, addr := range addrs {
		w := r.to(addr)
		if err := w.send(req); err != nil {
			r.t.Fatal(err)
		}
		body, err := w.receiveRaw()
		if err != nil {
			r.t.Errorf("%s v%d is not answered: %v: %+v", kmsg.NameForKey(req.Key()), req.GetVersion(), err, req)
			delete(r.w, addr)
			continue
		}
		body = body[4:]
		if resp := req.ResponseKind(); resp.IsFlexible() && resp.Key() != 18 {
			body = body[1:]
		}
		if err := formed(req.Key(), req.GetVersion(), body, func(path string) { r.seen[path] = true }); err != nil {
			r.t.Error(err)
		}
	}
}

// groups walks members of both protocols through their lives, in every version of the keys of members.
func (r *round) groups(keys []kmsg.ApiVersionsResponseApiKey) {
	most := map[int16]int16{}
	for _, k := range keys {
		most[k.ApiKey] = k.MaxVersion
	}
	w := r.to(r.b.addr())
	for v := int16(0); v <= most[11]; v++ {
		group := fmt.Sprint("classic.", v)
		for _, instance := range []*string{nil, kmsg.StringPtr("instance")} {
			if instance != nil {
				if v < 5 {
					continue
				}
				group += ".static"
			}
			join := joinRequest(v, group, "")
			join.InstanceID = instance
			j := mustAsk[*kmsg.JoinGroupResponse](r.t, w, join)
			join.MemberID = j.MemberID
			r.ask(join)
			if j = mustAsk[*kmsg.JoinGroupResponse](r.t, w, join); j.ErrorCode != 0 {
				r.t.Fatalf("joined: %+v", j)
			}
			sync := kmsg.NewPtrSyncGroupRequest()
			sync.Version, sync.Group, sync.Generation, sync.MemberID, sync.InstanceID = min(v, most[14]), group, j.Generation, j.MemberID, instance
			sync.ProtocolType, sync.Protocol = kmsg.StringPtr("consumer"), kmsg.StringPtr("range")
			a := kmsg.NewSyncGroupRequestGroupAssignment()
			a.MemberID, a.MemberAssignment = j.MemberID, []byte("mine")
			sync.GroupAssignment = append(sync.GroupAssignment, a)
			r.ask(sync)
			beat := kmsg.NewPtrHeartbeatRequest()
			beat.Version, beat.Group, beat.Generation, beat.MemberID, beat.InstanceID = min(v, most[12]), group, j.Generation, j.MemberID, instance
			r.ask(beat)
			describe := kmsg.NewPtrDescribeGroupsRequest()
			describe.Version, describe.Groups = min(v, most[15]), []string{group}
			r.ask(describe)
			leave := kmsg.NewPtrLeaveGroupRequest()
			m := kmsg.NewLeaveGroupRequestMember()
			m.MemberID, m.InstanceID = j.MemberID, instance
			leave.Version, leave.Group, leave.MemberID, leave.Members = min(v, most[13]), group, j.MemberID, append(leave.Members, m)
			r.ask(leave)
		}
	}
	for v := int16(0); v <= most[68]; v++ {
		r.ready()
		beat := kmsg.NewPtrConsumerGroupHeartbeatRequest()
		beat.Version, beat.Group, beat.RebalanceTimeoutMillis, beat.SubscribedTopicNames, beat.Topics = v, fmt.Sprint("consumer.", v), 1000, []string{r.topic}, []kmsg.ConsumerGroupHeartbeatRequestTopic{}
		beat.InstanceID, beat.RackID = kmsg.StringPtr("instance"), kmsg.StringPtr("rack")
		if v >= 1 {
			beat.MemberID = "member"
		}
		b := mustAsk[*kmsg.ConsumerGroupHeartbeatResponse](r.t, w, beat)
		if b.ErrorCode != 0 {
			r.t.Fatalf("joined: %+v", b)
		}
		beat.MemberEpoch = 0
		r.ask(beat) // its full state once more
		describe := kmsg.NewPtrConsumerGroupDescribeRequest()
		describe.Version, describe.Groups = min(v, most[69]), []string{beat.Group}
		r.ask(describe)
		remove := kmsg.NewPtrOffsetDeleteRequest()
		rt := kmsg.NewOffsetDeleteRequestTopic()
		rt.Topic, rt.Partitions = r.topic, []kmsg.OffsetDeleteRequestTopicPartition{{}}
		remove.Group, remove.Topics = beat.Group, append(remove.Topics, rt)
		r.ask(remove)
	}
}

// TestFormed: the check itself finds what it is there for.
func TestFormed(t *testing.T) {
	create := kmsg.NewPtrCreateTopicsResponse()
	create.Version, create.Topics = 7, append(create.Topics, kmsg.NewCreateTopicsResponseTopic())
	create.Topics[0].Configs = []kmsg.CreateTopicsResponseTopicConfig{}
	good := create.AppendTo(nil)
	if err := formed(19, 7, good, nil); err != nil {
		t.Error(err)
	}
	create.Topics[0].Configs = nil
	fetch := kmsg.NewPtrOffsetFetchResponse()
	fetch.Version, fetch.Topics = 5, append(fetch.Topics, kmsg.NewOffsetFetchResponseTopic())
	fetch.Topics[0].Partitions = append(fetch.Topics[0].Partitions, kmsg.NewOffsetFetchResponseTopicPartition())
	for what, err := range map[string]error{
		"topics.configs is null":      formed(19, 7, create.AppendTo(nil), nil),
		"partitions.metadata is null": formed(9, 5, fetch.AppendTo(nil), nil),
		"1 bytes too many":            formed(19, 7, append(slices.Clone(good), 0), nil),
		"it ends too early":           formed(19, 7, good[:len(good)-1], nil),
		"topics is null":              formed(19, 7, append(slices.Clone(good[:4]), 0, 0), nil),
		"which Kafka has not":         formed(19, 7, append(slices.Clone(good[:len(good)-1]), 1, 9, 0), nil),
		"no version 8":                formed(19, 8, good, nil),
	} {
		if err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("%q: %v", what, err)
		}
	}
}

// kafkaJar is Kafka's own client, of which the schemas are read.
var kafkaJar = foreign{"schemas of Kafka", schemasKafka, []string{"java", "mvn"},
	[]string{"mvn", "-q", "-B", "dependency:copy", "-Dartifact=org.apache.kafka:kafka-clients:" + schemasKafka, "-DoutputDirectory=DIR"}, nil}

// TestSchemas: the table of schemas is what Kafka's classes say. With TAILBOUND_SCHEMAS=write it writes the table.
func TestSchemas(t *testing.T) {
	write := os.Getenv("TAILBOUND_SCHEMAS") == "write"
	if !write && os.Getenv("TAILBOUND_TESTS") != "long" {
		t.Skip("with TAILBOUND_TESTS=long: Kafka's jar does not change")
	}
	dir, why := kafkaJar.had(t)
	if why != "" {
		t.Skip(why)
	}
	said := &bytes.Buffer{}
	cmd := exec.CommandContext(within(t, time.Minute), "java", "-cp", filepath.Join(dir, "*"), "testdata/foreign/Schemas.java")
	cmd.Stderr = said
	text, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, said)
	}
	if write {
		if err := os.WriteFile(schemasFile, text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if have, err := os.ReadFile(schemasFile); err != nil || !bytes.Equal(have, text) {
		t.Errorf("%s is not what Kafka's classes say (%v); run `make schemas`", schemasFile, err)
	}
}
