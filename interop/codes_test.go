package interop

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// More of docs/ERRORS.md: codes that few clients see.

// TestEveryCharacter: a topic's name may have the characters that Kafka's may, and no other, wherever in it they stand.
func TestEveryCharacter(t *testing.T) {
	b := sharedBroker(t)
	needReal(t, "it takes any name")
	w := dialTo(t, b.addr())
	topic := topicName(t)
	var names []string
	for c := range 256 {
		names = append(names, fmt.Sprintf("%s%cx", topic, byte(c)), topic+string(rune(c)), string([]byte{byte(c)})+topic, topic+"."+string([]byte{byte(c)}))
	}
	for _, c := range "ſKÅΑа٠０\u00ad\u200b\u202e\u2028\ufeff\U0001f600\U000e0041" { // look like others, are no width, turn the line around
		names = append(names, topic+string(c), string(c)+topic)
	}
	req := createRequest()
	req.ValidateOnly = true
	asked := map[string]bool{}
	for _, n := range names {
		if !asked[n] {
			asked[n] = true
			req.Topics = append(req.Topics, aTopic(n, 1, 1))
		}
	}
	const allowed = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-"
	good := 0
	for _, x := range mustAsk[*kmsg.CreateTopicsResponse](t, w, req).Topics {
		want := int16(0)
		for i := range len(x.Topic) {
			if !strings.Contains(allowed, x.Topic[i:i+1]) {
				want = kerr.InvalidTopicException.Code
			}
		}
		if x.ErrorCode != want {
			t.Errorf("%q: error %d, want %d", x.Topic, x.ErrorCode, want)
		}
		if want == 0 {
			good++
		}
	}
	if good < 3*len(allowed) {
		t.Errorf("only %d of the names were good ones", good)
	}
}

// TestCollidingNames: two topics whose names differ only in '.' and '_' cannot be, as in Kafka.
func TestCollidingNames(t *testing.T) {
	needReal(t, "it takes both")
	b := sharedBroker(t)
	w := dialTo(t, b.addr())
	name := strings.ReplaceAll(topicName(t), ".", "_")
	one, other := name+".a_b", name+"_a.b"
	createTopic(t, b, one, 1)
	x := mustAsk[*kmsg.CreateTopicsResponse](t, w, createRequest(aTopic(other, 1, 1))).Topics[0]
	if x.ErrorCode != kerr.InvalidTopicException.Code || x.ErrorMessage == nil || !strings.Contains(*x.ErrorMessage, "collides with existing topic: "+one) {
		t.Errorf("%s beside %s: %+v", other, one, x)
	}
	if m := makingMetadata(t, b, other); m.Topics[0].ErrorCode == 0 {
		t.Errorf("metadata made %s beside %s", other, one)
	}
}

// makingMetadata asks for a topic that is to be made where it is not there.
func makingMetadata(t *testing.T, b *broker, topic string) *kmsg.MetadataResponse {
	t.Helper()
	req := kmsg.NewPtrMetadataRequest()
	rt := kmsg.NewMetadataRequestTopic()
	rt.Topic = &topic
	req.Version, req.AllowAutoTopicCreation, req.Topics = 4, true, append(req.Topics, rt)
	return mustAsk[*kmsg.MetadataResponse](t, dialTo(t, b.addr()), req)
}

