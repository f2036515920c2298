import java.util.*;
import org.apache.kafka.clients.admin.*;
import org.apache.kafka.clients.consumer.*;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.StringDeserializer;

// What Kafka's own clients are told by time: Times ADDR TOPIC TIME... prints, for partition 0, the offset for each time (-1: none), and last that of the largest time.
public class Times {
    public static void main(String[] args) throws Exception {
        Properties p = new Properties();
        p.put("bootstrap.servers", args[0]);
        p.put("key.deserializer", StringDeserializer.class);
        p.put("value.deserializer", StringDeserializer.class);
        TopicPartition here = new TopicPartition(args[1], 0);
        try (Consumer<String, String> c = new KafkaConsumer<>(p); Admin admin = Admin.create(p)) {
            for (int i = 2; i < args.length; i++) {
                OffsetAndTimestamp found = c.offsetsForTimes(Map.of(here, Long.parseLong(args[i]))).get(here);
                System.out.println(found == null ? -1 : found.offset());
            }
            System.out.println(admin.listOffsets(Map.of(here, OffsetSpec.maxTimestamp())).all().get().get(here).offset());
        }
    }
}
