"""What foreign_test.go asks of every client, by aiokafka: BROKER TOPIC."""
import asyncio, sys, time
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

broker, topic = sys.argv[1:3]
records, partitions, base = 300, 3, int(time.time() * 1000) - 400_000


def did(what):
    print("did:", what, flush=True)


def want(have, wanted, what):
    if have != wanted:
        sys.exit(f"{what}: {have!r}, want {wanted!r}")


async def main():
    admin = AIOKafkaAdminClient(bootstrap_servers=broker)
    await admin.start()
    await admin.create_topics([NewTopic(name=topic, num_partitions=partitions, replication_factor=1)])
    did("create a topic")
    for codec in (None, "gzip"):
        p = AIOKafkaProducer(bootstrap_servers=broker, acks="all", compression_type=codec, enable_idempotence=codec is None)
        await p.start()
        first = 0 if codec is None else records // 2
        sent = [await p.send(topic, key=b"k%d" % i, value=b"v%d" % i, headers=[("h", b"%d" % i)], partition=i % partitions, timestamp_ms=base + i * 1000) for i in range(first, first + records // 2)]
        await p.flush()
        for i, f in enumerate(sent):
            want((await f).offset, (first + i) // partitions, "offset acknowledged")
        await p.stop()
        did("produce, idempotent" if codec is None else "produce, gzip")

    here = TopicPartition(topic, 0)
    c = AIOKafkaConsumer(bootstrap_servers=broker, enable_auto_commit=False, auto_offset_reset="earliest")
    await c.start()
    c.assign([here])
    c.seek(here, 50)
    r = await c.getone()
    want((r.offset, r.key, r.value, r.timestamp, r.headers), (50, b"k150", b"v150", base + 150_000, (("h", b"150"),)), "consumed from offset 50")
    did("consume from an offset")
    found = await c.offsets_for_times({here: base + 29_500})
    want((found[here].offset, found[here].timestamp), (10, base + 30_000), "offset for a time")
    c.seek(here, found[here].offset)
    want((await c.getone()).value, b"v30", "consumed from a time")
    did("consume from a time")
    want((await c.beginning_offsets([here]))[here], 0, "beginning")
    want((await c.end_offsets([here]))[here], records // partitions, "end")
    did("offsets")
    await c.stop()

    g = AIOKafkaConsumer(topic, bootstrap_servers=broker, group_id="g." + topic, auto_offset_reset="earliest", enable_auto_commit=False)
    await g.start()
    seen = set()
    while len(seen) < records:
        for rs in (await g.getmany(timeout_ms=1000)).values():
            seen.update(r.value for r in rs)
    await g.commit()
    want(await g.committed(here), records // partitions, "committed")
    await g.stop()
    did("groups")
    want("g." + topic in [x[0] for x in await admin.list_consumer_groups()], True, "listed groups")
    did("list groups")
    await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, configs={"segment.bytes": "1048576"})])
    want("1048576" in str(await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)])), True, "described configurations")
    did("describe and alter configurations")
    await admin.create_partitions({topic: NewPartitions(partitions + 2)})
    did("create partitions")
    want(len((await admin.describe_cluster())["brokers"]) > 0, True, "brokers")
    did("describe the cluster")
    await admin.close()


asyncio.run(asyncio.wait_for(main(), 60))