// TestTransactional: a client that wants a transaction is refused at once, with a code on which no client retries.
func TestTransactional(t *testing.T) {
	needReal(t, "it has transactions")
	b := sharedBroker(t)
	topic := topicName(t)
	leader := createTopic(t, b, topic, 1)
	w := dialTo(t, b.addr())
	refusedWith := kerr.TransactionalIDAuthorizationFailed.Code
	id, empty := "tx", ""
	initID := kmsg.NewPtrInitProducerIDRequest()
	initID.Version, initID.TransactionalID, initID.TransactionTimeoutMillis = 4, &id, 60000
	if code := mustAsk[*kmsg.InitProducerIDResponse](t, w, initID).ErrorCode; code != refusedWith {
		t.Errorf("InitProducerId with a transactional id: error %d", code)
	}
	initID.TransactionalID = &empty
	if code := mustAsk[*kmsg.InitProducerIDResponse](t, w, initID).ErrorCode; code != kerr.InvalidRequest.Code {
		t.Errorf("InitProducerId with an empty transactional id: error %d", code)
	}
	initID.TransactionalID, initID.ProducerID = nil, 7
	if code := mustAsk[*kmsg.InitProducerIDResponse](t, w, initID).ErrorCode; code != kerr.InvalidRequest.Code {
		t.Errorf("InitProducerId with a producer id and no epoch: error %d", code)
	}
	initID.ProducerID = -1
	if x := mustAsk[*kmsg.InitProducerIDResponse](t, w, initID); x.ErrorCode != 0 || x.ProducerID < 0 {
		t.Errorf("InitProducerId of an idempotent producer: %+v", x)
	}
	find := kmsg.NewPtrFindCoordinatorRequest()
	for _, version := range []int16{1, 4} {
		for kind, want := range map[int8]int16{1: refusedWith, 9: kerr.InvalidRequest.Code, -1: kerr.InvalidRequest.Code} {
			find.Version, find.CoordinatorType, find.CoordinatorKey, find.CoordinatorKeys = version, kind, id, []string{id}
			x := mustAsk[*kmsg.FindCoordinatorResponse](t, w, find)
			code := x.ErrorCode
			if version >= 4 {
				code = x.Coordinators[0].ErrorCode
			}
			if code != want {
				t.Errorf("FindCoordinator %d of type %d: error %d, want %d", version, kind, code, want)
			}
		}
	}
	p := produceRequest(topic, 7, -1, bytesOf(batchOf("in a transaction")))
	p.TransactionID = &id
	if code := errorIn(mustAsk[*kmsg.ProduceResponse](t, dialTo(t, leader), p)); code != refusedWith {
		t.Errorf("Produce with a transactional id: error %d", code)
	}
	if end := endOf(t, leader, topic); end != 0 {
		t.Errorf("%d records were stored", end)
	}
	// A real client gives up at once.
	c, err := (franz{}).dial(b, kgo.TransactionalID(id))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx := within(t, 20*time.Second)
	err = c.BeginTransaction()
	if err == nil {
		err = c.ProduceSync(ctx, &kgo.Record{Topic: topic, Value: []byte("v")}).FirstErr()
	}
	if refused(err) != refusedWith {
		t.Errorf("a transactional client: %v", err)
	}
}

