// What foreign_test.go asks of every client, by Kafka's own: BROKER TOPIC. After
// the client come the console tools, each by its main, in this one process.
import java.io.*;
import java.nio.charset.StandardCharsets;
import java.nio.file.*;
import java.time.Duration;
import java.util.*;
import java.util.concurrent.Future;
import java.util.stream.*;
import org.apache.kafka.clients.admin.*;
import org.apache.kafka.clients.consumer.*;
import org.apache.kafka.clients.producer.*;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.utils.internals.Exit;

public class Interop {
    static final int records = 360, partitions = 3;
    static final PrintStream out = System.out;
    static String broker, topic;

    static void did(String what) {
        out.println("did: " + what);
        out.flush();
    }

    static void want(Object have, Object wanted, String what) {
        if (!Objects.equals(have, wanted)) throw new AssertionError(what + ": " + have + ", want " + wanted);
    }

    static void holds(String text, String part, String what) {
        if (!text.contains(part)) throw new AssertionError(what + " has no \"" + part + "\":\n" + text);
    }

    static Map<String, Object> settings(Object... more) {
        Map<String, Object> m = new HashMap<>();
        m.put("bootstrap.servers", broker);
        for (int i = 0; i < more.length; i += 2) m.put((String) more[i], more[i + 1]);
        return m;
    }

    static final String in = "org.apache.kafka.common.serialization.StringDeserializer", to = "org.apache.kafka.common.serialization.StringSerializer";

