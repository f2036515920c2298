package cluster

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/tailbound/tailbound/engine/format"
)

// Kinds of commands, with their bodies. The envelope is format.Command.
const (
	kindCreate          = 1 // a topic entry
	kindDelete          = 2 // topic id
	kindForget          = 3 // topic id
	kindReserve         = 4 // first producer id i64, count i64
	kindConfigure       = 5 // topic id, all its configurations
	kindGrow            = 6 // topic id, log ranges of the new partitions
	kindConfigureBroker = 7 // a broker entry: all its configurations
	kindGroups          = 8 // changes of groups
	kindConfigureGroup  = 9 // a group entry: all its configurations
	kindSnapshotBegin   = 16
	kindSnapshotPart    = 17 // topic entries
	kindSnapshotEnd     = 18 // a list of format.PartCount
	kindSnapshotGroup   = 19 // changes of groups
	kindSnapshotBroker  = 20 // a broker entry
	kindSnapshotConfigs = 21 // a group entry
)

// Kinds of commands that later versions write. They are refused by name.
const (
	kindUsers                = 10
	kindACLs                 = 11
	kindQuotas               = 12
	kindReplicasFirst        = 32 // machine, group, sealed, leads, reseat, settled, adopt, force
	kindReplicasLast         = 39
	kindSnapshotTransactions = 22
	kindSnapshotUsers        = 23
	kindSnapshotACLs         = 24
	kindSnapshotQuotas       = 25
	kindSnapshotReplicas     = 26
)

// positions are the kinds whose counts the end of a snapshot of version 1 has, in
// their order there.
var positions = [4]uint8{kindSnapshotPart, kindSnapshotGroup, kindSnapshotBroker, kindSnapshotConfigs}

// newerKind returns the error for a kind of command that is not served.
func newerKind(kind uint8) error {
	what := fmt.Sprintf("commands of kind %d", kind)
	switch {
	case kind == kindUsers || kind == kindSnapshotUsers:
		what = "users"
	case kind == kindACLs || kind == kindSnapshotACLs:
		what = "ACLs"
	case kind == kindQuotas || kind == kindSnapshotQuotas:
		what = "quotas"
	case kind == kindSnapshotTransactions:
		what = "transactions"
	case kind >= kindReplicasFirst && kind <= kindReplicasLast, kind == kindSnapshotReplicas:
		what = "groups of replicas"
	}
	return format.Newer(what)
}

// producerIDsMax bounds producer ids, which are positive int64s.
const producerIDsMax = 1<<63 - 1

// snapshot is a snapshot of which some parts were applied.
type snapshot struct {
	state *State
	parts uint32 // topics applied so far
	want  uint32 // topics in all, by the snapshot's beginning
}

// Apply changes the State by one command of a Plan method or of Snapshot. If it
// returns an error, it has changed nothing:
//
//   - ErrReplayed is harmless: the State has the command's effect already. So a log
//     may be replayed from before the snapshot that was restored.
//   - ErrOrder: a command is missing before this one, or another was applied after it
//     was planned. Plan again.
//   - ErrMalformed (wrapped): the bytes are not a valid command.
//   - format.Newer: a later version wrote the command.
//
// The parts of a snapshot take effect together, at its end. Any other command among
// them discards the parts so far: a snapshot that was not written completely has no
// effect.
func (s *State) Apply(cmd []byte) error {
	header, body, err := parseCommand(cmd)
	if err != nil {
		return err
	}
	kind, sequence := header.Kind, header.Sequence
	switch kind {
	case kindCreate, kindDelete, kindForget, kindReserve, kindConfigure, kindGrow, kindConfigureBroker, kindGroups, kindConfigureGroup:
	case kindSnapshotBegin, kindSnapshotPart, kindSnapshotGroup, kindSnapshotBroker, kindSnapshotConfigs, kindSnapshotEnd:
		return s.applySnapshot(header, body)
	default:
		return newerKind(kind)
	}
	if sequence <= s.sequence {
		return ErrReplayed
	}
	if sequence != s.sequence+1 {
		return fmt.Errorf("%w: its number is %d, the state's is %d", ErrOrder, sequence, s.sequence)
	}
	switch kind {
	case kindCreate:
		err = s.applyCreate(body)
	case kindDelete:
		err = s.applyDelete(body)
	case kindForget:
		err = s.applyForget(body)
	case kindReserve:
		err = s.applyReserve(body)
	case kindConfigure:
		err = s.applyConfigure(body)
	case kindGrow:
		err = s.applyGrow(body)
	case kindConfigureBroker:
		err = s.applyConfigureBroker(body)
	case kindGroups:
		err = s.applyGroups(body)
	case kindConfigureGroup:
		err = s.applyConfigureGroup(body)
	}
	if err != nil {
		return err
	}
	s.sequence = sequence
	s.incoming = nil
	return nil
}