// TestCodes: what is asked in a way that only a program that is wrong asks in.
func TestCodes(t *testing.T) {
	needReal(t, "it takes more than Kafka does")
	b := sharedBroker(t)
	adm := admin(t, b)
	topic := topicName(t)
	leader := configured(t, b, adm, topic, map[string]string{"segment.bytes": "1048576", "max.message.bytes": "1048588"})
	cluster := func(endpoint int8) *kmsg.DescribeClusterRequest {
		r := kmsg.NewPtrDescribeClusterRequest()
		r.Version, r.EndpointType = 1, endpoint
		return r
	}
	describe := func(kind kmsg.ConfigResourceType, name string) *kmsg.DescribeConfigsRequest {
		r := kmsg.NewPtrDescribeConfigsRequest()
		x := kmsg.NewDescribeConfigsRequestResource()
		x.ResourceType, x.ResourceName = kind, name
		r.Version, r.Resources = 4, append(r.Resources, x)
		return r
	}
	alter := func(kind kmsg.ConfigResourceType, name string) *kmsg.IncrementalAlterConfigsRequest {
		r := kmsg.NewPtrIncrementalAlterConfigsRequest()
		x := kmsg.NewIncrementalAlterConfigsRequestResource()
		x.ResourceType, x.ResourceName = kind, name
		r.Version, r.Resources = 1, append(r.Resources, x)
		return r
	}
	list := kmsg.NewPtrListConfigResourcesRequest()
	list.Version, list.ResourceTypes = 1, []int8{2, 77}
	byID := kmsg.NewPtrMetadataRequest()
	q := kmsg.NewMetadataRequestTopic()
	q.TopicID = [16]byte{1, 2, 3}
	byID.Version, byID.Topics = 12, append(byID.Topics, q)
	grow := kmsg.NewPtrCreatePartitionsRequest()
	grow.Version, grow.TimeoutMillis = 3, 10000
	for range 2 {
		x := kmsg.NewCreatePartitionsRequestTopic()
		x.Topic, x.Count = topic, 9
		grow.Topics = append(grow.Topics, x)
	}
	nowhere := kmsg.NewPtrCreatePartitionsRequest()
	nowhere.Version, nowhere.TimeoutMillis = 3, 10000
	gone := kmsg.NewCreatePartitionsRequestTopic()
	gone.Topic, gone.Count = topic+".gone", 2
	nowhere.Topics = append(nowhere.Topics, gone)
	zstd := batchOf("compressed")
	zstd.Attributes |= 4
	zstd.Records = append([]byte{0x28, 0xb5, 0x2f, 0xfd}, zstd.Records...)
	wide := bytesOf(batchOf(strings.Repeat("x", 1048588-75)))
	if len(wide) <= 1<<20 || len(wide) > 1048588 {
		t.Fatalf("the batch has %d bytes", len(wide))
	}
	named := func(version int16, name, software string) *kmsg.ApiVersionsRequest {
		r := kmsg.NewPtrApiVersionsRequest()
		r.Version, r.ClientSoftwareName, r.ClientSoftwareVersion = version, name, software
		return r
	}
	meant := func(cluster *string, node int32) *kmsg.ApiVersionsRequest {
		r := named(5, "interop", "1")
		r.ClusterID, r.NodeID = cluster, node
		return r
	}
	here := metadata(t, dialTo(t, b.addr()), topic)
	self, led := here.ControllerID, here.Topics[0].Partitions[0].Leader
	at := func(version int16, time int64) *kmsg.ListOffsetsRequest {
		return listRequest(topic, version, time)
	}
	commit := commitRequest("codes", "", 0, 1)
	commit.Version, commit.Topics[0].TopicID = 10, [16]byte{1, 2, 3}
	fetch := kmsg.NewPtrOffsetFetchRequest()
	of, ofTopic := kmsg.NewOffsetFetchRequestGroup(), kmsg.NewOffsetFetchRequestGroupTopic()
	ofTopic.TopicID, ofTopic.Partitions = [16]byte{1, 2, 3}, []int32{0}
	of.Group, of.Topics = "codes", append(of.Topics, ofTopic)
	fetch.Version, fetch.Groups = 10, append(fetch.Groups, of)
	share := kmsg.NewPtrFindCoordinatorRequest()
	share.Version, share.CoordinatorType, share.CoordinatorKeys = 6, 2, []string{"g:AAAAAAAAAAAAAAAAAAAAAA:0"}
	noGroup := kmsg.NewPtrDeleteGroupsRequest()
	noGroup.Version, noGroup.Groups = 3, []string{"codes.gone"}
	for _, c := range []struct {
		what string
		addr string
		req  kmsg.Request
		want *kerr.Error
	}{
		{"ApiVersions of this node", b.addr(), meant(here.ClusterID, self), &kerr.Error{}},
		{"ApiVersions of this data shard's node", leader, meant(here.ClusterID, led), &kerr.Error{}},
		{"ApiVersions of no node", leader, meant(nil, -1), &kerr.Error{}},
		{"ApiVersions of another node", leader, meant(here.ClusterID, self), kerr.RebootstrapRequired},
		{"ApiVersions of a node that is not there", b.addr(), meant(here.ClusterID, 12345), kerr.RebootstrapRequired},
		{"ApiVersions of another cluster", b.addr(), meant(kmsg.StringPtr("another"), self), kerr.RebootstrapRequired},
		{"ApiVersions of a node of no cluster", b.addr(), meant(nil, self), kerr.InvalidRequest},
		{"ApiVersions of a cluster without a node", leader, meant(here.ClusterID, -1), kerr.InvalidRequest},
		{"ListOffsets of a time that means nothing", leader, at(11, -7), kerr.UnsupportedVersion},
		{"ListOffsets of the least time", leader, at(1, -1<<63), kerr.UnsupportedVersion},
		{"ListOffsets of a meaning that its version has not", leader, at(6, -3), kerr.UnsupportedVersion},
		{"ListOffsets of what waits to be uploaded", leader, at(11, -6), &kerr.Error{}},
		{"ListOffsets of what was uploaded", leader, at(9, -5), &kerr.Error{}},
		{"OffsetCommit by an id that is not there", b.addr(), commit, kerr.UnknownTopicID},
		{"OffsetFetch by an id that is not there", b.addr(), fetch, kerr.UnknownTopicID},
		{"FindCoordinator of a share group", b.addr(), share, kerr.InvalidRequest},
		{"DeleteGroups of a group that is not there", b.addr(), noGroup, kerr.GroupIDNotFound},
		{"ApiVersions of no software", b.addr(), named(3, "", "1"), kerr.InvalidRequest},
		{"ApiVersions of software without a version", leader, named(4, "interop", ""), kerr.InvalidRequest},
		{"ApiVersions of software with a space", leader, named(3, "inter op", "1"), kerr.InvalidRequest},
		{"ApiVersions of a version that ends in a dot", b.addr(), named(4, "interop", "1."), kerr.InvalidRequest},
		{"DescribeCluster of controllers", b.addr(), cluster(2), kerr.MismatchedEndpointType},
		{"DescribeCluster of nobody", b.addr(), cluster(7), kerr.UnsupportedEndpointType},
		{"DescribeConfigs of all brokers' loggers", b.addr(), describe(8, ""), kerr.InvalidRequest},
		{"DescribeConfigs of an unknown kind", b.addr(), describe(77, "0"), kerr.InvalidRequest},
		{"DescribeConfigs of an unknown topic", b.addr(), describe(2, topic+".gone"), kerr.UnknownTopicOrPartition},
		{"DescribeConfigs of what cannot be a topic", b.addr(), describe(2, "in valid"), kerr.InvalidTopicException},
		{"ListConfigResources of an unknown kind", b.addr(), list, kerr.UnsupportedVersion},
		{"IncrementalAlterConfigs of an unknown kind", b.addr(), alter(77, "0"), kerr.InvalidRequest},
		{"Metadata by an id that is not there", b.addr(), byID, kerr.UnknownTopicID},
		{"CreatePartitions of a topic twice", b.addr(), grow, kerr.InvalidRequest},
		{"CreatePartitions of an unknown topic", b.addr(), nowhere, kerr.UnknownTopicOrPartition},
		{"zstd in Produce 6", leader, produceRequest(topic, 6, -1, bytesOf(zstd)), kerr.UnsupportedCompressionType},
		{"a batch larger than a segment", leader, produceRequest(topic, 7, -1, wide), kerr.RecordListTooLarge},
	} {
		resp, err := dialTo(t, c.addr).ask(c.req)
		if err != nil {
			t.Errorf("%s: %v", c.what, err)
		} else if code := anyError(resp); code != c.want.Code {
			t.Errorf("%s: error %d (%v), want %v", c.what, code, kerr.ErrorForCode(code), c.want)
		}
	}
	if end := endOf(t, leader, topic); end != 0 {
		t.Errorf("%d records were stored", end)
	}
	// Stored zstd is not sent to clients whose version does not know it.
	if _, err := (franz{}).produce(within(t, time.Minute), b, topic, produceOptions{acks: -1, codec: "zstd"}, []record{{timeMS: dawn + 1, value: []byte(strings.Repeat("z", 1000))}}); err != nil {
		t.Fatal(err)
	}
	for version, want := range map[int16]int16{9: kerr.UnsupportedCompressionType.Code, 10: 0} {
		if code := errorIn(mustAsk[*kmsg.FetchResponse](t, dialTo(t, leader), fetchRequest(topic, version, 0, 0))); code != want {
			t.Errorf("Fetch %d of zstd: error %d, want %d", version, code, want)
		}
	}
}

