package interop;

import static java.nio.charset.StandardCharsets.UTF_8;

import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.Set;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.client.producer.SendStatus;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageExt;

/** Text messages that carry their own id as a property and again in the body. */
final class Texts {
    private static final String ID = "it_id";

    private Texts() {
    }

    static Message make(String topic, String id) {
        Message message = new Message(topic, body(id));
        message.putUserProperty(ID, id);
        return message;
    }

    private static byte[] body(String id) {
        return ("body of " + id).getBytes(UTF_8);
    }

    /** The id of a received message; fails when property and body disagree. */
    static String id(MessageExt message) {
        String id = message.getUserProperty(ID);
        Check.require(id != null, "a message of %s came without its property", message.getTopic());
        Check.same("body of " + id, new String(message.getBody(), UTF_8), "body");
        return id;
    }

    /** Sends {@code count} messages one by one, ids {@code prefix-0 ..}, and returns the ids. */
    static List<String> send(DefaultMQProducer producer, String topic, String prefix, int count) throws Exception {
        List<String> ids = new ArrayList<>();
        for (int i = 0; i < count; i++) {
            ids.add(prefix + "-" + i);
            ok(producer.send(make(topic, prefix + "-" + i)));
        }
        return ids;
    }

    static SendResult ok(SendResult result) {
        Check.same(SendStatus.SEND_OK, result.getSendStatus(), "send status");
        return result;
    }

    /** Fails unless both hold the same ids, naming a few of those that differ. */
    static void sameIds(Set<String> expected, Set<String> seen, String what) {
        Set<String> missing = new HashSet<>(expected);
        missing.removeAll(seen);
        Set<String> unknown = new HashSet<>(seen);
        unknown.removeAll(expected);
        Check.require(missing.isEmpty() && unknown.isEmpty(), "%s: %d missing %s, %d not expected %s", what,
            missing.size(), missing.stream().sorted().limit(5).toList(),
            unknown.size(), unknown.stream().sorted().limit(5).toList());
    }
}