    static void client() throws Exception {
        long base = System.currentTimeMillis() - 400_000;
        TopicPartition here = new TopicPartition(topic, 0);
        try (Admin admin = Admin.create(settings())) {
            admin.createTopics(List.of(new NewTopic(topic, partitions, (short) 1).configs(Map.of("retention.ms", "86400000")))).all().get();
            did("create a topic");
            CreateTopicsResult rehearsal = admin.createTopics(List.of(new NewTopic(topic + ".rehearsal", partitions, (short) 1).configs(Map.of("retention.ms", "77000"))), new CreateTopicsOptions().validateOnly(true));
            want(rehearsal.config(topic + ".rehearsal").get().get("retention.ms").value(), "77000", "a configuration of a topic that is validated only");
            did("validate a topic");
            int i = 0;
            for (String codec : List.of("none", "gzip", "snappy", "lz4", "zstd")) {
                try (Producer<String, String> p = new KafkaProducer<>(settings("compression.type", codec, "linger.ms", 5, "key.serializer", to, "value.serializer", to))) {
                    List<Future<RecordMetadata>> sent = new ArrayList<>();
                    int first = i;
                    for (; i < first + records / 5; i++) {
                        ProducerRecord<String, String> r = new ProducerRecord<>(topic, i % partitions, base + i * 1000L, "k" + i, "v" + i);
                        r.headers().add("h", ("" + i).getBytes());
                        sent.add(p.send(r));
                    }
                    p.flush();
                    for (int k = 0; k < sent.size(); k++) want(sent.get(k).get().offset(), (long) ((first + k) / partitions), "offset acknowledged");
                }
            }
            did("produce, idempotent, by every codec");
            try (Consumer<String, String> c = new KafkaConsumer<>(settings("key.deserializer", in, "value.deserializer", in, "enable.auto.commit", false))) {
                c.assign(List.of(here));
                c.seek(here, 50);
                ConsumerRecord<String, String> r = first(c);
                want(List.of(r.offset(), r.key(), r.value(), r.timestamp(), new String(r.headers().lastHeader("h").value())), List.of(50L, "k150", "v150", base + 150_000, "150"), "consumed from offset 50");
                did("consume from an offset");
                OffsetAndTimestamp found = c.offsetsForTimes(Map.of(here, base + 29_500)).get(here);
                want(List.of(found.offset(), found.timestamp()), List.of(10L, base + 30_000), "offset for a time");
                c.seek(here, found.offset());
                want(first(c).value(), "v30", "consumed from a time");
                for (long n : List.of(99L, 150L, 222L, 300L)) { // in batches of each codec
                    found = c.offsetsForTimes(Map.of(here, base + n * 1000 - 500)).get(here);
                    want(List.of(found.offset(), found.timestamp()), List.of(n / partitions, base + n * 1000), "offset for a time in a compressed batch");
                }
                did("consume from a time");
                want(c.beginningOffsets(List.of(here)).get(here), 0L, "beginning");
                want(c.endOffsets(List.of(here)).get(here), (long) (records / partitions), "end");
            }
            want(admin.listOffsets(Map.of(here, OffsetSpec.maxTimestamp())).all().get().get(here).offset(), records / partitions - 1L, "offset of the largest time");
            did("offsets");
            for (String group : List.of("g." + topic, "c." + topic, "p." + topic)) {
                String protocol = group.startsWith("g.") ? "classic" : "consumer";
                try (Consumer<String, String> g = new KafkaConsumer<>(settings("key.deserializer", in, "value.deserializer", in, "enable.auto.commit", false, "group.id", group, "group.protocol", protocol, "auto.offset.reset", "earliest"))) {
                    if (group.startsWith("p.")) g.subscribe(new SubscriptionPattern("^" + topic + "$"));
                    else g.subscribe(List.of(topic));
                    Set<String> seen = new HashSet<>();
                    long until = System.currentTimeMillis() + 30_000;
                    while (seen.size() < records && System.currentTimeMillis() < until) g.poll(Duration.ofMillis(200)).forEach(r -> seen.add(r.value()));
                    want(seen.size(), records, "records consumed by a group");
                    g.commitSync();
                    want(g.committed(Set.of(here)).get(here).offset(), (long) (records / partitions), "committed");
                    ConsumerGroupDescription d = admin.describeConsumerGroups(List.of(group)).all().get().get(group);
                    want(d.type().toString().toLowerCase(), protocol, "type of the group");
                    want(d.members().size(), 1, "members");
                    want(d.members().iterator().next().assignment().topicPartitions().size(), partitions, "partitions of the member");
                }
            }
            did("groups, of both protocols");
            want(admin.describeConsumerGroups(List.of("g." + topic)).all().get().get("g." + topic).coordinator().isEmpty(), false, "coordinator");
            did("list and describe groups");
            for (ConfigResource r : List.of(new ConfigResource(ConfigResource.Type.TOPIC, topic), new ConfigResource(ConfigResource.Type.BROKER, ""))) {
                String name = r.type() == ConfigResource.Type.TOPIC ? "segment.bytes" : "log.segment.bytes";
                admin.incrementalAlterConfigs(Map.of(r, List.of(new AlterConfigOp(new ConfigEntry(name, "2097152"), AlterConfigOp.OpType.SET)))).all().get();
                want(admin.describeConfigs(List.of(r)).all().get().get(r).get(name).value(), "2097152", name);
            }
            did("describe and alter configurations, of topics and brokers");
            Collection<ConfigResource> listed = admin.listConfigResources(Set.of(ConfigResource.Type.TOPIC, ConfigResource.Type.BROKER), new ListConfigResourcesOptions()).all().get();
            want(listed.containsAll(List.of(new ConfigResource(ConfigResource.Type.TOPIC, topic), new ConfigResource(ConfigResource.Type.BROKER, "1"))), true, "the topic and node 1 are listed");
            did("list what has configurations");
            admin.createPartitions(Map.of(topic, NewPartitions.increaseTo(partitions + 2))).all().get();
            want(admin.describeTopics(List.of(topic)).allTopicNames().get().get(topic).partitions().size(), partitions + 2, "partitions");
            did("create partitions");
            want(admin.deleteRecords(Map.of(here, RecordsToDelete.beforeOffset(20))).all().get() == null, true, "deleted");
            want(admin.listOffsets(Map.of(here, OffsetSpec.earliest())).all().get().get(here).offset(), 20L, "beginning after DeleteRecords");
            did("delete records");
            want(admin.describeTopics(List.of(topic), new DescribeTopicsOptions().includeAuthorizedOperations(true)).allTopicNames().get().get(topic).authorizedOperations().size(), 8, "operations on a topic");
            want(admin.describeCluster(new DescribeClusterOptions().includeAuthorizedOperations(true)).authorizedOperations().get().size(), 7, "operations on the cluster");
            did("authorized operations");
            int nodes = admin.describeCluster().nodes().get().size();
            want(admin.describeLogDirs(IntStream.range(0, nodes).boxed().toList()).allDescriptions().get().size(), nodes, "log directories");
            did("describe the cluster and log directories");
        }
    }

