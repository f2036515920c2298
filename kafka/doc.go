// Package kafka is the wire protocol: request headers, the codecs of the API keys that
// data shards answer, record batch v2, API keys and error codes. A request is parsed
// where it was received, in slices; a reply is written where it is sent from. The
// package imports no other of Tailbound, does no I/O, and acts on no request.
//
// Invariants: no bytes of a client make it read out of bounds, allocate, or loop
// longer than the bytes received; parsing the same bytes gives the same result,
// however they are cut into slices and however often; a view is valid until the
// Reader is used again; the size functions are exact; every client can read a batch
// that ValidateBatch accepted, which is stored unchanged except for PatchBase and
// StampAppendTime.
//
// Sources: the message definitions of Apache Kafka 4
// (clients/src/main/resources/common/message/*.json), its DefaultRecordBatch,
// DefaultRecord, LogValidator and UnifiedLog, and the KIPs that comments name.
package kafka
