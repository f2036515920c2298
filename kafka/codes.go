package kafka

import "strconv"

// ErrorCode is a Kafka error code
// (clients/src/main/java/org/apache/kafka/common/protocol/Errors.java).
type ErrorCode int16

// All of Kafka 4's codes, in order.
const (
	UnknownServerError                     ErrorCode = -1
	None                                   ErrorCode = 0
	OffsetOutOfRange                       ErrorCode = 1
	CorruptMessage                         ErrorCode = 2
	UnknownTopicOrPartition                ErrorCode = 3
	InvalidFetchSize                       ErrorCode = 4
	LeaderNotAvailable                     ErrorCode = 5
	NotLeaderOrFollower                    ErrorCode = 6
	RequestTimedOut                        ErrorCode = 7
	BrokerNotAvailable                     ErrorCode = 8
	ReplicaNotAvailable                    ErrorCode = 9
	MessageTooLarge                        ErrorCode = 10
	StaleControllerEpoch                   ErrorCode = 11
	OffsetMetadataTooLarge                 ErrorCode = 12
	Network                                ErrorCode = 13
	CoordinatorLoadInProgress              ErrorCode = 14
	CoordinatorNotAvailable                ErrorCode = 15
	NotCoordinator                         ErrorCode = 16
	InvalidTopic                           ErrorCode = 17
	RecordListTooLarge                     ErrorCode = 18
	NotEnoughReplicas                      ErrorCode = 19
	NotEnoughReplicasAfterAppend           ErrorCode = 20
	InvalidRequiredAcks                    ErrorCode = 21
	IllegalGeneration                      ErrorCode = 22
	InconsistentGroupProtocol              ErrorCode = 23
	InvalidGroupID                         ErrorCode = 24
	UnknownMemberID                        ErrorCode = 25
	InvalidSessionTimeout                  ErrorCode = 26
	RebalanceInProgress                    ErrorCode = 27
	InvalidCommitOffsetSize                ErrorCode = 28
	TopicAuthorizationFailed               ErrorCode = 29
	GroupAuthorizationFailed               ErrorCode = 30
	ClusterAuthorizationFailed             ErrorCode = 31
	InvalidTimestamp                       ErrorCode = 32
	UnsupportedSASLMechanism               ErrorCode = 33
	IllegalSASLState                       ErrorCode = 34
	UnsupportedVersion                     ErrorCode = 35
	TopicAlreadyExists                     ErrorCode = 36
	InvalidPartitions                      ErrorCode = 37
	InvalidReplicationFactor               ErrorCode = 38
	InvalidReplicaAssignment               ErrorCode = 39
	InvalidConfig                          ErrorCode = 40
	NotController                          ErrorCode = 41
	InvalidRequest                         ErrorCode = 42
	UnsupportedForMessageFormat            ErrorCode = 43
	PolicyViolation                        ErrorCode = 44
	OutOfOrderSequenceNumber               ErrorCode = 45
	DuplicateSequenceNumber                ErrorCode = 46
	InvalidProducerEpoch                   ErrorCode = 47
	InvalidTxnState                        ErrorCode = 48
	InvalidProducerIDMapping               ErrorCode = 49
	InvalidTransactionTimeout              ErrorCode = 50
	ConcurrentTransactions                 ErrorCode = 51
	TransactionCoordinatorFenced           ErrorCode = 52
	TransactionalIDAuthorizationFailed     ErrorCode = 53
	SecurityDisabled                       ErrorCode = 54
	OperationNotAttempted                  ErrorCode = 55
	KafkaStorageError                      ErrorCode = 56
	LogDirNotFound                         ErrorCode = 57
	SASLAuthenticationFailed               ErrorCode = 58
	UnknownProducerID                      ErrorCode = 59
	ReassignmentInProgress                 ErrorCode = 60
	DelegationTokenAuthDisabled            ErrorCode = 61
	DelegationTokenNotFound                ErrorCode = 62
	DelegationTokenOwnerMismatch           ErrorCode = 63
	DelegationTokenRequestNotAllowed       ErrorCode = 64
	DelegationTokenAuthorizationFailed     ErrorCode = 65
	DelegationTokenExpired                 ErrorCode = 66
	InvalidPrincipalType                   ErrorCode = 67
	NonEmptyGroup                          ErrorCode = 68
	GroupIDNotFound                        ErrorCode = 69
	FetchSessionIDNotFound                 ErrorCode = 70
	InvalidFetchSessionEpoch               ErrorCode = 71
	ListenerNotFound                       ErrorCode = 72
	TopicDeletionDisabled                  ErrorCode = 73
	FencedLeaderEpoch                      ErrorCode = 74
	UnknownLeaderEpoch                     ErrorCode = 75
	UnsupportedCompressionType             ErrorCode = 76
	StaleBrokerEpoch                       ErrorCode = 77
	OffsetNotAvailable                     ErrorCode = 78
	MemberIDRequired                       ErrorCode = 79
	PreferredLeaderNotAvailable            ErrorCode = 80
	GroupMaxSizeReached                    ErrorCode = 81
	FencedInstanceID                       ErrorCode = 82
	EligibleLeadersNotAvailable            ErrorCode = 83
	ElectionNotNeeded                      ErrorCode = 84
	NoReassignmentInProgress               ErrorCode = 85
	GroupSubscribedToTopic                 ErrorCode = 86
	InvalidRecord                          ErrorCode = 87
	UnstableOffsetCommit                   ErrorCode = 88
	ThrottlingQuotaExceeded                ErrorCode = 89
	ProducerFenced                         ErrorCode = 90
	ResourceNotFound                       ErrorCode = 91
	DuplicateResource                      ErrorCode = 92
	UnacceptableCredential                 ErrorCode = 93
	InconsistentVoterSet                   ErrorCode = 94
	InvalidUpdateVersion                   ErrorCode = 95
	FeatureUpdateFailed                    ErrorCode = 96
	PrincipalDeserializationFailure        ErrorCode = 97
	SnapshotNotFound                       ErrorCode = 98
	PositionOutOfRange                     ErrorCode = 99
	UnknownTopicID                         ErrorCode = 100
	DuplicateBrokerRegistration            ErrorCode = 101
	BrokerIDNotRegistered                  ErrorCode = 102
	InconsistentTopicID                    ErrorCode = 103
	InconsistentClusterID                  ErrorCode = 104
	TransactionalIDNotFound                ErrorCode = 105
	FetchSessionTopicIDError               ErrorCode = 106
	IneligibleReplica                      ErrorCode = 107
	NewLeaderElected                       ErrorCode = 108
	OffsetMovedToTieredStorage             ErrorCode = 109
	FencedMemberEpoch                      ErrorCode = 110
	UnreleasedInstanceID                   ErrorCode = 111
	UnsupportedAssignor                    ErrorCode = 112
	StaleMemberEpoch                       ErrorCode = 113
	MismatchedEndpointType                 ErrorCode = 114
	UnsupportedEndpointType                ErrorCode = 115
	UnknownControllerID                    ErrorCode = 116
	UnknownSubscriptionID                  ErrorCode = 117
	TelemetryTooLarge                      ErrorCode = 118
	InvalidRegistration                    ErrorCode = 119
	TransactionAbortable                   ErrorCode = 120
	InvalidRecordState                     ErrorCode = 121
	ShareSessionNotFound                   ErrorCode = 122
	InvalidShareSessionEpoch               ErrorCode = 123
	FencedStateEpoch                       ErrorCode = 124
	InvalidVoterKey                        ErrorCode = 125
	DuplicateVoter                         ErrorCode = 126
	VoterNotFound                          ErrorCode = 127
	InvalidRegularExpression               ErrorCode = 128
	RebootstrapRequired                    ErrorCode = 129
	StreamsInvalidTopology                 ErrorCode = 130
	StreamsInvalidTopologyEpoch            ErrorCode = 131
	StreamsTopologyFenced                  ErrorCode = 132
	ShareSessionLimitReached               ErrorCode = 133
	GroupDeletionFailed                    ErrorCode = 134
	StreamsTopologyDescriptionUpdateFailed ErrorCode = 135
	ControllerIDNotRegistered              ErrorCode = 136
)

