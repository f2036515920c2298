// Package interop tests Tailbound from outside, as its users meet it: a broker process on loopback, unmodified Kafka clients (franz-go, sarama,
// kafka-go, librdkafka through confluent-kafka-go), raw sockets that send what no client would, and kill -9.
//
// It knows the wire and the command line; it never imports a room of the product. It is a module of its own, so that the product builds without
// cgo and without the clients' dependencies.
//
// Invariants it holds the broker to: what was acknowledged is at its acknowledged offset, byte for byte, whatever client reads it and however often
// the process was killed since; offsets have no gap; nothing that was refused is stored; a hostile connection has no effect on others.
package interop