    static ConsumerRecord<String, String> first(Consumer<String, String> c) {
        for (int i = 0; i < 100; i++) for (ConsumerRecord<String, String> r : c.poll(Duration.ofMillis(200))) return r;
        throw new AssertionError("nothing came within 20 s");
    }

    // A tool that ends is stopped by an exception; some take it for a failure, and
    // end again with another status. The first one counts.
    static class Exited extends RuntimeException {}
    static Integer ended;

    static void exit(int status, String message) {
        if (ended == null) ended = status;
        throw new Exited();
    }

    // tool runs a console tool's main and gives what it printed.
    static String tool(String name, String stdin, String... args) throws Exception {
        ByteArrayOutputStream said = new ByteArrayOutputStream();
        PrintStream to = new PrintStream(said, true), outBefore = System.out, errBefore = System.err;
        InputStream inBefore = System.in;
        System.setOut(to);
        System.setErr(to);
        System.setIn(new ByteArrayInputStream(stdin.getBytes(StandardCharsets.UTF_8)));
        ended = null;
        try {
            Class.forName(name).getMethod("main", String[].class).invoke(null, (Object) args);
        } catch (java.lang.reflect.InvocationTargetException e) {
            if (!(e.getCause() instanceof Exited)) throw e;
        } finally {
            System.setOut(outBefore);
            System.setErr(errBefore);
            System.setIn(inBefore);
        }
        if (ended != null && ended != 0) throw new AssertionError(name + " ended with " + ended + ":\n" + said);
        return said.toString();
    }

