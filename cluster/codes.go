package cluster

// Kafka error codes of refusals.
// Source: org.apache.kafka.common.protocol.Errors.
const (
	CodeUnknownServerError        int16 = -1
	CodeUnknownTopicOrPartition   int16 = 3
	CodeOffsetMetadataTooLarge    int16 = 12
	CodeCoordinatorNotAvailable   int16 = 15
	CodeNotCoordinator            int16 = 16
	CodeInvalidTopic              int16 = 17
	CodeIllegalGeneration         int16 = 22
	CodeInconsistentGroupProtocol int16 = 23
	CodeInvalidGroupID            int16 = 24
	CodeUnknownMemberID           int16 = 25
	CodeInvalidSessionTimeout     int16 = 26
	CodeRebalanceInProgress       int16 = 27
	CodeInvalidCommitOffsetSize   int16 = 28
	CodeUnsupportedVersion        int16 = 35
	CodeTopicAlreadyExists        int16 = 36
	CodeInvalidPartitions         int16 = 37
	CodeInvalidReplicationFactor  int16 = 38
	CodeInvalidReplicaAssignment  int16 = 39
	CodeInvalidConfig             int16 = 40
	CodeInvalidRequest            int16 = 42
	CodePolicyViolation           int16 = 44
	CodeNonEmptyGroup             int16 = 68
	CodeGroupIDNotFound           int16 = 69
	CodeMemberIDRequired          int16 = 79
	CodeGroupMaxSizeReached       int16 = 81
	CodeFencedInstanceID          int16 = 82
	CodeGroupSubscribedToTopic    int16 = 86
	CodeUnknownTopicID            int16 = 100
	CodeFencedMemberEpoch         int16 = 110
	CodeUnreleasedInstanceID      int16 = 111
	CodeUnsupportedAssignor       int16 = 112
	CodeStaleMemberEpoch          int16 = 113
	CodeInvalidRegularExpression  int16 = 128
)
