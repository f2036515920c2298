//! What compatibility_test.go asks of every client, by rdkafka: BROKER TOPIC.
use std::collections::{HashMap, HashSet};
use std::error::Error;
use std::fmt::Debug;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use futures::executor::block_on;
use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, NewPartitions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::{ClientContext, DefaultClientContext};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::message::{Header, Headers, Message, OwnedHeaders, OwnedMessage};
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext};
use rdkafka::{Offset, TopicPartitionList};

const RECORDS: usize = 300;
const PARTITIONS: usize = 3;
const WAIT: Duration = Duration::from_secs(30);

type Outcome = Result<(), Box<dyn Error>>;

fn did(what: &str) {
    println!("did: {what}");
}

fn want<T: PartialEq + Debug>(have: T, wanted: T, what: &str) -> Outcome {
    if have == wanted {
        return Ok(());
    }
    Err(format!("{what}: {have:?}, want {wanted:?}").into())
}

/// What was acknowledged: where each record is, by its number.
#[derive(Clone, Default)]
struct Acknowledged(Arc<Mutex<HashMap<usize, Result<(i32, i64), String>>>>);

impl ClientContext for Acknowledged {}

impl ProducerContext for Acknowledged {
    type DeliveryOpaque = Box<usize>;
    fn delivery(&self, result: &DeliveryResult<'_>, record: Self::DeliveryOpaque) {
        let outcome = match result {
            Ok(m) => Ok((m.partition(), m.offset())),
            Err((e, _)) => Err(e.to_string()),
        };
        self.0.lock().unwrap().insert(*record, outcome);
    }
}

fn produce(broker: &str, topic: &str, base: i64, codec: &str, records: std::ops::Range<usize>) -> Outcome {
    let acknowledged = Acknowledged::default();
    let idempotent = if codec == "none" { "true" } else { "false" };
    let p: BaseProducer<Acknowledged> = ClientConfig::new()
        .set("bootstrap.servers", broker)
        .set("enable.idempotence", idempotent)
        .set("acks", "all")
        .set("compression.codec", codec)
        .set("linger.ms", "5")
        .create_with_context(acknowledged.clone())?;
    for i in records.clone() {
        let (key, value, n) = (format!("k{i}"), format!("v{i}"), i.to_string());
        let headers = OwnedHeaders::new().insert(Header { key: "h", value: Some(&n) });
        p.send(
            BaseRecord::with_opaque_to(topic, Box::new(i))
                .partition((i % PARTITIONS) as i32)
                .key(&key)
                .payload(&value)
                .timestamp(base + i as i64 * 1000)
                .headers(headers),
        )
        .map_err(|(e, _)| e)?;
    }
    p.flush(WAIT)?;
    let seen = acknowledged.0.lock().unwrap();
    for i in records {
        want(seen.get(&i), Some(&Ok(((i % PARTITIONS) as i32, (i / PARTITIONS) as i64))), "acknowledged")?;
    }
    Ok(())
}

fn next(c: &BaseConsumer) -> Result<OwnedMessage, Box<dyn Error>> {
    let begun = Instant::now();
    while begun.elapsed() < WAIT {
        match c.poll(WAIT) {
            None => {} // also where a rebalance was handled
            Some(Err(e)) => return Err(e.into()),
            Some(Ok(m)) => return Ok(m.detach()),
        }
    }
    Err("nothing came".into())
}