    static void tools() throws Exception {
        Exit.setExitProcedure(Interop::exit);
        Exit.setHaltProcedure(Interop::exit);
        String pkg = "org.apache.kafka.tools.", t = topic + ".tools", at = "--bootstrap-server";
        tool(pkg + "TopicCommand", "", at, broker, "--create", "--topic", t, "--partitions", "2", "--config", "retention.ms=86400000");
        tool(pkg + "TopicCommand", "", at, broker, "--alter", "--topic", t, "--partitions", "3");
        holds(tool(pkg + "TopicCommand", "", at, broker, "--describe", "--topic", t), "PartitionCount: 3", "kafka-topics --describe");
        holds(tool(pkg + "TopicCommand", "", at, broker, "--list"), t, "kafka-topics --list");
        did("kafka-topics");
        tool("org.apache.kafka.tools.ConfigCommand", "", at, broker, "--alter", "--entity-type", "topics", "--entity-name", t, "--add-config", "max.message.bytes=100000,segment.ms=60000");
        holds(tool("org.apache.kafka.tools.ConfigCommand", "", at, broker, "--describe", "--entity-type", "topics", "--entity-name", t), "max.message.bytes=100000", "kafka-configs");
        tool("org.apache.kafka.tools.ConfigCommand", "", at, broker, "--alter", "--entity-type", "brokers", "--entity-default", "--add-config", "log.retention.ms=90000000");
        holds(tool("org.apache.kafka.tools.ConfigCommand", "", at, broker, "--describe", "--entity-type", "brokers", "--entity-default"), "log.retention.ms=90000000", "kafka-configs of brokers");
        holds(tool("org.apache.kafka.tools.ConfigCommand", "", at, broker, "--describe", "--all", "--entity-type", "brokers", "--entity-name", "1"), "DYNAMIC_DEFAULT_BROKER_CONFIG:log.retention.ms=90000000", "kafka-configs of a broker");
        tool("org.apache.kafka.tools.ConfigCommand", "", at, broker, "--alter", "--entity-type", "brokers", "--entity-default", "--delete-config", "log.retention.ms");
        did("kafka-configs");
        tool(pkg + "ConsoleProducer", "a:one\nb:two\nc:three\n", at, broker, "--topic", t, "--property", "parse.key=true", "--property", "key.separator=:", "--sync");
        did("kafka-console-producer");
        String consumed = tool(pkg + "consumer.ConsoleConsumer", "", at, broker, "--topic", t, "--from-beginning", "--max-messages", "3", "--timeout-ms", "20000", "--property", "print.key=true", "--property", "key.separator=:");
        for (String line : List.of("a:one", "b:two", "c:three")) holds(consumed, line, "kafka-console-consumer");
        did("kafka-console-consumer");
        holds(tool(pkg + "ProducerPerformance", "", "--topic", t, "--num-records", "2000", "--record-size", "100", "--throughput", "-1", "--producer-props", "bootstrap.servers=" + broker, "acks=all"), "2000 records sent", "kafka-producer-perf-test");
        did("kafka-producer-perf-test");
        tool(pkg + "VerifiableProducer", "", at, broker, "--topic", t, "--max-messages", "100", "--throughput", "-1"); // says what was acknowledged when the process ends
        long end = 0;
        for (int i = 0; i < 50 && end < 2103; i++) end = tool(pkg + "GetOffsetShell", "", at, broker, "--topic", t).lines().filter(l -> l.startsWith(t + ":")).mapToLong(l -> Long.parseLong(l.substring(l.lastIndexOf(':') + 1))).sum();
        want(end, 2103L, "records, by kafka-get-offsets");
        did("kafka-verifiable-producer");
        did("kafka-get-offsets");
        holds(tool(pkg + "consumer.group.ConsumerGroupCommand", "", at, broker, "--describe", "--group", "g." + topic), topic, "kafka-consumer-groups --describe");
        holds(tool(pkg + "consumer.group.ConsumerGroupCommand", "", at, broker, "--group", "g." + topic, "--topic", topic, "--reset-offsets", "--to-earliest", "--execute"), "20", "kafka-consumer-groups --reset-offsets");
        tool(pkg + "consumer.group.ConsumerGroupCommand", "", at, broker, "--delete", "--group", "g." + topic);
        did("kafka-consumer-groups");
        Path file = Files.createTempFile("interop", ".json");
        String at0 = "{\"topic\":\"" + t + "\",\"partition\":%d,\"offset\":-1}"; // whatever is there
        Files.writeString(file, "{\"version\":1,\"partitions\":[" + IntStream.range(0, 3).mapToObj(p -> at0.formatted(p)).collect(Collectors.joining(",")) + "]}");
        want(tool(pkg + "DeleteRecordsCommand", "", at, broker, "--offset-json-file", file.toString()).lines().filter(l -> l.contains("low_watermark: ")).count(), 3L, "kafka-delete-records");
        Files.delete(file);
        did("kafka-delete-records");
        holds(tool(pkg + "LogDirsCommand", "", at, broker, "--describe", "--topic-list", t), t, "kafka-log-dirs");
        did("kafka-log-dirs");
        holds(tool(pkg + "BrokerApiVersionsCommand", "", at, broker), "Produce(0)", "kafka-broker-api-versions");
        did("kafka-broker-api-versions");
        tool(pkg + "TopicCommand", "", at, broker, "--delete", "--topic", t);
    }

    public static void main(String[] args) throws Exception {
        broker = args[0];
        topic = args[1];
        client();
        tools();
        System.exit(0);
    }
}
