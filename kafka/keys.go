package kafka

// API keys (org.apache.kafka.common.protocol.ApiKeys): all of Kafka 4's, in order.
// Which of them are served is in shard.API.
const (
	KeyProduce                               int16 = 0
	KeyFetch                                 int16 = 1
	KeyListOffsets                           int16 = 2
	KeyMetadata                              int16 = 3
	KeyLeaderAndISR                          int16 = 4
	KeyStopReplica                           int16 = 5
	KeyUpdateMetadata                        int16 = 6
	KeyControlledShutdown                    int16 = 7
	KeyOffsetCommit                          int16 = 8
	KeyOffsetFetch                           int16 = 9
	KeyFindCoordinator                       int16 = 10
	KeyJoinGroup                             int16 = 11
	KeyHeartbeat                             int16 = 12
	KeyLeaveGroup                            int16 = 13
	KeySyncGroup                             int16 = 14
	KeyDescribeGroups                        int16 = 15
	KeyListGroups                            int16 = 16
	KeySASLHandshake                         int16 = 17
	KeyApiVersions                           int16 = 18
	KeyCreateTopics                          int16 = 19
	KeyDeleteTopics                          int16 = 20
	KeyDeleteRecords                         int16 = 21
	KeyInitProducerID                        int16 = 22
	KeyOffsetForLeaderEpoch                  int16 = 23
	KeyAddPartitionsToTxn                    int16 = 24
	KeyAddOffsetsToTxn                       int16 = 25
	KeyEndTxn                                int16 = 26
	KeyWriteTxnMarkers                       int16 = 27
	KeyTxnOffsetCommit                       int16 = 28
	KeyDescribeACLs                          int16 = 29
	KeyCreateACLs                            int16 = 30
	KeyDeleteACLs                            int16 = 31
	KeyDescribeConfigs                       int16 = 32
	KeyAlterConfigs                          int16 = 33
	KeyAlterReplicaLogDirs                   int16 = 34
	KeyDescribeLogDirs                       int16 = 35
	KeySASLAuthenticate                      int16 = 36
	KeyCreatePartitions                      int16 = 37
	KeyCreateDelegationToken                 int16 = 38
	KeyRenewDelegationToken                  int16 = 39
	KeyExpireDelegationToken                 int16 = 40
	KeyDescribeDelegationToken               int16 = 41
	KeyDeleteGroups                          int16 = 42
	KeyElectLeaders                          int16 = 43
	KeyIncrementalAlterConfigs               int16 = 44
	KeyAlterPartitionReassignments           int16 = 45
	KeyListPartitionReassignments            int16 = 46
	KeyOffsetDelete                          int16 = 47
	KeyDescribeClientQuotas                  int16 = 48
	KeyAlterClientQuotas                     int16 = 49
	KeyDescribeUserSCRAMCredentials          int16 = 50
	KeyAlterUserSCRAMCredentials             int16 = 51
	KeyVote                                  int16 = 52
	KeyBeginQuorumEpoch                      int16 = 53
	KeyEndQuorumEpoch                        int16 = 54
	KeyDescribeQuorum                        int16 = 55
	KeyAlterPartition                        int16 = 56
	KeyUpdateFeatures                        int16 = 57
	KeyEnvelope                              int16 = 58
	KeyFetchSnapshot                         int16 = 59
	KeyDescribeCluster                       int16 = 60
	KeyDescribeProducers                     int16 = 61
	KeyBrokerRegistration                    int16 = 62
	KeyBrokerHeartbeat                       int16 = 63
	KeyUnregisterBroker                      int16 = 64
	KeyDescribeTransactions                  int16 = 65
	KeyListTransactions                      int16 = 66
	KeyAllocateProducerIDs                   int16 = 67
	KeyConsumerGroupHeartbeat                int16 = 68
	KeyConsumerGroupDescribe                 int16 = 69
	KeyControllerRegistration                int16 = 70
	KeyGetTelemetrySubscriptions             int16 = 71
	KeyPushTelemetry                         int16 = 72
	KeyAssignReplicasToDirs                  int16 = 73
	KeyListConfigResources                   int16 = 74
	KeyDescribeTopicPartitions               int16 = 75
	KeyShareGroupHeartbeat                   int16 = 76
	KeyShareGroupDescribe                    int16 = 77
	KeyShareFetch                            int16 = 78
	KeyShareAcknowledge                      int16 = 79
	KeyAddRaftVoter                          int16 = 80
	KeyRemoveRaftVoter                       int16 = 81
	KeyUpdateRaftVoter                       int16 = 82
	KeyInitializeShareGroupState             int16 = 83
	KeyReadShareGroupState                   int16 = 84
	KeyWriteShareGroupState                  int16 = 85
	KeyDeleteShareGroupState                 int16 = 86
	KeyReadShareGroupStateSummary            int16 = 87
	KeyStreamsGroupHeartbeat                 int16 = 88
	KeyStreamsGroupDescribe                  int16 = 89
	KeyDescribeShareGroupOffsets             int16 = 90
	KeyAlterShareGroupOffsets                int16 = 91
	KeyDeleteShareGroupOffsets               int16 = 92
	KeyStreamsGroupTopologyDescriptionUpdate int16 = 93
	KeyUnregisterController                  int16 = 94
)

