// A consumer that reads partition 0 of a topic from its beginning to its end, over what is
// lost: BROKER TOPIC. Where it is told of an error it seeks one offset on.
import java.time.Duration;
import java.util.*;
import org.apache.kafka.clients.consumer.*;
import org.apache.kafka.common.KafkaException;
import org.apache.kafka.common.TopicPartition;

public class Holes {
    public static void main(String[] args) {
        TopicPartition here = new TopicPartition(args[1], 0);
        String in = "org.apache.kafka.common.serialization.ByteArrayDeserializer";
        Map<String, Object> settings = Map.of("bootstrap.servers", args[0], "key.deserializer", in, "value.deserializer", in,
            "enable.auto.commit", false, "auto.offset.reset", "none", "max.poll.records", 1);
        try (Consumer<byte[], byte[]> c = new KafkaConsumer<>(settings)) {
            c.assign(List.of(here));
            c.seekToBeginning(List.of(here));
            long end = c.endOffsets(List.of(here)).get(here);
            long until = System.currentTimeMillis() + 60_000;
            for (long at = c.position(here); at < end && System.currentTimeMillis() < until; at = c.position(here)) {
                try {
                    for (ConsumerRecord<byte[], byte[]> r : c.poll(Duration.ofMillis(200))) System.out.println("read " + r.offset());
                } catch (KafkaException e) {
                    System.out.println("lost " + at + " " + e.getMessage());
                    c.seek(here, at + 1);
                }
            }
            System.out.println("end " + c.position(here));
        }
    }
}
