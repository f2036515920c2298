package kafka

import "strconv"

// ErrorCode is a Kafka error code
// (clients/src/main/java/org/apache/kafka/common/protocol/Errors.java).
type ErrorCode int16

// The codes that Tailbound gives.
const (
	UnknownServerError                 ErrorCode = -1
	None                               ErrorCode = 0
	OffsetOutOfRange                   ErrorCode = 1
	CorruptMessage                     ErrorCode = 2
	UnknownTopicOrPartition            ErrorCode = 3
	LeaderNotAvailable                 ErrorCode = 5
	NotLeaderOrFollower                ErrorCode = 6
	RequestTimedOut                    ErrorCode = 7
	MessageTooLarge                    ErrorCode = 10
	CoordinatorNotAvailable            ErrorCode = 15
	NotCoordinator                     ErrorCode = 16
	InvalidTopic                       ErrorCode = 17
	InvalidRequiredAcks                ErrorCode = 21
	InvalidTimestamp                   ErrorCode = 32
	UnsupportedVersion                 ErrorCode = 35
	TopicAlreadyExists                 ErrorCode = 36
	InvalidPartitions                  ErrorCode = 37
	InvalidReplicationFactor           ErrorCode = 38
	InvalidReplicaAssignment           ErrorCode = 39
	InvalidConfig                      ErrorCode = 40
	NotController                      ErrorCode = 41
	InvalidRequest                     ErrorCode = 42
	UnsupportedForMessageFormat        ErrorCode = 43
	PolicyViolation                    ErrorCode = 44
	OutOfOrderSequenceNumber           ErrorCode = 45
	DuplicateSequenceNumber            ErrorCode = 46
	InvalidProducerEpoch               ErrorCode = 47
	InvalidTxnState                    ErrorCode = 48
	InvalidProducerIDMapping           ErrorCode = 49
	TransactionalIDAuthorizationFailed ErrorCode = 53
	KafkaStorageError                  ErrorCode = 56
	UnknownProducerID                  ErrorCode = 59
	FetchSessionIDNotFound             ErrorCode = 70
	InvalidFetchSessionEpoch           ErrorCode = 71
	FencedLeaderEpoch                  ErrorCode = 74
	UnknownLeaderEpoch                 ErrorCode = 75
	UnsupportedCompressionType         ErrorCode = 76
	InvalidRecord                      ErrorCode = 87
	UnknownTopicID                     ErrorCode = 100
	UnsupportedEndpointType            ErrorCode = 115
)

