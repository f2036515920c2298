import java.io.*;
import java.time.Duration;
import java.util.*;
import java.util.concurrent.atomic.AtomicReference;
import java.util.regex.Pattern;
import org.apache.kafka.clients.consumer.*;
import org.apache.kafka.common.*;
import org.apache.kafka.common.serialization.StringDeserializer;

// A member of a group, with Kafka's own consumer: Member ADDR GROUP TOPIC key=value... It prints "saw PARTITION OFFSET VALUE" for each record, and commits what it
// has printed. It leaves the group when its input ends; "pause" and "resume" on its input have it stop polling and go on.
public class Member {
    public static void main(String[] args) throws Exception {
        Properties p = new Properties();
        p.put("bootstrap.servers", args[0]);
        p.put("group.id", args[1]);
        p.put("enable.auto.commit", "false");
        p.put("auto.offset.reset", "earliest");
        p.put("metadata.max.age.ms", "500");
        p.put("key.deserializer", StringDeserializer.class);
        p.put("value.deserializer", StringDeserializer.class);
        String regex = null;
        for (int i = 3; i < args.length; i++) {
            String[] kv = args[i].split("=", 2);
            if (kv[0].equals("regex")) regex = kv[1];
            else p.put(kv[0], kv[1]);
        }
        AtomicReference<String> told = new AtomicReference<>("resume");
        Thread input = new Thread(() -> {
            try (BufferedReader in = new BufferedReader(new InputStreamReader(System.in))) {
                for (String line; (line = in.readLine()) != null; ) told.set(line);
            } catch (IOException e) {
                // its parent is gone, and so is it
            }
            told.set("leave");
        });
        input.setDaemon(true);
        input.start();
        try (KafkaConsumer<String, String> c = new KafkaConsumer<>(p)) {
            if (regex != null && "consumer".equals(p.get("group.protocol"))) c.subscribe(new SubscriptionPattern(regex)); // the broker matches
            else if (regex != null) c.subscribe(Pattern.compile(regex));
            else c.subscribe(List.of(args[2]));
            while (!told.get().equals("leave")) {
                if (told.get().equals("pause")) {
                    Thread.sleep(20);
                    continue;
                }
                try {
                    ConsumerRecords<String, String> rs = c.poll(Duration.ofMillis(100));
                    StringBuilder said = new StringBuilder();
                    for (ConsumerRecord<String, String> r : rs) said.append("saw ").append(r.partition()).append(' ').append(r.offset()).append(' ').append(r.value()).append('\n');
                    System.out.print(said);
                    System.out.flush();
                    if (!rs.isEmpty()) c.commitSync();
                } catch (CommitFailedException | org.apache.kafka.common.errors.RebalanceInProgressException e) {
                    // what was not committed is seen again
                } catch (KafkaException e) {
                    System.err.println(e);
                }
            }
        }
    }
}