fn main() -> Outcome {
    let args: Vec<String> = std::env::args().collect();
    let (broker, topic) = (args[1].as_str(), args[2].as_str());
    let base = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis() as i64 - 400_000;

    let admin: AdminClient<DefaultClientContext> = ClientConfig::new().set("bootstrap.servers", broker).create()?;
    let options = AdminOptions::new().request_timeout(Some(WAIT)).operation_timeout(Some(WAIT));
    let new = NewTopic::new(topic, PARTITIONS as i32, TopicReplication::Fixed(1)).set("retention.ms", "86400000");
    for made in block_on(admin.create_topics(&[new], &options))? {
        made.map_err(|(_, e)| e.to_string())?;
    }
    did("create a topic");

    let codecs = ["none", "gzip", "snappy", "lz4", "zstd"];
    let each = RECORDS / codecs.len();
    for (n, codec) in codecs.iter().enumerate() {
        produce(broker, topic, base, codec, n * each..(n + 1) * each)?;
    }
    did("produce, idempotent, by every codec");

    let c: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", broker)
        .set("group.id", "none")
        .set("enable.auto.commit", "false")
        .create()?;
    let mut here = TopicPartitionList::new();
    here.add_partition_offset(topic, 0, Offset::Offset(50))?;
    c.assign(&here)?;
    let m = next(&c)?;
    want(m.offset(), 50, "consumed from offset 50")?;
    want((m.key(), m.payload()), (Some(&b"k150"[..]), Some(&b"v150"[..])), "consumed from offset 50")?;
    want(m.timestamp().to_millis(), Some(base + 150_000), "its time")?;
    let headers = m.headers().ok_or("no headers")?;
    want((headers.count(), headers.get(0).key, headers.get(0).value), (1, "h", Some(&b"150"[..])), "its headers")?;
    did("consume from an offset");
    let mut at = TopicPartitionList::new();
    at.add_partition_offset(topic, 0, Offset::Offset(base + 29_500))?;
    let found = c.offsets_for_times(at, WAIT)?;
    want(found.elements()[0].offset(), Offset::Offset(10), "offset for a time")?;
    c.assign(&found)?;
    want(next(&c)?.payload(), Some(&b"v30"[..]), "consumed from a time")?;
    did("consume from a time");
    want(c.fetch_watermarks(topic, 0, WAIT)?, (0, (RECORDS / PARTITIONS) as i64), "offsets")?;
    did("offsets");

    for protocol in ["classic", "consumer"] {
        let group = format!("{protocol}.{topic}");
        let g: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", broker)
            .set("group.id", &group)
            .set("group.protocol", protocol)
            .set("auto.offset.reset", "earliest")
            .set("enable.auto.commit", "false")
            .create()?;
        g.subscribe(&[topic])?;
        let mut seen = HashSet::new();
        while seen.len() < RECORDS {
            seen.insert(next(&g)?.payload().map(<[u8]>::to_vec));
        }
        g.commit_consumer_state(CommitMode::Sync)?;
        let mut mine = TopicPartitionList::new();
        mine.add_partition(topic, 0);
        let committed = g.committed_offsets(mine, WAIT)?;
        want(committed.elements()[0].offset(), Offset::Offset((RECORDS / PARTITIONS) as i64), "committed")?;
    }
    did("groups, of both protocols");
    let listed = c.fetch_group_list(None, WAIT)?;
    want(listed.groups().iter().any(|g| g.name() == format!("classic.{topic}")), true, "the group is listed")?;
    did("list groups");

    let resource = ResourceSpecifier::Topic(topic);
    for altered in block_on(admin.alter_configs(&[AlterConfig::new(resource).set("segment.bytes", "1048576")], &options))? {
        altered.map_err(|(_, e)| e.to_string())?;
    }
    let described = block_on(admin.describe_configs(&[resource], &options))?.remove(0)?;
    let is = described.get("segment.bytes").and_then(|e| e.value.clone());
    want(is.as_deref(), Some("1048576"), "the configuration that was altered")?;
    did("describe and alter configurations");
    for made in block_on(admin.create_partitions(&[NewPartitions::new(topic, PARTITIONS + 2)], &options))? {
        made.map_err(|(_, e)| e.to_string())?;
    }
    let metadata = c.fetch_metadata(Some(topic), WAIT)?;
    want(metadata.topics()[0].partitions().len(), PARTITIONS + 2, "partitions")?;
    did("create partitions");
    let mut before = TopicPartitionList::new();
    before.add_partition_offset(topic, 0, Offset::Offset(20))?;
    block_on(admin.delete_records(&before, &options))?;
    want(c.fetch_watermarks(topic, 0, WAIT)?.0, 20, "beginning after DeleteRecords")?;
    did("delete records");
    want(metadata.brokers().is_empty(), false, "no brokers")?;
    did("list brokers");
    drop(c);
    for gone in block_on(admin.delete_groups(&[&format!("classic.{topic}")], &options))? {
        gone.map_err(|(_, e)| e.to_string())?;
    }
    did("delete groups");
    Ok(())
}
