// Command peers starts systems that Tailbound is compared with, and drives
// those that do not speak Kafka's protocol. It is a module of its own: the
// product does not depend on what it is measured beside. go run ./bench starts
// it; by hand:
//
//	peers serve kafka|kafka-flush|jetstream|jetstream-sync HOST:PORT DIR [NAME=VALUE...]
//	peers generate    (a generating process of package trial, which drives JetStream)
//
// Kafka is Apache's own, its jars from Maven Central (pom.xml), one node in
// KRaft mode; kafka-flush has log.flush.interval.messages=1, without which an
// acknowledgement says that the page cache has the record. JetStream is
// nats-server as a library, with files; jetstream-sync has sync_interval:
// always, without which it syncs every two minutes. NAME=VALUE is another of Kafka's
// properties. Both have their defaults
// otherwise.
package main