func (s *State) applyCreate(body []byte) error {
	topic, rest, err := parseTopic(body)
	if err != nil {
		return err
	}
	if len(rest) != 0 || topic.Deleted {
		return malformed("a create with %d bytes too many, deleted: %t", len(rest), topic.Deleted)
	}
	if err := s.inTurn(topic.Partitions); err != nil {
		return err
	}
	if err := s.admit(topic, ^uint64(0)); err != nil {
		return err
	}
	s.insert(topic)
	s.nextLogID = topic.Partitions[len(topic.Partitions)-1].LogID + 1
	return nil
}

func (s *State) applyGrow(body []byte) error {
	if len(body) < 16 {
		return malformed("a growth of %d bytes", len(body))
	}
	topic, err := s.topicNamed(body[:16])
	if err != nil {
		return err
	}
	r := reader{b: body[16:]}
	more, err := r.ranges()
	if err != nil {
		return err
	}
	if topic.Deleted || len(r.b) != 0 || len(topic.Partitions)+len(more) > PartitionsPerTopicCeiling {
		return malformed("topic %q grows to %d partitions, deleted: %t, %d bytes too many", topic.Name, len(topic.Partitions)+len(more), topic.Deleted, len(r.b))
	}
	if err := s.inTurn(more); err != nil {
		return err
	}
	s.insertLogs(topic, more, len(topic.Partitions))
	topic.Partitions = append(topic.Partitions, more...)
	s.topicChanges++
	s.nextLogID = more[len(more)-1].LogID + 1
	return nil
}

// inTurn refuses new partitions whose logs are not the next ones. Log ids are skipped
// only to reach a wanted shard.
func (s *State) inTurn(parts []Partition) error {
	next := s.nextLogID
	for _, partition := range parts {
		if partition.LogID < next || partition.LogID-next > placeGapMax {
			return malformed("a partition takes log id %d; the next is %d", partition.LogID, next)
		}
		next = partition.LogID + 1
	}
	return nil
}

func (s *State) applyDelete(body []byte) error {
	topic, err := s.topicNamed(body)
	if err != nil {
		return err
	}
	if topic.Deleted {
		return malformed("topic %q is deleted already", topic.Name)
	}
	s.bury(topic)
	s.forgetTopic(topic.Name)
	return nil
}

func (s *State) applyForget(body []byte) error {
	topic, err := s.topicNamed(body)
	if err != nil {
		return err
	}
	if !topic.Deleted {
		return malformed("topic %q is not deleted", topic.Name)
	}
	s.forget(topic)
	return nil
}

func (s *State) applyConfigure(body []byte) error {
	if len(body) < 16 {
		return malformed("configurations of %d bytes", len(body))
	}
	topic, err := s.topicNamed(body[:16])
	if err != nil {
		return err
	}
	if topic.Deleted {
		return malformed("topic %q is deleted", topic.Name)
	}
	r := reader{b: body[16:]}
	configs, err := r.configsToEnd()
	if err != nil {
		return err
	}
	topic.Configs = configs
	return nil
}

func (s *State) applyReserve(body []byte) error {
	if len(body) != 16 {
		return malformed("a reservation of %d bytes", len(body))
	}
	first := int64(binary.LittleEndian.Uint64(body))
	count := int64(binary.LittleEndian.Uint64(body[8:]))
	if first != s.producerReserved || count < 1 || count > producerIDsMax-first {
		return malformed("producer ids %d, %d of them; %d are reserved", first, count, s.producerReserved)
	}
	s.producerReserved = first + count
	if s.producerPlanned == first {
		if s.producerNext == s.producerEnd {
			s.producerNext = first
		}
		s.producerEnd = s.producerReserved
	}
	s.producerPlanned = -1
	s.producerBlock = count
	return nil
}