// TestOffsetsNamedTwice: a partition that one ListOffsets names twice is refused, wherever it is named again; the others are answered, and so is the
// next request.
func TestOffsetsNamedTwice(t *testing.T) {
	needReal(t, "it answers twice")
	b := sharedBroker(t)
	topic := topicName(t)
	leader := createTopic(t, b, topic, 1)
	other := topicName(t) + ".other"
	createTopic(t, b, other, 1)
	mustProduce(t, dialTo(t, leader), topic, bytesOf(batchOf("a", "b")))
	for _, addr := range []string{leader, b.addr()} { // where it is, and where nothing is
		w := dialTo(t, addr)
		for version := int16(1); version <= 8; version++ {
			for _, apart := range []bool{false, true} {
				r := listRequest(topic, version, -1)
				again := listRequest(topic, version, -2).Topics[0]
				if apart {
					r.Topics = append(r.Topics, listRequest(other, version, -1).Topics[0], again)
				} else {
					r.Topics[0].Partitions = append(r.Topics[0].Partitions, again.Partitions...)
				}
				for _, x := range mustAsk[*kmsg.ListOffsetsResponse](t, w, r).Topics {
					for _, p := range x.Partitions {
						if invalid := p.ErrorCode == kerr.InvalidRequest.Code; invalid != (x.Topic == topic) {
							t.Errorf("version %d, apart %v: %s: error %d, offset %d", version, apart, x.Topic, p.ErrorCode, p.Offset)
						}
					}
				}
			}
			once := mustAsk[*kmsg.ListOffsetsResponse](t, w, listRequest(topic, version, -1)).Topics[0].Partitions[0]
			if addr == leader && (once.ErrorCode != 0 || once.Offset != 2) || addr != leader && once.ErrorCode != kerr.NotLeaderForPartition.Code {
				t.Errorf("version %d, named once: error %d, offset %d", version, once.ErrorCode, once.Offset)
			}
		}
	}
}