// codeNames is indexed by code + 1.
var codeNames = [...]string{
	UnknownServerError + 1:                     "UNKNOWN_SERVER_ERROR",
	None + 1:                                   "NONE",
	OffsetOutOfRange + 1:                       "OFFSET_OUT_OF_RANGE",
	CorruptMessage + 1:                         "CORRUPT_MESSAGE",
	UnknownTopicOrPartition + 1:                "UNKNOWN_TOPIC_OR_PARTITION",
	InvalidFetchSize + 1:                       "INVALID_FETCH_SIZE",
	LeaderNotAvailable + 1:                     "LEADER_NOT_AVAILABLE",
	NotLeaderOrFollower + 1:                    "NOT_LEADER_OR_FOLLOWER",
	RequestTimedOut + 1:                        "REQUEST_TIMED_OUT",
	BrokerNotAvailable + 1:                     "BROKER_NOT_AVAILABLE",
	ReplicaNotAvailable + 1:                    "REPLICA_NOT_AVAILABLE",
	MessageTooLarge + 1:                        "MESSAGE_TOO_LARGE",
	StaleControllerEpoch + 1:                   "STALE_CONTROLLER_EPOCH",
	OffsetMetadataTooLarge + 1:                 "OFFSET_METADATA_TOO_LARGE",
	Network + 1:                                "NETWORK_EXCEPTION",
	CoordinatorLoadInProgress + 1:              "COORDINATOR_LOAD_IN_PROGRESS",
	CoordinatorNotAvailable + 1:                "COORDINATOR_NOT_AVAILABLE",
	NotCoordinator + 1:                         "NOT_COORDINATOR",
	InvalidTopic + 1:                           "INVALID_TOPIC_EXCEPTION",
	RecordListTooLarge + 1:                     "RECORD_LIST_TOO_LARGE",
	NotEnoughReplicas + 1:                      "NOT_ENOUGH_REPLICAS",
	NotEnoughReplicasAfterAppend + 1:           "NOT_ENOUGH_REPLICAS_AFTER_APPEND",
	InvalidRequiredAcks + 1:                    "INVALID_REQUIRED_ACKS",
	IllegalGeneration + 1:                      "ILLEGAL_GENERATION",
	InconsistentGroupProtocol + 1:              "INCONSISTENT_GROUP_PROTOCOL",
	InvalidGroupID + 1:                         "INVALID_GROUP_ID",
	UnknownMemberID + 1:                        "UNKNOWN_MEMBER_ID",
	InvalidSessionTimeout + 1:                  "INVALID_SESSION_TIMEOUT",
	RebalanceInProgress + 1:                    "REBALANCE_IN_PROGRESS",
	InvalidCommitOffsetSize + 1:                "INVALID_COMMIT_OFFSET_SIZE",
	TopicAuthorizationFailed + 1:               "TOPIC_AUTHORIZATION_FAILED",
	GroupAuthorizationFailed + 1:               "GROUP_AUTHORIZATION_FAILED",
	ClusterAuthorizationFailed + 1:             "CLUSTER_AUTHORIZATION_FAILED",
	InvalidTimestamp + 1:                       "INVALID_TIMESTAMP",
	UnsupportedSASLMechanism + 1:               "UNSUPPORTED_SASL_MECHANISM",
	IllegalSASLState + 1:                       "ILLEGAL_SASL_STATE",
	UnsupportedVersion + 1:                     "UNSUPPORTED_VERSION",
	TopicAlreadyExists + 1:                     "TOPIC_ALREADY_EXISTS",
	InvalidPartitions + 1:                      "INVALID_PARTITIONS",
	InvalidReplicationFactor + 1:               "INVALID_REPLICATION_FACTOR",
	InvalidReplicaAssignment + 1:               "INVALID_REPLICA_ASSIGNMENT",
	InvalidConfig + 1:                          "INVALID_CONFIG",
	NotController + 1:                          "NOT_CONTROLLER",
	InvalidRequest + 1:                         "INVALID_REQUEST",
	UnsupportedForMessageFormat + 1:            "UNSUPPORTED_FOR_MESSAGE_FORMAT",
	PolicyViolation + 1:                        "POLICY_VIOLATION",
	OutOfOrderSequenceNumber + 1:               "OUT_OF_ORDER_SEQUENCE_NUMBER",
	DuplicateSequenceNumber + 1:                "DUPLICATE_SEQUENCE_NUMBER",
	InvalidProducerEpoch + 1:                   "INVALID_PRODUCER_EPOCH",
	InvalidTxnState + 1:                        "INVALID_TXN_STATE",
	InvalidProducerIDMapping + 1:               "INVALID_PRODUCER_ID_MAPPING",
	InvalidTransactionTimeout + 1:              "INVALID_TRANSACTION_TIMEOUT",
	ConcurrentTransactions + 1:                 "CONCURRENT_TRANSACTIONS",
	TransactionCoordinatorFenced + 1:           "TRANSACTION_COORDINATOR_FENCED",
	TransactionalIDAuthorizationFailed + 1:     "TRANSACTIONAL_ID_AUTHORIZATION_FAILED",
	SecurityDisabled + 1:                       "SECURITY_DISABLED",
	OperationNotAttempted + 1:                  "OPERATION_NOT_ATTEMPTED",
	KafkaStorageError + 1:                      "KAFKA_STORAGE_ERROR",
	LogDirNotFound + 1:                         "LOG_DIR_NOT_FOUND",
	SASLAuthenticationFailed + 1:               "SASL_AUTHENTICATION_FAILED",
	UnknownProducerID + 1:                      "UNKNOWN_PRODUCER_ID",
	ReassignmentInProgress + 1:                 "REASSIGNMENT_IN_PROGRESS",
	DelegationTokenAuthDisabled + 1:            "DELEGATION_TOKEN_AUTH_DISABLED",
	DelegationTokenNotFound + 1:                "DELEGATION_TOKEN_NOT_FOUND",
	DelegationTokenOwnerMismatch + 1:           "DELEGATION_TOKEN_OWNER_MISMATCH",
	DelegationTokenRequestNotAllowed + 1:       "DELEGATION_TOKEN_REQUEST_NOT_ALLOWED",
	DelegationTokenAuthorizationFailed + 1:     "DELEGATION_TOKEN_AUTHORIZATION_FAILED",
	DelegationTokenExpired + 1:                 "DELEGATION_TOKEN_EXPIRED",
	InvalidPrincipalType + 1:                   "INVALID_PRINCIPAL_TYPE",
	NonEmptyGroup + 1:                          "NON_EMPTY_GROUP",
	GroupIDNotFound + 1:                        "GROUP_ID_NOT_FOUND",
	FetchSessionIDNotFound + 1:                 "FETCH_SESSION_ID_NOT_FOUND",
	InvalidFetchSessionEpoch + 1:               "INVALID_FETCH_SESSION_EPOCH",
	ListenerNotFound + 1:                       "LISTENER_NOT_FOUND",
	TopicDeletionDisabled + 1:                  "TOPIC_DELETION_DISABLED",
	FencedLeaderEpoch + 1:                      "FENCED_LEADER_EPOCH",
	UnknownLeaderEpoch + 1:                     "UNKNOWN_LEADER_EPOCH",
	UnsupportedCompressionType + 1:             "UNSUPPORTED_COMPRESSION_TYPE",
	StaleBrokerEpoch + 1:                       "STALE_BROKER_EPOCH",
	OffsetNotAvailable + 1:                     "OFFSET_NOT_AVAILABLE",
	MemberIDRequired + 1:                       "MEMBER_ID_REQUIRED",
	PreferredLeaderNotAvailable + 1:            "PREFERRED_LEADER_NOT_AVAILABLE",
	GroupMaxSizeReached + 1:                    "GROUP_MAX_SIZE_REACHED",
	FencedInstanceID + 1:                       "FENCED_INSTANCE_ID",
	EligibleLeadersNotAvailable + 1:            "ELIGIBLE_LEADERS_NOT_AVAILABLE",
	ElectionNotNeeded + 1:                      "ELECTION_NOT_NEEDED",
	NoReassignmentInProgress + 1:               "NO_REASSIGNMENT_IN_PROGRESS",
	GroupSubscribedToTopic + 1:                 "GROUP_SUBSCRIBED_TO_TOPIC",
	InvalidRecord + 1:                          "INVALID_RECORD",
	UnstableOffsetCommit + 1:                   "UNSTABLE_OFFSET_COMMIT",
	ThrottlingQuotaExceeded + 1:                "THROTTLING_QUOTA_EXCEEDED",
	ProducerFenced + 1:                         "PRODUCER_FENCED",
	ResourceNotFound + 1:                       "RESOURCE_NOT_FOUND",
	DuplicateResource + 1:                      "DUPLICATE_RESOURCE",
	UnacceptableCredential + 1:                 "UNACCEPTABLE_CREDENTIAL",
	InconsistentVoterSet + 1:                   "INCONSISTENT_VOTER_SET",
	InvalidUpdateVersion + 1:                   "INVALID_UPDATE_VERSION",
	FeatureUpdateFailed + 1:                    "FEATURE_UPDATE_FAILED",
	PrincipalDeserializationFailure + 1:        "PRINCIPAL_DESERIALIZATION_FAILURE",
	SnapshotNotFound + 1:                       "SNAPSHOT_NOT_FOUND",
	PositionOutOfRange + 1:                     "POSITION_OUT_OF_RANGE",
	UnknownTopicID + 1:                         "UNKNOWN_TOPIC_ID",
	DuplicateBrokerRegistration + 1:            "DUPLICATE_BROKER_REGISTRATION",
	BrokerIDNotRegistered + 1:                  "BROKER_ID_NOT_REGISTERED",
	InconsistentTopicID + 1:                    "INCONSISTENT_TOPIC_ID",
	InconsistentClusterID + 1:                  "INCONSISTENT_CLUSTER_ID",
	TransactionalIDNotFound + 1:                "TRANSACTIONAL_ID_NOT_FOUND",
	FetchSessionTopicIDError + 1:               "FETCH_SESSION_TOPIC_ID_ERROR",
	IneligibleReplica + 1:                      "INELIGIBLE_REPLICA",
	NewLeaderElected + 1:                       "NEW_LEADER_ELECTED",
	OffsetMovedToTieredStorage + 1:             "OFFSET_MOVED_TO_TIERED_STORAGE",
	FencedMemberEpoch + 1:                      "FENCED_MEMBER_EPOCH",
	UnreleasedInstanceID + 1:                   "UNRELEASED_INSTANCE_ID",
	UnsupportedAssignor + 1:                    "UNSUPPORTED_ASSIGNOR",
	StaleMemberEpoch + 1:                       "STALE_MEMBER_EPOCH",
	MismatchedEndpointType + 1:                 "MISMATCHED_ENDPOINT_TYPE",
	UnsupportedEndpointType + 1:                "UNSUPPORTED_ENDPOINT_TYPE",
	UnknownControllerID + 1:                    "UNKNOWN_CONTROLLER_ID",
	UnknownSubscriptionID + 1:                  "UNKNOWN_SUBSCRIPTION_ID",
	TelemetryTooLarge + 1:                      "TELEMETRY_TOO_LARGE",
	InvalidRegistration + 1:                    "INVALID_REGISTRATION",
	TransactionAbortable + 1:                   "TRANSACTION_ABORTABLE",
	InvalidRecordState + 1:                     "INVALID_RECORD_STATE",
	ShareSessionNotFound + 1:                   "SHARE_SESSION_NOT_FOUND",
	InvalidShareSessionEpoch + 1:               "INVALID_SHARE_SESSION_EPOCH",
	FencedStateEpoch + 1:                       "FENCED_STATE_EPOCH",
	InvalidVoterKey + 1:                        "INVALID_VOTER_KEY",
	DuplicateVoter + 1:                         "DUPLICATE_VOTER",
	VoterNotFound + 1:                          "VOTER_NOT_FOUND",
	InvalidRegularExpression + 1:               "INVALID_REGULAR_EXPRESSION",
	RebootstrapRequired + 1:                    "REBOOTSTRAP_REQUIRED",
	StreamsInvalidTopology + 1:                 "STREAMS_INVALID_TOPOLOGY",
	StreamsInvalidTopologyEpoch + 1:            "STREAMS_INVALID_TOPOLOGY_EPOCH",
	StreamsTopologyFenced + 1:                  "STREAMS_TOPOLOGY_FENCED",
	ShareSessionLimitReached + 1:               "SHARE_SESSION_LIMIT_REACHED",
	GroupDeletionFailed + 1:                    "GROUP_DELETION_FAILED",
	StreamsTopologyDescriptionUpdateFailed + 1: "STREAMS_TOPOLOGY_DESCRIPTION_UPDATE_FAILED",
	ControllerIDNotRegistered + 1:              "CONTROLLER_ID_NOT_REGISTERED",
}