// Snapshot returns the State as commands, to be stored one after another with no
// other command between them. Applied to a State that is behind this one, they make
// it equal to this one; applied to any other, they are ErrReplayed. Each has at most
// chunkMax bytes, or one topic, one broker's configurations or one group's metadata.
func (s *State) Snapshot(chunkMax int) [][]byte {
	begin := binary.LittleEndian.AppendUint64(nil, s.nextLogID)
	begin = binary.LittleEndian.AppendUint64(begin, uint64(s.producerReserved))
	begin = binary.LittleEndian.AppendUint32(begin, uint32(len(s.byID)))
	out := [][]byte{command(kindSnapshotBegin, s.sequence, begin)}
	var part []byte
	for topic := range s.inLogOrder { // so that restoring appends to the table of logs
		entry := appendTopic(nil, topic)
		if len(part) > 0 && format.CommandHeaderBytes+len(part)+len(entry) > chunkMax {
			out = append(out, command(kindSnapshotPart, s.sequence, part))
			part = nil
		}
		part = append(part, entry...)
	}
	if len(part) > 0 {
		out = append(out, command(kindSnapshotPart, s.sequence, part))
	}
	for _, set := range s.brokers {
		out = append(out, command(kindSnapshotBroker, s.sequence, appendBroker(nil, set.key, set.configs)))
	}
	for _, set := range s.groupConfigs {
		out = append(out, command(kindSnapshotConfigs, s.sequence, appendGroupConfigs(nil, set.key, set.configs)))
	}
	part = nil
	s.snapshotGroups(chunkMax, func(change []byte) {
		if len(part) > 0 && format.CommandHeaderBytes+len(part)+len(change) > chunkMax {
			out = append(out, command(kindSnapshotGroup, s.sequence, part))
			part = nil
		}
		part = append(part, change...)
	})
	if len(part) > 0 {
		out = append(out, command(kindSnapshotGroup, s.sequence, part))
	}
	var end []byte
	for i, n := range [4]int{len(s.byID), len(s.groups), len(s.brokers), len(s.groupConfigs)} {
		end = format.PartCount{Kind: positions[i], Count: uint32(n)}.Append(end)
	}
	return append(out, command(kindSnapshotEnd, s.sequence, end))
}

// SnapshotBytes bounds the bytes of a Snapshot's commands together: it may be more, as an
// offset is counted for more than it has. It looks at every topic and configuration.
func (s *State) SnapshotBytes() int {
	configured := func(configs []Config) (n int) {
		for _, config := range configs {
			n += 4 + len(config.Name) + len(config.Value)
		}
		return n + 4
	}
	n := s.groupsBytes
	for _, topic := range s.byID {
		n += 16 + 1 + 2 + len(topic.Name) + 4 + configured(topic.Configs)
		for range ranges(topic.Partitions) {
			n += 12
		}
	}
	for _, set := range s.brokers {
		n += format.CommandHeaderBytes + 4 + configured(set.configs)
	}
	for _, set := range s.groupConfigs {
		n += format.CommandHeaderBytes + 2 + len(set.key) + configured(set.configs)
	}
	const others = 4 // the beginning, the end, and a part of topics and of groups that are not full
	return n + others*(format.CommandHeaderBytes+64)
}

func (s *State) applySnapshot(header format.Command, body []byte) error {
	if header.Sequence <= s.sequence {
		s.incoming = nil
		return ErrReplayed
	}
	if header.Kind == kindSnapshotBegin {
		return s.beginSnapshot(header.Sequence, body)
	}
	in := s.incoming
	if in == nil || in.state.sequence != header.Sequence {
		return fmt.Errorf("%w: a part of a snapshot without its beginning", ErrOrder)
	}
	var err error
	switch header.Kind {
	case kindSnapshotPart:
		err = in.add(body)
	case kindSnapshotBroker:
		err = in.state.applyConfigureBroker(body)
	case kindSnapshotConfigs:
		err = in.state.applyConfigureGroup(body)
	case kindSnapshotGroup:
		err = in.state.applyGroups(body)
	case kindSnapshotEnd:
		err = in.ends(header.Version, body)
	}
	if err != nil {
		s.incoming = nil
		return err
	}
	if header.Kind == kindSnapshotEnd {
		*s = *in.state
	}
	return nil
}

// ends compares the parts that were applied with the counts at the snapshot's end.
func (in *snapshot) ends(version uint8, body []byte) error {
	counts, err := format.GetPartCounts(version, body, positions)
	if err != nil {
		return malformed("%v", err)
	}
	have := map[uint8]int{kindSnapshotPart: int(in.parts), kindSnapshotGroup: len(in.state.groups), kindSnapshotBroker: len(in.state.brokers), kindSnapshotConfigs: len(in.state.groupConfigs)}
	said := map[uint8]int{}
	for _, count := range counts {
		if _, ok := have[count.Kind]; !ok {
			return newerKind(count.Kind)
		}
		if _, ok := said[count.Kind]; ok {
			return malformed("a snapshot's end has two counts of kind %d", count.Kind)
		}
		said[count.Kind] = int(count.Count)
	}
	for i, what := range [4]string{"topics", "groups", "brokers' configurations", "groups' configurations"} {
		if kind := positions[i]; said[kind] != have[kind] {
			return malformed("a snapshot of %d %s ends after %d", said[kind], what, have[kind])
		}
	}
	if in.parts != in.want {
		return malformed("a snapshot of %d topics ends after %d", in.want, in.parts)
	}
	return nil
}