// anyError is the first error code in an answer of a kind that errorIn has not.
func anyError(resp kmsg.Response) int16 {
	switch r := resp.(type) {
	case *kmsg.ApiVersionsResponse:
		return r.ErrorCode
	case *kmsg.DescribeClusterResponse:
		return r.ErrorCode
	case *kmsg.OffsetCommitResponse:
		return r.Topics[0].Partitions[0].ErrorCode
	case *kmsg.OffsetFetchResponse:
		return r.Groups[0].Topics[0].Partitions[0].ErrorCode
	case *kmsg.DeleteGroupsResponse:
		if r.Groups[0].ErrorCode != 0 && r.Groups[0].ErrorMessage == nil {
			return -2
		}
		return r.Groups[0].ErrorCode
	case *kmsg.DescribeConfigsResponse:
		return r.Resources[0].ErrorCode
	case *kmsg.ListConfigResourcesResponse:
		return r.ErrorCode
	case *kmsg.IncrementalAlterConfigsResponse:
		return r.Resources[0].ErrorCode
	case *kmsg.MetadataResponse:
		return r.Topics[0].ErrorCode
	case *kmsg.CreatePartitionsResponse:
		return r.Topics[0].ErrorCode
	}
	return errorIn(resp)
}

// TestDeletedWhileConsumed: a fetch that waits for records of a topic that is deleted is answered at once; a consumer that finds a new topic of that name
// reads the new one.
func TestDeletedWhileConsumed(t *testing.T) {
	needReal(t, "it lets them wait")
	b := sharedBroker(t)
	topic := topicName(t)
	leader := createTopic(t, b, topic, 1)
	mustProduce(t, dialTo(t, leader), topic, bytesOf(batchOf("of the old one")))
	byID := fetchRequest("", 13, 1, 30*time.Second)
	byID.Topics[0].TopicID = idOf(t, b, topic)
	type answer struct {
		code int16
		took time.Duration
		err  error
	}
	answers := make(chan answer, 2)
	begun := time.Now()
	for _, req := range []*kmsg.FetchRequest{fetchRequest(topic, 11, 1, 30*time.Second), byID} {
		w := dialTo(t, leader)
		go func() {
			resp, err := w.ask(req)
			a := answer{err: err, took: time.Since(begun)}
			if f, ok := resp.(*kmsg.FetchResponse); ok && err == nil {
				if a.code = f.ErrorCode; a.code == 0 && len(f.Topics) > 0 {
					a.code = f.Topics[0].Partitions[0].ErrorCode
				}
			}
			answers <- a
		}()
	}
	time.Sleep(200 * time.Millisecond) // most of the time they wait by then
	ctx := within(t, time.Minute)
	c := clients["franz-go"]
	if err := c.remove(ctx, b, topic); err != nil {
		t.Fatal(err)
	}
	if err := c.create(ctx, b, topic, 1, 1); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		a := <-answers
		if a.err != nil || a.took > 20*time.Second {
			t.Errorf("who waited was answered after %v: %v", a.took, a.err)
		}
		switch a.code {
		case kerr.UnknownTopicOrPartition.Code, kerr.UnknownTopicID.Code:
		default:
			t.Errorf("who waited was answered with error %d", a.code)
		}
	}
	now := leaderOf(t, b, topic, 0)
	byID.MaxWaitMillis = 0
	if code := errorIn(mustAsk[*kmsg.FetchResponse](t, dialTo(t, now), byID)); code != kerr.UnknownTopicID.Code {
		t.Errorf("Fetch by the id of the old one: error %d", code)
	}
	mustProduce(t, dialTo(t, now), topic, bytesOf(batchOf("of the new one")))
	got, err := c.consume(ctx, b, topic, zeroes(1), []int{1})
	if err != nil || string(got[0].value) != "of the new one" {
		t.Errorf("the new topic holds %v, %v", got, err)
	}
}

