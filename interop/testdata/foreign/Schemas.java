import java.io.InputStream;
import java.lang.reflect.ParameterizedType;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import org.apache.kafka.common.message.ApiMessageType;
import org.apache.kafka.common.protocol.ApiKeys;
import org.apache.kafka.common.protocol.types.BoundField;
import org.apache.kafka.common.protocol.types.Field;
import org.apache.kafka.common.protocol.types.Schema;
import org.apache.kafka.common.protocol.types.TaggedFields;
import org.apache.kafka.common.protocol.types.Type;

/**
 * Writes what Kafka's own classes demand of each response: for each API key a line
 *
 *     key NUMBER NAME FIRST LAST [controller]
 *
 * and for each range of its versions with one form, where a broker's listener serves it, a line
 *
 *     response FIRST LAST flexible|plain {NAME:TYPE,...}
 *
 * A TYPE is one of the protocol's types, a structure in braces, or an array in brackets; tagged fields stand in angle brackets, each behind its number.
 * Behind what may be null is ? where Kafka's class has null for it until it is set, and ! where that class has something else: there Kafka itself sends no
 * null, and its clients need not expect one.
 */
public class Schemas {
    public static void main(String[] args) throws Exception {
        Properties about = new Properties();
        try (InputStream in = Schemas.class.getResourceAsStream("/kafka/kafka-version.properties")) {
            about.load(in);
        }
        System.out.println("kafka " + about.getProperty("version"));
        for (ApiKeys key : ApiKeys.values()) {
            boolean broker = key.messageType.listeners().contains(ApiMessageType.ListenerType.BROKER);
            int first = key.oldestVersion(), last = key.latestVersion(!key.messageType.latestVersionUnstable());
            if (first > last) {
                continue;
            }
            System.out.printf("key %d %s %d %d%s%n", key.id, key.name, first, last, broker ? "" : " controller");
            if (!broker) {
                continue;
            }
            Schema[] schemas = key.messageType.responseSchemas();
            Object made = key.messageType.newResponse();
            String former = null;
            for (int version = first; version <= last; version++) {
                // The header of ApiVersions has no tagged fields in any version, its body has.
                boolean flexible = key.messageType.requestHeaderVersion((short) version) > 1;
                String form = (flexible ? "flexible " : "plain ") + fields(schemas[version], made);
                if (former != null && !form.equals(former)) {
                    System.out.printf("response %d %d %s%n", first, version - 1, former);
                    first = version;
                }
                former = form;
            }
            System.out.printf("response %d %d %s%n", first, last, former);
        }
    }

    private static String fields(Schema schema, Object made) throws Exception {
        List<String> all = new ArrayList<>();
        for (BoundField field : schema.fields()) {
            if (field.def.type instanceof TaggedFields) {
                List<String> tagged = new ArrayList<>();
                for (Map.Entry<Integer, Field> one : ((TaggedFields) field.def.type).fields().entrySet()) {
                    tagged.add(one.getKey() + ":" + field(one.getValue(), made));
                }
                all.add("<" + String.join(",", tagged) + ">");
            } else {
                all.add(field(field.def, made));
            }
        }
        return "{" + String.join(",", all) + "}";
    }

    /** made is an object of the class that the field belongs to, as its constructor leaves it. */
    private static String field(Field field, Object made) throws Exception {
        StringBuilder camel = new StringBuilder();
        for (String word : field.name.split("_")) {
            camel.append(camel.length() == 0 ? word : word.substring(0, 1).toUpperCase() + word.substring(1));
        }
        java.lang.reflect.Field member = made.getClass().getDeclaredField(camel.toString());
        member.setAccessible(true);
        Object value = member.get(made);
        Type type = field.type;
        String text;
        if (type.isArray()) {
            Type element = type.arrayElementType().get();
            text = "[" + (element instanceof Schema ? fields((Schema) element, element(member).getConstructor().newInstance()) : plain(element)) + "]";
        } else if (type instanceof Schema) {
            text = fields((Schema) type, member.getType().getConstructor().newInstance());
        } else {
            text = plain(type);
        }
        return field.name + ":" + text + (type.isNullable() ? value == null ? "?" : "!" : "");
    }

    /** The class of an array's elements: of a List, or of a collection that has its elements' class as its parameter. */
    private static Class<?> element(java.lang.reflect.Field member) {
        java.lang.reflect.Type type = member.getGenericType();
        if (!(type instanceof ParameterizedType)) {
            type = member.getType().getGenericSuperclass();
        }
        return (Class<?>) ((ParameterizedType) type).getActualTypeArguments()[0];
    }

    private static String plain(Type type) {
        return type.toString().toLowerCase().replace("compact_", "").replace("nullable_", "");
    }
}
