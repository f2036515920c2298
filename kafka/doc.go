// Package kafka is the wire: framing, request headers, the codecs of the keys
// that data shards answer, record batch v2, error codes. A request is walked
// where it lies, in pieces; an answer is put where it will leave from. It
// imports nothing of ours, does no I/O and knows no meaning.
//
// Invariants: nothing a peer sends makes it read out of bounds, allocate, or
// loop longer than the bytes received; a walk gives the same over the same
// bytes, wherever they are cut and however often; a view lives until the Reader
// is used again; the size functions are exact; a batch that ValidateBatch took
// can be read by every client, and is stored as it came but for PatchBase.
//
// Sources: the message definitions of Apache Kafka 4
// (clients/src/main/resources/common/message/*.json), its DefaultRecordBatch,
// DefaultRecord, LogValidator and UnifiedLog, and the KIPs named beside what
// they decide.
package kafka