// TestDeletedThenKilled: what was deleted, and what was made anew under its name, stays so through kill -9 at any moment of the recovery.
func TestDeletedThenKilled(t *testing.T) {
	t.Parallel()
	needReal(t, "it cannot be killed")
	b := ownBroker(t)
	ctx := within(t, 2*time.Minute)
	c := clients["franz-go"]
	const partitions = 6
	for life := range 4 {
		kept, gone := fmt.Sprint("kept.", life), fmt.Sprint("gone.", life)
		for _, name := range []string{kept, gone} {
			if err := c.create(ctx, b, name, partitions, 1); err != nil {
				t.Fatal(err)
			}
			var rs []record
			for p := range int32(partitions) {
				rs = append(rs, record{partition: p, timeMS: dawn + 1, value: []byte("old")})
			}
			if _, err := c.produce(ctx, b, name, produceOptions{acks: -1}, rs); err != nil {
				t.Fatal(err)
			}
			if err := c.remove(ctx, b, name); err != nil {
				t.Fatal(err)
			}
		}
		if err := c.create(ctx, b, kept, partitions, 1); err != nil {
			t.Fatal(err)
		}
		id := idOf(t, b, kept)
		b.kill()
		for cut := range life { // recoveries that are killed while they let the old ones go
			if err := b.stillborn(time.Duration(20+40*cut) * time.Millisecond); err != nil {
				t.Fatal(err)
			}
		}
		if err := b.start(); err != nil {
			t.Fatal(err)
		}
		if now := idOf(t, b, kept); now != id {
			t.Errorf("life %d: %s has id %x, had %x", life, kept, now, id)
		}
		for p := range int32(partitions) {
			if end := mustAsk[*kmsg.ListOffsetsResponse](t, dialTo(t, leaderOf(t, b, kept, p)), listPartition(kept, p)).Topics[0].Partitions[0]; end.ErrorCode != 0 || end.Offset != 0 {
				t.Errorf("life %d: partition %d of the new %s: error %d, end %d", life, p, kept, end.ErrorCode, end.Offset)
			}
		}
		req := kmsg.NewPtrMetadataRequest()
		rt := kmsg.NewMetadataRequestTopic()
		rt.Topic = &gone
		req.Version, req.Topics = 4, append(req.Topics, rt)
		if code := mustAsk[*kmsg.MetadataResponse](t, dialTo(t, b.addr()), req).Topics[0].ErrorCode; code != kerr.UnknownTopicOrPartition.Code {
			t.Errorf("life %d: %s, which was deleted: error %d", life, gone, code)
		}
	}
}