var codeNames = map[ErrorCode]string{
	UnknownServerError: "UNKNOWN_SERVER_ERROR", None: "NONE", OffsetOutOfRange: "OFFSET_OUT_OF_RANGE", CorruptMessage: "CORRUPT_MESSAGE",
	UnknownTopicOrPartition: "UNKNOWN_TOPIC_OR_PARTITION", LeaderNotAvailable: "LEADER_NOT_AVAILABLE", NotLeaderOrFollower: "NOT_LEADER_OR_FOLLOWER",
	RequestTimedOut: "REQUEST_TIMED_OUT", MessageTooLarge: "MESSAGE_TOO_LARGE", CoordinatorNotAvailable: "COORDINATOR_NOT_AVAILABLE",
	NotCoordinator: "NOT_COORDINATOR", InvalidTopic: "INVALID_TOPIC_EXCEPTION", InvalidRequiredAcks: "INVALID_REQUIRED_ACKS",
	InvalidTimestamp: "INVALID_TIMESTAMP", UnsupportedVersion: "UNSUPPORTED_VERSION", TopicAlreadyExists: "TOPIC_ALREADY_EXISTS",
	InvalidPartitions: "INVALID_PARTITIONS", InvalidReplicationFactor: "INVALID_REPLICATION_FACTOR", InvalidReplicaAssignment: "INVALID_REPLICA_ASSIGNMENT",
	InvalidConfig: "INVALID_CONFIG", NotController: "NOT_CONTROLLER", InvalidRequest: "INVALID_REQUEST",
	UnsupportedForMessageFormat: "UNSUPPORTED_FOR_MESSAGE_FORMAT", PolicyViolation: "POLICY_VIOLATION",
	OutOfOrderSequenceNumber: "OUT_OF_ORDER_SEQUENCE_NUMBER", DuplicateSequenceNumber: "DUPLICATE_SEQUENCE_NUMBER",
	InvalidProducerEpoch: "INVALID_PRODUCER_EPOCH", InvalidTxnState: "INVALID_TXN_STATE", InvalidProducerIDMapping: "INVALID_PRODUCER_ID_MAPPING",
	TransactionalIDAuthorizationFailed: "TRANSACTIONAL_ID_AUTHORIZATION_FAILED", KafkaStorageError: "KAFKA_STORAGE_ERROR",
	UnknownProducerID: "UNKNOWN_PRODUCER_ID", FetchSessionIDNotFound: "FETCH_SESSION_ID_NOT_FOUND", InvalidFetchSessionEpoch: "INVALID_FETCH_SESSION_EPOCH",
	FencedLeaderEpoch: "FENCED_LEADER_EPOCH", UnknownLeaderEpoch: "UNKNOWN_LEADER_EPOCH", UnsupportedCompressionType: "UNSUPPORTED_COMPRESSION_TYPE",
	InvalidRecord: "INVALID_RECORD", UnknownTopicID: "UNKNOWN_TOPIC_ID", UnsupportedEndpointType: "UNSUPPORTED_ENDPOINT_TYPE",
}

// String is Kafka's name of the code.
func (c ErrorCode) String() string {
	if s, ok := codeNames[c]; ok {
		return s
	}
	return "error " + strconv.Itoa(int(c))
}

// API keys (org.apache.kafka.common.protocol.ApiKeys).
const (
	KeyProduce              int16 = 0
	KeyFetch                int16 = 1
	KeyListOffsets          int16 = 2
	KeyMetadata             int16 = 3
	KeyFindCoordinator      int16 = 10
	KeyApiVersions          int16 = 18
	KeyCreateTopics         int16 = 19
	KeyDeleteTopics         int16 = 20
	KeyInitProducerID       int16 = 22
	KeyOffsetForLeaderEpoch int16 = 23
	KeyDescribeCluster      int16 = 60
)

// Key is an API key that is served: the versions advertised, and from which
// version on it is flexible (KIP-482).
type Key struct {
	Key, Min, Max, Flexible int16
	Name                    string
}

// keys are Kafka 4's floors, for old clients insist on them. Produce is
// advertised from 0 and served from 3: librdkafka before 2.11.1 takes a missing
// version 0 for a broker that knows no compression (KAFKA-18659).
var keys = [...]Key{
	{KeyProduce, 0, 12, 9, "Produce"},
	{KeyFetch, 4, 12, 12, "Fetch"},
	{KeyListOffsets, 1, 8, 6, "ListOffsets"},
	{KeyMetadata, 0, 12, 9, "Metadata"},
	{KeyFindCoordinator, 0, 4, 3, "FindCoordinator"},
	{KeyApiVersions, 0, 4, 3, "ApiVersions"},
	{KeyCreateTopics, 2, 7, 5, "CreateTopics"},
	{KeyDeleteTopics, 1, 6, 4, "DeleteTopics"},
	{KeyInitProducerID, 0, 5, 2, "InitProducerId"},
	{KeyOffsetForLeaderEpoch, 2, 4, 4, "OffsetForLeaderEpoch"},
	{KeyDescribeCluster, 0, 1, 0, "DescribeCluster"},
}

// ProduceMin is the lowest version of Produce that is served.
const ProduceMin = 3

// Keys lists what is served, in order of key.
func Keys() []Key { return keys[:] }

// KeyOf is the entry of an API key.
func KeyOf(key int16) (Key, bool) {
	for i := range keys {
		if keys[i].Key == key {
			return keys[i], true
		}
	}
	return Key{}, false
}
