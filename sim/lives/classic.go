package lives

import (
	"fmt"
	"slices"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// This file is members of the consumers' group that use the classic protocol. When they
// join and leave, the group changes its protocol, and the oracle's rules hold for them as
// for all other members.

// news is what a member subscribes to: a name for each partition, so that a member that
// finds another number of partitions joins again.
func (s *brokerSim) news() (out []string) {
	for _, t := range s.openTopics() {
		for range t.parts {
			out = append(out, t.name)
		}
	}
	return out
}

// actClassic has a member take its next step; with x < 29 a joined member leaves.
func (s *brokerSim) actClassic(m *consumer, x int) {
	var instance *string
	if m.instance != "" {
		instance = &m.instance
	}
	ask := func(req kmsg.Request) {
		m.waits, m.sent = true, s.w.Now
		m.conn.ask(req, owed{note: &groupAsk{consumer: m, group: m.group}})
	}
	news := s.news()
	switch {
	case x < 29 && m.joined:
		req := kmsg.NewPtrLeaveGroupRequest()
		req.Version, req.Group = 3, m.group.name
		l := kmsg.NewLeaveGroupRequestMember()
		l.MemberID, l.InstanceID = m.id, instance
		req.Members = append(req.Members, l)
		m.out()
		ask(req)
	case !m.joined || m.stable && !slices.Equal(m.subscribes, news):
		m.joined, m.stable, m.uses, m.has, m.subscribes = false, false, nil, nil, news
		req := kmsg.NewPtrJoinGroupRequest()
		req.Version, req.Group, req.MemberID, req.InstanceID, req.ProtocolType = 5, m.group.name, m.id, instance, "consumer"
		req.SessionTimeoutMillis, req.RebalanceTimeoutMillis = consumerSessionMS, 3_600_000
		meta := kmsg.NewConsumerMemberMetadata()
		meta.Topics = slices.Compact(slices.Clone(news))
		p := kmsg.NewJoinGroupRequestProtocol()
		p.Name, p.Metadata = "p", meta.AppendTo(nil)
		req.Protocols = append(req.Protocols, p)
		ask(req)
	case !m.stable:
		req := kmsg.NewPtrSyncGroupRequest()
		req.Version, req.Group, req.MemberID, req.InstanceID, req.Generation = 3, m.group.name, m.id, instance, m.epoch
		req.GroupAssignment = s.assignClassic(m.others)
		ask(req)
	default:
		req := kmsg.NewPtrHeartbeatRequest()
		req.Version, req.Group, req.MemberID, req.InstanceID, req.Generation = 3, m.group.name, m.id, instance, m.epoch
		ask(req)
	}
}

// assignClassic returns the leader's assignment; assignments differ at random.
func (s *brokerSim) assignClassic(members []kmsg.JoinGroupResponseMember) (out []kmsg.SyncGroupRequestGroupAssignment) {
	if len(members) == 0 {
		return nil
	}
	n := s.rng.IntN(len(members))
	gets := make([]kmsg.ConsumerMemberAssignment, len(members))
	for _, t := range s.openTopics() {
		for i := range t.parts {
			n++
			a := &gets[n%len(members)]
			at := slices.IndexFunc(a.Topics, func(x kmsg.ConsumerMemberAssignmentTopic) bool { return x.Topic == t.name })
			if at < 0 {
				at = len(a.Topics)
				x := kmsg.NewConsumerMemberAssignmentTopic()
				x.Topic = t.name
				a.Topics = append(a.Topics, x)
			}
			a.Topics[at].Partitions = append(a.Topics[at].Partitions, int32(i))
		}
	}
	for i, x := range members {
		a := kmsg.NewSyncGroupRequestGroupAssignment()
		a.MemberID, a.MemberAssignment = x.MemberID, gets[i].AppendTo(nil)
		out = append(out, a)
	}
	return out
}

func (m *consumer) classicJoined(r *kmsg.JoinGroupResponse, down func(int16) bool) error {
	switch code := r.ErrorCode; {
	case code == 0:
		if r.Generation > m.epoch {
			m.last = m.epoch
		}
		m.id, m.epoch, m.joined, m.others = r.MemberID, r.Generation, true, r.Members
	case code == codeIDRequired:
		m.id = r.MemberID
	case code == codeUnknownMember || code == codeFenced || code == codeGroupFull: // crashed members still count until their sessions end
		m.out()
	case code == codeRebalance || down(code):
	default:
		return fmt.Errorf("joining %s: error %d", m.group.name, code)
	}
	return nil
}

func (s *brokerSim) classicSynced(m *consumer, r *kmsg.SyncGroupResponse, down func(int16) bool) error {
	switch code := r.ErrorCode; {
	case code == 0:
	case code == codeUnknownMember || code == codeFenced:
		m.out()
		return nil
	case code == codeGeneration || code == codeRebalance || down(code):
		m.joined = false
		return nil
	default:
		return fmt.Errorf("syncing %s: error %d", m.group.name, code)
	}
	a := kmsg.NewConsumerMemberAssignment()
	if len(r.MemberAssignment) > 0 {
		if err := a.ReadFrom(r.MemberAssignment); err != nil {
			return fmt.Errorf("syncing %s: an assignment that cannot be read: %w", m.group.name, err)
		}
	}
	m.stable, m.heard, m.uses = true, m.sent, map[partition]bool{}
	m.has = m.uses
	for _, x := range a.Topics {
		i := slices.IndexFunc(s.topics, func(t *topicBook) bool { return t.name == x.Topic })
		if i < 0 {
			return fmt.Errorf("syncing %s: topic %q is assigned, and never was", m.group.name, x.Topic)
		}
		for _, n := range x.Partitions {
			p := partition{s.topics[i].id, n}
			m.uses[p] = true
			if err := s.mayUse(m, p); err != nil {
				return err
			}
		}
	}
	return nil
}

func (m *consumer) classicBeaten(r *kmsg.HeartbeatResponse, down func(int16) bool) error {
	switch code := r.ErrorCode; {
	case code == 0:
		m.heard = m.sent
	case code == codeUnknownMember || code == codeFenced:
		m.out()
	case code == codeGeneration || code == codeRebalance:
		m.joined, m.stable = false, false
	case down(code):
	default:
		return fmt.Errorf("heartbeat to %s: error %d", m.group.name, code)
	}
	return nil
}