// KeysMax is greater than every key.
const KeysMax = 128

// Key describes an API key of the protocol.
type Key struct {
	Name     string
	Latest   int16 // the newest version that is known here
	Flexible int16 // the first flexible version (KIP-482)
}

// neverFlexible is greater than every version.
const neverFlexible = 1<<15 - 1

// keys is indexed by API key; an entry without a name is not a key. Source: names,
// validVersions and flexibleVersions in
// clients/src/main/resources/common/message/*Request.json. A test compares them with
// kmsg.
var keys = [KeysMax]Key{
	KeyProduce:                               {"Produce", 13, 9},
	KeyFetch:                                 {"Fetch", 18, 12},
	KeyListOffsets:                           {"ListOffsets", 11, 6},
	KeyMetadata:                              {"Metadata", 13, 9},
	KeyLeaderAndISR:                          {"LeaderAndIsr", 7, 4},
	KeyStopReplica:                           {"StopReplica", 4, 2},
	KeyUpdateMetadata:                        {"UpdateMetadata", 8, 6},
	KeyControlledShutdown:                    {"ControlledShutdown", 3, 3},
	KeyOffsetCommit:                          {"OffsetCommit", 10, 8},
	KeyOffsetFetch:                           {"OffsetFetch", 10, 6},
	KeyFindCoordinator:                       {"FindCoordinator", 6, 3},
	KeyJoinGroup:                             {"JoinGroup", 9, 6},
	KeyHeartbeat:                             {"Heartbeat", 4, 4},
	KeyLeaveGroup:                            {"LeaveGroup", 5, 4},
	KeySyncGroup:                             {"SyncGroup", 5, 4},
	KeyDescribeGroups:                        {"DescribeGroups", 6, 5},
	KeyListGroups:                            {"ListGroups", 5, 3},
	KeySASLHandshake:                         {"SaslHandshake", 1, neverFlexible},
	KeyApiVersions:                           {"ApiVersions", 5, 3},
	KeyCreateTopics:                          {"CreateTopics", 7, 5},
	KeyDeleteTopics:                          {"DeleteTopics", 6, 4},
	KeyDeleteRecords:                         {"DeleteRecords", 2, 2},
	KeyInitProducerID:                        {"InitProducerId", 5, 2},
	KeyOffsetForLeaderEpoch:                  {"OffsetForLeaderEpoch", 4, 4},
	KeyAddPartitionsToTxn:                    {"AddPartitionsToTxn", 5, 3},
	KeyAddOffsetsToTxn:                       {"AddOffsetsToTxn", 4, 3},
	KeyEndTxn:                                {"EndTxn", 5, 3},
	KeyWriteTxnMarkers:                       {"WriteTxnMarkers", 2, 1},
	KeyTxnOffsetCommit:                       {"TxnOffsetCommit", 6, 3},
	KeyDescribeACLs:                          {"DescribeAcls", 3, 2},
	KeyCreateACLs:                            {"CreateAcls", 3, 2},
	KeyDeleteACLs:                            {"DeleteAcls", 3, 2},
	KeyDescribeConfigs:                       {"DescribeConfigs", 4, 4},
	KeyAlterConfigs:                          {"AlterConfigs", 2, 2},
	KeyAlterReplicaLogDirs:                   {"AlterReplicaLogDirs", 2, 2},
	KeyDescribeLogDirs:                       {"DescribeLogDirs", 5, 2},
	KeySASLAuthenticate:                      {"SaslAuthenticate", 2, 2},
	KeyCreatePartitions:                      {"CreatePartitions", 3, 2},
	KeyCreateDelegationToken:                 {"CreateDelegationToken", 3, 2},
	KeyRenewDelegationToken:                  {"RenewDelegationToken", 2, 2},
	KeyExpireDelegationToken:                 {"ExpireDelegationToken", 2, 2},
	KeyDescribeDelegationToken:               {"DescribeDelegationToken", 3, 2},
	KeyDeleteGroups:                          {"DeleteGroups", 3, 2},
	KeyElectLeaders:                          {"ElectLeaders", 2, 2},
	KeyIncrementalAlterConfigs:               {"IncrementalAlterConfigs", 1, 1},
	KeyAlterPartitionReassignments:           {"AlterPartitionReassignments", 1, 0},
	KeyListPartitionReassignments:            {"ListPartitionReassignments", 0, 0},
	KeyOffsetDelete:                          {"OffsetDelete", 0, neverFlexible},
	KeyDescribeClientQuotas:                  {"DescribeClientQuotas", 1, 1},
	KeyAlterClientQuotas:                     {"AlterClientQuotas", 1, 1},
	KeyDescribeUserSCRAMCredentials:          {"DescribeUserScramCredentials", 0, 0},
	KeyAlterUserSCRAMCredentials:             {"AlterUserScramCredentials", 0, 0},
	KeyVote:                                  {"Vote", 2, 0},
	KeyBeginQuorumEpoch:                      {"BeginQuorumEpoch", 1, 1},
	KeyEndQuorumEpoch:                        {"EndQuorumEpoch", 1, 1},
	KeyDescribeQuorum:                        {"DescribeQuorum", 2, 0},
	KeyAlterPartition:                        {"AlterPartition", 3, 0},
	KeyUpdateFeatures:                        {"UpdateFeatures", 2, 0},
	KeyEnvelope:                              {"Envelope", 0, 0},
	KeyFetchSnapshot:                         {"FetchSnapshot", 1, 0},
	KeyDescribeCluster:                       {"DescribeCluster", 2, 0},
	KeyDescribeProducers:                     {"DescribeProducers", 0, 0},
	KeyBrokerRegistration:                    {"BrokerRegistration", 4, 0},
	KeyBrokerHeartbeat:                       {"BrokerHeartbeat", 2, 0},
	KeyUnregisterBroker:                      {"UnregisterBroker", 0, 0},
	KeyDescribeTransactions:                  {"DescribeTransactions", 0, 0},
	KeyListTransactions:                      {"ListTransactions", 2, 0},
	KeyAllocateProducerIDs:                   {"AllocateProducerIds", 0, 0},
	KeyConsumerGroupHeartbeat:                {"ConsumerGroupHeartbeat", 1, 0},
	KeyConsumerGroupDescribe:                 {"ConsumerGroupDescribe", 1, 0},
	KeyControllerRegistration:                {"ControllerRegistration", 0, 0},
	KeyGetTelemetrySubscriptions:             {"GetTelemetrySubscriptions", 0, 0},
	KeyPushTelemetry:                         {"PushTelemetry", 0, 0},
	KeyAssignReplicasToDirs:                  {"AssignReplicasToDirs", 0, 0},
	KeyListConfigResources:                   {"ListConfigResources", 1, 0},
	KeyDescribeTopicPartitions:               {"DescribeTopicPartitions", 0, 0},
	KeyShareGroupHeartbeat:                   {"ShareGroupHeartbeat", 1, 0},
	KeyShareGroupDescribe:                    {"ShareGroupDescribe", 1, 0},
	KeyShareFetch:                            {"ShareFetch", 2, 0},
	KeyShareAcknowledge:                      {"ShareAcknowledge", 2, 0},
	KeyAddRaftVoter:                          {"AddRaftVoter", 1, 0},
	KeyRemoveRaftVoter:                       {"RemoveRaftVoter", 0, 0},
	KeyUpdateRaftVoter:                       {"UpdateRaftVoter", 0, 0},
	KeyInitializeShareGroupState:             {"InitializeShareGroupState", 0, 0},
	KeyReadShareGroupState:                   {"ReadShareGroupState", 0, 0},
	KeyWriteShareGroupState:                  {"WriteShareGroupState", 1, 0},
	KeyDeleteShareGroupState:                 {"DeleteShareGroupState", 0, 0},
	KeyReadShareGroupStateSummary:            {"ReadShareGroupStateSummary", 1, 0},
	KeyStreamsGroupHeartbeat:                 {"StreamsGroupHeartbeat", 1, 0},
	KeyStreamsGroupDescribe:                  {"StreamsGroupDescribe", 1, 0},
	KeyDescribeShareGroupOffsets:             {"DescribeShareGroupOffsets", 1, 0},
	KeyAlterShareGroupOffsets:                {"AlterShareGroupOffsets", 0, 0},
	KeyDeleteShareGroupOffsets:               {"DeleteShareGroupOffsets", 0, 0},
	KeyStreamsGroupTopologyDescriptionUpdate: {"StreamsGroupTopologyDescriptionUpdate", 0, 0},
	KeyUnregisterController:                  {"UnregisterController", 0, 0},
}

// KeyOf returns the description of a key. False: the protocol has no such key.
func KeyOf(key int16) (*Key, bool) {
	if key < 0 || key >= KeysMax || keys[key].Name == "" {
		return nil, false
	}
	return &keys[key], true
}

// Versions is a range of versions, Min and Max included.
type Versions struct{ Min, Max int16 }

// Has says whether a version is in the range.
func (v Versions) Has(version int16) bool { return version >= v.Min && version <= v.Max }

// flexible says whether a version of one of Kafka's keys is flexible (KIP-482).
func flexible(key, version int16) bool { return version >= keys[key&(KeysMax-1)].Flexible }

// ResponseHeaderBytes is the size of a response's header: the correlation id, and from
// a key's first flexible version on tagged fields (ResponseHeader.json). The header of
// ApiVersions never has tagged fields, because a client that does not know the version
// must be able to read the response (KIP-511).
func ResponseHeaderBytes(key, version int16) int {
	return 4 + tagBytes(key != KeyApiVersions && flexible(key, version))
}