// String is Kafka's name of the code.
func (c ErrorCode) String() string {
	if i := int(c) + 1; i >= 0 && i < len(codeNames) {
		return codeNames[i]
	}
	return "error " + strconv.Itoa(int(c))
}

// API keys (org.apache.kafka.common.protocol.ApiKeys).
const (
	KeyProduce              int16 = 0
	KeyFetch                int16 = 1
	KeyListOffsets          int16 = 2
	KeyMetadata             int16 = 3
	KeyOffsetCommit         int16 = 8
	KeyOffsetFetch          int16 = 9
	KeyFindCoordinator      int16 = 10
	KeyJoinGroup            int16 = 11
	KeyHeartbeat            int16 = 12
	KeyLeaveGroup           int16 = 13
	KeySyncGroup            int16 = 14
	KeyDescribeGroups       int16 = 15
	KeyListGroups           int16 = 16
	KeyApiVersions          int16 = 18
	KeyCreateTopics         int16 = 19
	KeyDeleteTopics         int16 = 20
	KeyDeleteRecords        int16 = 21
	KeyInitProducerID       int16 = 22
	KeyOffsetForLeaderEpoch int16 = 23
	KeyDescribeConfigs      int16 = 32
	KeyAlterConfigs         int16 = 33
	KeyDescribeLogDirs      int16 = 35
	KeyCreatePartitions     int16 = 37
	KeyDeleteGroups         int16 = 42
	KeyElectLeaders         int16 = 43
	KeyIncrementalAlter     int16 = 44
	KeyListReassignments    int16 = 46
	KeyOffsetDelete         int16 = 47
	KeyDescribeCluster      int16 = 60
	KeyDescribeProducers    int16 = 61
	KeyConsumerHeartbeat    int16 = 68
	KeyConsumerDescribe     int16 = 69
	KeyDescribePartitions   int16 = 75
)

