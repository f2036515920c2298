package load

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

const metadataVersion = 7 // not flexible

// ask sends one cold request on conn and reads its answer. Only versions whose
// answer has a plain header are asked.
func ask(conn net.Conn, req kmsg.Request) (kmsg.Response, error) {
	frame := kmsg.NewRequestFormatter(kmsg.FormatterClientID("bench")).AppendRequest(nil, req, 1)
	_ = conn.SetDeadline(time.Now().Add(15 * time.Second))
	if _, err := conn.Write(frame); err != nil {
		return nil, err
	}
	var size [4]byte
	if _, err := io.ReadFull(conn, size[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(size[:])
	if n < 4 || n > 16<<20 {
		return nil, fmt.Errorf("answer of %d bytes", n)
	}
	body := make([]byte, n)
	if _, err := io.ReadFull(conn, body); err != nil {
		return nil, err
	}
	resp := req.ResponseKind()
	if err := resp.ReadFrom(body[4:]); err != nil {
		return nil, fmt.Errorf("answer of %s: %w", kmsg.NameForKey(req.Key()), err)
	}
	return resp, nil
}

// Ready asks addr for its API versions, to say whether it serves, and whether
// it serves the versions used here.
func Ready(addr string) error {
	conn, err := net.DialTimeout("tcp", addr, time.Second)
	if err != nil {
		return err
	}
	defer conn.Close()
	resp, err := ask(conn, kmsg.NewPtrApiVersionsRequest())
	if err != nil {
		return err
	}
	for _, k := range resp.(*kmsg.ApiVersionsResponse).ApiKeys {
		if k.ApiKey == produceKey && (k.MinVersion > produceVersion || k.MaxVersion < produceVersion) {
			return fmt.Errorf("versions %d to %d of Produce are served, %d is needed", k.MinVersion, k.MaxVersion, produceVersion)
		}
	}
	return nil
}

// leaders creates the topic and waits until every partition has a leader; it
// gives the leader's address for each partition.
func leaders(bootstrap, topic string, partitions int, config map[string]string) ([]string, error) {
	conn, err := dialController(bootstrap)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	create := kmsg.NewPtrCreateTopicsRequest()
	create.Version = 4
	create.TimeoutMillis = 10_000
	t := kmsg.NewCreateTopicsRequestTopic()
	t.Topic, t.NumPartitions, t.ReplicationFactor = topic, int32(partitions), 1
	for name, value := range config {
		c := kmsg.NewCreateTopicsRequestTopicConfig()
		c.Name, c.Value = name, &value
		t.Configs = append(t.Configs, c)
	}
	create.Topics = append(create.Topics, t)
	resp, err := ask(conn, create)
	if err != nil {
		return nil, fmt.Errorf("CreateTopics: %w", err)
	}
	for _, t := range resp.(*kmsg.CreateTopicsResponse).Topics {
		if t.ErrorCode != 0 && t.ErrorCode != 36 { // 36: it exists
			said := ""
			if t.ErrorMessage != nil {
				said = ": " + *t.ErrorMessage
			}
			return nil, fmt.Errorf("CreateTopics: error code %d%s", t.ErrorCode, said)
		}
	}
	for start := time.Now(); ; time.Sleep(50 * time.Millisecond) {
		addrs, err := askLeaders(conn, topic, partitions)
		if err == nil {
			return addrs, nil
		}
		if time.Since(start) > 10*time.Second {
			return nil, err
		}
	}
}

// ends asks a leader for the offsets behind the last records of its partitions.
func ends(leader, topic string, partitions []int32) ([]int64, error) {
	conn, err := net.DialTimeout("tcp", leader, 5*time.Second)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	req := kmsg.NewPtrListOffsetsRequest()
	req.Version, req.ReplicaID = 2, -1 // not flexible
	wanted := kmsg.NewListOffsetsRequestTopic()
	wanted.Topic = topic
	slots := map[int32]int{}
	for slot, index := range partitions {
		p := kmsg.NewListOffsetsRequestTopicPartition()
		p.Partition, p.Timestamp = index, -1 // the end
		wanted.Partitions = append(wanted.Partitions, p)
		slots[index] = slot
	}
	req.Topics = append(req.Topics, wanted)
	resp, err := ask(conn, req)
	if err != nil {
		return nil, fmt.Errorf("ListOffsets: %w", err)
	}
	offsets := make([]int64, len(partitions))
	for _, t := range resp.(*kmsg.ListOffsetsResponse).Topics {
		for _, p := range t.Partitions {
			slot, ok := slots[p.Partition]
			if p.ErrorCode != 0 || !ok {
				return nil, fmt.Errorf("ListOffsets: partition %d has error code %d", p.Partition, p.ErrorCode)
			}
			offsets[slot] = p.Offset
			delete(slots, p.Partition)
		}
	}
	if len(slots) > 0 {
		return nil, fmt.Errorf("ListOffsets: %d partitions were not answered", len(slots))
	}
	return offsets, nil
}

// Topics are those of a chain of so many hops, of which the first is named;
// without hops there is one.
func Topics(first string, hops int) (all []string) {
	for hop := range max(hops, 1) {
		all = append(all, topicOf(first, hop))
	}
	return all
}

func topicOf(first string, hop int) string {
	if hop == 0 {
		return first
	}
	return fmt.Sprintf("%s-%d", first, hop+1)
}

// Remove deletes topics.
func Remove(bootstrap string, topics []string) error {
	conn, err := dialController(bootstrap)
	if err != nil {
		return err
	}
	defer conn.Close()
	req := kmsg.NewPtrDeleteTopicsRequest()
	req.Version, req.TopicNames, req.TimeoutMillis = 3, topics, 10_000
	resp, err := ask(conn, req)
	if err != nil {
		return fmt.Errorf("DeleteTopics: %w", err)
	}
	for _, t := range resp.(*kmsg.DeleteTopicsResponse).Topics {
		if t.ErrorCode != 0 {
			return fmt.Errorf("DeleteTopics: error code %d", t.ErrorCode)
		}
	}
	return nil
}

// dialController connects to the node that makes and deletes topics.
func dialController(bootstrap string) (net.Conn, error) {
	addr, err := controller(bootstrap)
	if err != nil {
		return nil, err
	}
	return net.DialTimeout("tcp", addr, 5*time.Second)
}

// controller is the address of the node that makes topics.
func controller(bootstrap string) (string, error) {
	conn, err := net.DialTimeout("tcp", bootstrap, 5*time.Second)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	req := kmsg.NewPtrMetadataRequest()
	req.Version = metadataVersion
	req.Topics = []kmsg.MetadataRequestTopic{} // none; nil would be all
	resp, err := ask(conn, req)
	if err != nil {
		return "", fmt.Errorf("asking for Metadata: %w", err)
	}
	m := resp.(*kmsg.MetadataResponse)
	for _, b := range m.Brokers {
		if b.NodeID == m.ControllerID {
			return net.JoinHostPort(b.Host, fmt.Sprint(b.Port)), nil
		}
	}
	return "", fmt.Errorf("asking for Metadata: controller %d is not among %d nodes", m.ControllerID, len(m.Brokers))
}

func askLeaders(conn net.Conn, topic string, partitions int) ([]string, error) {
	req := kmsg.NewPtrMetadataRequest()
	req.Version = metadataVersion
	mt := kmsg.NewMetadataRequestTopic()
	mt.Topic = kmsg.StringPtr(topic)
	req.Topics = append(req.Topics, mt)
	resp, err := ask(conn, req)
	if err != nil {
		return nil, fmt.Errorf("asking for Metadata: %w", err)
	}
	m := resp.(*kmsg.MetadataResponse)
	nodes := map[int32]string{}
	for _, b := range m.Brokers {
		nodes[b.NodeID] = net.JoinHostPort(b.Host, fmt.Sprint(b.Port))
	}
	addrs := make([]string, partitions)
	for _, t := range m.Topics {
		if t.ErrorCode != 0 {
			return nil, fmt.Errorf("asking for Metadata: topic has error code %d", t.ErrorCode)
		}
		for _, p := range t.Partitions {
			if p.ErrorCode == 0 && int(p.Partition) < partitions {
				addrs[p.Partition] = nodes[p.Leader]
			}
		}
	}
	for p, a := range addrs {
		if a == "" {
			return nil, fmt.Errorf("asking for Metadata: partition %d has no leader", p)
		}
	}
	return addrs, nil
}