func (s *State) beginSnapshot(sequence uint64, body []byte) error {
	if len(body) != 20 {
		return malformed("a snapshot begins with %d bytes", len(body))
	}
	restored := New()
	restored.sequence = sequence
	restored.nextLogID = binary.LittleEndian.Uint64(body)
	restored.producerReserved = int64(binary.LittleEndian.Uint64(body[8:]))
	if restored.nextLogID < s.nextLogID || restored.producerReserved < s.producerReserved {
		return malformed("a snapshot would give ids out again: next log %d (have %d), producer ids to %d (have %d)",
			restored.nextLogID, s.nextLogID, restored.producerReserved, s.producerReserved)
	}
	// Ids that this life may still give out are not carried over: a snapshot is only
	// restored before any are.
	s.incoming = &snapshot{state: restored, want: binary.LittleEndian.Uint32(body[16:])}
	return nil
}

// add adds the topics of one part.
func (in *snapshot) add(body []byte) error {
	for len(body) > 0 {
		topic, rest, err := parseTopic(body)
		if err != nil {
			return err
		}
		if err := in.state.admit(topic, in.state.nextLogID); err != nil {
			return err
		}
		in.state.insert(topic)
		in.parts++
		body = rest
	}
	if in.parts > in.want {
		return malformed("a snapshot of %d topics has more", in.want)
	}
	return nil
}

// admit refuses a topic that contradicts the others. Its log ids must be below next.
func (s *State) admit(topic *Topic, next uint64) error {
	if _, ok := s.idAt(topic.ID); ok {
		return malformed("topic id %x is there twice", topic.ID)
	}
	if _, ok := s.nameAt(topic.Name); ok && !topic.Deleted {
		return malformed("topic %q is there twice", topic.Name)
	}
	first, last := topic.Partitions[0].LogID, topic.Partitions[len(topic.Partitions)-1].LogID
	if first <= format.ControlLogID || last >= next {
		return malformed("topic %q has logs %d to %d; they must be above %d and below %d", topic.Name, first, last, format.ControlLogID, next)
	}
	for first, count := range ranges(topic.Partitions) {
		if i, ok := s.logAt(first); ok || i < len(s.logs) && s.logs[i].logID < first+uint64(count) {
			return malformed("a log of topic %q has another owner", topic.Name)
		}
	}
	return nil
}

func (s *State) topicNamed(body []byte) (*Topic, error) {
	if len(body) != 16 {
		return nil, malformed("a topic id of %d bytes", len(body))
	}
	i, ok := s.idAt([16]byte(body))
	if !ok {
		return nil, malformed("no topic has id %x", body)
	}
	return s.byID[i], nil
}

func malformed(what string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrMalformed, fmt.Sprintf(what, args...))
}

func command(kind uint8, sequence uint64, body []byte) []byte {
	header := format.Command{Kind: kind, Sequence: sequence}
	return header.Append(make([]byte, 0, format.CommandHeaderBytes+len(body)), body)
}

func parseCommand(b []byte) (header format.Command, body []byte, err error) {
	body, err = header.Get(b)
	var newer format.Newer
	if err != nil && !errors.As(err, &newer) {
		err = malformed("%v", err)
	}
	return header, body, err
}

func appendReserve(b []byte, first, count int64) []byte {
	b = binary.LittleEndian.AppendUint64(b, uint64(first))
	return binary.LittleEndian.AppendUint64(b, uint64(count))
}

// appendTopic appends a topic entry: id 16 bytes, flags u8 (1: deleted), name, log
// ranges u32, each first u64 and count u32, configurations u32, each name and value.
// A string is preceded by its length, u16. Log ids increase with the partitions; a
// topic whose partitions were created together, without an assignment, has one range.
func appendTopic(b []byte, topic *Topic) []byte {
	b = append(b, topic.ID[:]...)
	flags := byte(0)
	if topic.Deleted {
		flags = 1
	}
	b = append(b, flags)
	b = appendString(b, topic.Name)
	b = appendRanges(b, topic.Partitions)
	return appendConfigs(b, topic.Configs)
}