// Key is an API key that is served: the versions advertised, and from which
// version on it is flexible (KIP-482).
type Key struct {
	Key, Min, Max, Flexible int16
	Name                    string
}

// keys are Kafka 4's floors, for old clients insist on them. Produce is
// advertised from 0 and served from 3: librdkafka before 2.11.1 takes a missing
// version 0 for a broker that knows no compression (KAFKA-18659). Fetch and
// Produce name topics by id from 13 on (KIP-516). The ceilings: InitProducerId 5
// belongs to the second protocol of transactions (KIP-890), OffsetCommit and
// OffsetFetch 10 name topics by id, FindCoordinator 5 belongs to transactions
// again. The flexible versions are the flexibleVersions of
// clients/src/main/resources/common/message/*Request.json.
var keys = [...]Key{
	{KeyProduce, 0, 13, 9, "Produce"},
	{KeyFetch, 4, 18, 12, "Fetch"},
	{KeyListOffsets, 1, 11, 6, "ListOffsets"},
	{KeyMetadata, 0, 13, 9, "Metadata"},
	{KeyOffsetCommit, 2, 9, 8, "OffsetCommit"},
	{KeyOffsetFetch, 1, 9, 6, "OffsetFetch"},
	{KeyFindCoordinator, 0, 4, 3, "FindCoordinator"},
	{KeyJoinGroup, 0, 9, 6, "JoinGroup"},
	{KeyHeartbeat, 0, 4, 4, "Heartbeat"},
	{KeyLeaveGroup, 0, 5, 4, "LeaveGroup"},
	{KeySyncGroup, 0, 5, 4, "SyncGroup"},
	{KeyDescribeGroups, 0, 6, 5, "DescribeGroups"},
	{KeyListGroups, 0, 5, 3, "ListGroups"},
	{KeyApiVersions, 0, 4, 3, "ApiVersions"},
	{KeyCreateTopics, 2, 7, 5, "CreateTopics"},
	{KeyDeleteTopics, 1, 6, 4, "DeleteTopics"},
	{KeyDeleteRecords, 0, 2, 2, "DeleteRecords"},
	{KeyInitProducerID, 0, 4, 2, "InitProducerId"},
	{KeyOffsetForLeaderEpoch, 2, 4, 4, "OffsetForLeaderEpoch"},
	{KeyDescribeConfigs, 1, 4, 4, "DescribeConfigs"},
	{KeyAlterConfigs, 0, 2, 2, "AlterConfigs"},
	{KeyDescribeLogDirs, 1, 4, 2, "DescribeLogDirs"},
	{KeyCreatePartitions, 0, 3, 2, "CreatePartitions"},
	{KeyDeleteGroups, 0, 2, 2, "DeleteGroups"},
	{KeyElectLeaders, 0, 2, 2, "ElectLeaders"},
	{KeyIncrementalAlter, 0, 1, 1, "IncrementalAlterConfigs"},
	{KeyListReassignments, 0, 0, 0, "ListPartitionReassignments"},
	{KeyOffsetDelete, 0, 0, neverFlexible, "OffsetDelete"},
	{KeyDescribeCluster, 0, 2, 0, "DescribeCluster"},
	{KeyDescribeProducers, 0, 0, 0, "DescribeProducers"},
	{KeyConsumerHeartbeat, 0, 1, 0, "ConsumerGroupHeartbeat"},
	{KeyConsumerDescribe, 0, 1, 0, "ConsumerGroupDescribe"},
	{KeyDescribePartitions, 0, 0, 0, "DescribeTopicPartitions"},
}

// neverFlexible is above every version.
const neverFlexible = 1<<15 - 1

// ProduceMin is the lowest version of Produce that is served.
const ProduceMin = 3

// Keys lists what is served, in order of key.
func Keys() []Key { return keys[:] }

// byKey has the entries by their keys; those of others have no name.
var byKey = func() (all [128]Key) {
	for _, k := range keys {
		all[k.Key] = k
	}
	return all
}()

// KeyOf is the entry of an API key.
func KeyOf(key int16) (*Key, bool) {
	if key < 0 || int(key) >= len(byKey) || byKey[key].Name == "" {
		return nil, false
	}
	return &byKey[key], true
}

// flexible says whether a served key's version is a flexible one (KIP-482).
func flexible(key, version int16) bool { return version >= byKey[key&127].Flexible }

// ResponseHeaderBytes is the size of a response's header: the correlation id,
// and from a key's flexible version on its tags (ResponseHeader.json). The
// header of ApiVersions never has tags: its answer must be readable by a client
// that does not know the version (KIP-511).
func ResponseHeaderBytes(key, version int16) int {
	return 4 + tagBytes(key != KeyApiVersions && flexible(key, version))
}
