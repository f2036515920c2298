"""What foreign_test.go asks of every client, by kafka-python: BROKER TOPIC."""
import sys, time
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient, NewPartitions, NewTopic
from kafka.structs import OffsetAndMetadata

broker, topic = sys.argv[1:3]
records, partitions, base = 300, 3, int(time.time() * 1000) - 400_000


def did(what):
    print("did:", what, flush=True)


def want(have, wanted, what):
    if have != wanted:
        sys.exit(f"{what}: {have!r}, want {wanted!r}")


admin = KafkaAdminClient(bootstrap_servers=broker)
admin.create_topics([NewTopic(name=topic, num_partitions=partitions, replication_factor=1, topic_configs={"retention.ms": "86400000"})])
did("create a topic")

for codec in (None, "gzip"):
    p = KafkaProducer(bootstrap_servers=broker, acks="all", linger_ms=5, compression_type=codec, enable_idempotence=codec is None)
    first = 0 if codec is None else records // 2
    sent = [p.send(topic, key=b"k%d" % i, value=b"v%d" % i, headers=[("h", b"%d" % i)], partition=i % partitions, timestamp_ms=base + i * 1000) for i in range(first, first + records // 2)]
    p.flush()
    for i, f in enumerate(sent):
        want(f.get(timeout=30).offset, (first + i) // partitions, "offset acknowledged")
    p.close()
    did("produce, idempotent" if codec is None else "produce, gzip")

c = KafkaConsumer(bootstrap_servers=broker, enable_auto_commit=False, auto_offset_reset="earliest", consumer_timeout_ms=20000)
here = TopicPartition(topic, 0)
c.assign([here])
c.seek(here, 50)
r = next(c)
want((r.offset, r.key, r.value, r.timestamp, r.headers), (50, b"k150", b"v150", base + 150_000, [("h", b"150")]), "consumed from offset 50")
did("consume from an offset")
found = c.offsets_for_times({here: base + 29_500})
want((found[here].offset, found[here].timestamp), (10, base + 30_000), "offset for a time")
c.seek(here, found[here].offset)
want(next(c).value, b"v30", "consumed from a time")
did("consume from a time")
want(c.beginning_offsets([here])[here], 0, "beginning")
want(c.end_offsets([here])[here], records // partitions, "end")
did("offsets")
c.close()

g = KafkaConsumer(topic, bootstrap_servers=broker, group_id="g." + topic, auto_offset_reset="earliest", enable_auto_commit=False, consumer_timeout_ms=20000)
seen = set()
for r in g:
    seen.add(r.value)
    if len(seen) == records:
        break
g.commit()
want(g.committed(here), records // partitions, "committed")
g.close()
did("groups")
want("g." + topic in str(admin.list_groups()), True, "listed groups")
did("list groups")

resource = ConfigResource(ConfigResourceType.TOPIC, topic, configs={"segment.bytes": "1048576"})
admin.alter_configs([resource])
want("1048576" in str(admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)])), True, "described configurations")
did("describe and alter configurations")
admin.create_partitions({topic: NewPartitions(partitions + 2)})
want(len(admin.describe_topics([topic])[0]["partitions"]), partitions + 2, "partitions")
did("create partitions")
admin.delete_records({here: 20})
late = KafkaConsumer(bootstrap_servers=broker)
want(late.beginning_offsets([here])[here], 20, "beginning after DeleteRecords")
late.close()
did("delete records")
want(len(admin.describe_cluster()["brokers"]) > 0, True, "brokers")
did("describe the cluster")
admin.close()