// TestPartitionsMax: where there are as many partitions as there may be, more are refused with the number, and everything else goes on.
func TestPartitionsMax(t *testing.T) {
	needReal(t, "it has no limit")
	b := ownBroker(t, "--partitions-max", "10")
	w := dialTo(t, b.addr())
	if x := mustAsk[*kmsg.CreateTopicsResponse](t, w, createRequest(aTopic("first", 8, 1))).Topics[0]; x.ErrorCode != 0 {
		t.Fatalf("%+v", x)
	}
	for _, x := range mustAsk[*kmsg.CreateTopicsResponse](t, w, createRequest(aTopic("more", 3, 1), aTopic("fits", 1, 1))).Topics {
		want := map[string]int16{"more": kerr.PolicyViolation.Code}[x.Topic]
		if x.ErrorCode != want || want != 0 && (x.ErrorMessage == nil || !strings.Contains(*x.ErrorMessage, "at most 10")) {
			t.Errorf("%s: %+v", x.Topic, x)
		}
	}
	if x := updatePartitions(t, b, "first", 10, false); x.ErrorCode != kerr.PolicyViolation.Code && x.ErrorCode != kerr.InvalidPartitions.Code {
		t.Errorf("growing beyond: %+v", x)
	}
	if x := updatePartitions(t, b, "first", 9, false); x.ErrorCode != 0 {
		t.Errorf("growing to what fits: %+v", x)
	}
	if m := makingMetadata(t, b, "made.by.metadata"); m.Topics[0].ErrorCode == 0 {
		t.Error("metadata made one more")
	}
	ctx := within(t, time.Minute)
	c := clients["franz-go"]
	if _, err := c.produce(ctx, b, "fits", produceOptions{acks: -1}, []record{{timeMS: dawn + 1, value: []byte("on")}}); err != nil {
		t.Errorf("producing goes on: %v", err)
	}
	// What is deleted makes room.
	if err := c.remove(ctx, b, "fits"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "room for another", func() bool {
		return mustAsk[*kmsg.CreateTopicsResponse](t, w, createRequest(aTopic("another", 1, 1))).Topics[0].ErrorCode == 0
	})
}

// TestLeaderNotYet: metadata names a partition's leader when it leads, and says LEADER_NOT_AVAILABLE before.
func TestLeaderNotYet(t *testing.T) {
	needReal(t, "its partitions are there at once")
	b := sharedBroker(t)
	const partitions = 300
	topic := topicName(t)
	made := make(chan error, 1)
	go func() {
		w, err := dial(b.addr())
		if err == nil {
			_, err = w.ask(createRequest(aTopic(topic, partitions, 1)))
			w.Close()
		}
		made <- err
	}()
	leaders := map[string]*wire{}
	yet := 0
	for done := false; !done; {
		m := metadata(t, dialTo(t, b.addr()), topic)
		addr := map[int32]string{}
		for _, n := range m.Brokers {
			addr[n.NodeID] = fmt.Sprintf("%s:%d", n.Host, n.Port)
		}
		done = len(m.Topics[0].Partitions) == partitions
		for i, p := range m.Topics[0].Partitions {
			switch p.ErrorCode {
			case 0:
			case kerr.LeaderNotAvailable.Code:
				yet, done = yet+1, false
				continue
			default:
				t.Fatalf("partition %d: error %d", p.Partition, p.ErrorCode)
			}
			if i%29 != 0 { // some of them
				continue
			}
			w := leaders[addr[p.Leader]]
			if w == nil {
				w = dialTo(t, addr[p.Leader])
				leaders[addr[p.Leader]] = w
			}
			if code := errorIn(mustAsk[*kmsg.ListOffsetsResponse](t, w, listPartition(topic, p.Partition))); code != 0 {
				t.Fatalf("partition %d: metadata names its leader, which answers with error %d", p.Partition, code)
			}
		}
	}
	t.Logf("%d times a leader was not there yet", yet)
	if err := <-made; err != nil {
		t.Fatal(err)
	}
}