// ranges yields the ranges of consecutive log ids in partitions: first id, count.
func ranges(parts []Partition) func(yield func(uint64, int) bool) {
	return func(yield func(uint64, int) bool) {
		for i := 0; i < len(parts); {
			n := 1
			for i+n < len(parts) && parts[i+n].LogID == parts[i].LogID+uint64(n) {
				n++
			}
			if !yield(parts[i].LogID, n) {
				return
			}
			i += n
		}
	}
}

func appendRanges(b []byte, parts []Partition) []byte {
	at, n := len(b), uint32(0)
	b = binary.LittleEndian.AppendUint32(b, 0)
	for first, count := range ranges(parts) {
		b = binary.LittleEndian.AppendUint64(b, first)
		b = binary.LittleEndian.AppendUint32(b, uint32(count))
		n++
	}
	binary.LittleEndian.PutUint32(b[at:], n)
	return b
}

func appendConfigs(b []byte, configs []Config) []byte {
	b = binary.LittleEndian.AppendUint32(b, uint32(len(configs)))
	for _, config := range configs {
		b = appendString(b, config.Name)
		b = appendString(b, config.Value)
	}
	return b
}

func parseTopic(b []byte) (topic *Topic, rest []byte, err error) {
	r := reader{b: b}
	topic = &Topic{}
	copy(topic.ID[:], r.take(16))
	flags := r.byte()
	topic.Deleted = flags == 1
	topic.Name = r.string()
	if r.short || flags > 1 || topic.ID == ([16]byte{}) {
		return nil, nil, malformed("a topic of %d bytes, flags %d", len(b), flags)
	}
	if why := NameFault(topic.Name); why != "" {
		return nil, nil, malformed("a topic whose name is invalid: %s", why)
	}
	if topic.Partitions, err = r.ranges(); err != nil {
		return nil, nil, err
	}
	if topic.Configs, err = r.configs(); err != nil {
		return nil, nil, err
	}
	return topic, slices.Clip(r.b), nil
}

func appendString(b []byte, s string) []byte {
	b = binary.LittleEndian.AppendUint16(b, uint16(len(s)))
	return append(b, s...)
}

// reader reads fields from the front of b. After a field that b does not have, short
// is true and fields are zero.
type reader struct {
	b     []byte
	short bool
}

func (r *reader) take(n int) []byte {
	if len(r.b) < n {
		r.short = true
		return nil
	}
	v := r.b[:n]
	r.b = r.b[n:]
	return v
}

func (r *reader) byte() byte {
	if v := r.take(1); v != nil {
		return v[0]
	}
	return 0
}

func (r *reader) uint32() uint32 {
	if v := r.take(4); v != nil {
		return binary.LittleEndian.Uint32(v)
	}
	return 0
}

func (r *reader) uint64() uint64 {
	if v := r.take(8); v != nil {
		return binary.LittleEndian.Uint64(v)
	}
	return 0
}

func (r *reader) ranges() (out []Partition, err error) {
	n := r.uint32()
	for ; n > 0 && !r.short; n-- {
		first, count := r.uint64(), r.uint32()
		if count < 1 || len(out)+int(count) > PartitionsPerTopicCeiling || first > ^uint64(0)-PartitionsPerTopicCeiling ||
			len(out) > 0 && first <= out[len(out)-1].LogID {
			return nil, malformed("%d partitions from log %d", count, first)
		}
		out = append(out, consecutive(first, int(count))...)
	}
	if r.short || len(out) == 0 {
		return nil, malformed("there are no partitions")
	}
	return out, nil
}

func (r *reader) configs() (out []Config, err error) {
	for n := r.uint32(); n > 0 && !r.short; n-- {
		config := Config{r.string(), r.string()}
		if len(out) > 0 && !r.short && out[len(out)-1].Name >= config.Name {
			return nil, malformed("configuration %q is out of order", config.Name)
		}
		out = append(out, config)
	}
	if r.short {
		return nil, malformed("configurations end early")
	}
	return out, nil
}

// configsToEnd reads configurations, which must end with b.
func (r *reader) configsToEnd() ([]Config, error) {
	configs, err := r.configs()
	if err == nil && len(r.b) != 0 {
		err = malformed("configurations with %d bytes too many", len(r.b))
	}
	return configs, err
}

func (r *reader) string() string {
	n := r.take(2)
	if n == nil {
		return ""
	}
	return string(r.take(int(binary.LittleEndian.Uint16(n))))
}
