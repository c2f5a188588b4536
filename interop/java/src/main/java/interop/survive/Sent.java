package interop.survive;

import static java.nio.charset.StandardCharsets.UTF_8;

import java.util.Arrays;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;
import java.util.concurrent.ConcurrentHashMap;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.client.producer.SendStatus;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageExt;

/** What was sent, and what of it was acknowledged. Of the rest nobody knows whether it is stored. */
final class Sent {
    /** Large enough that the log grows by several checkpoints, small enough that the client does not compress it. */
    private static final int BODY_BYTES = 2_000;

    private final Set<String> tried = ConcurrentHashMap.newKeySet();
    private final Map<String, SendResult> acknowledged = new ConcurrentHashMap<>();

    static Message message(String topic, String id) {
        return new Message(topic, Arrays.copyOf(id.getBytes(UTF_8), BODY_BYTES));
    }

    static String id(Message message) {
        return new String(message.getBody(), UTF_8).trim();
    }

    interface Sending {
        SendResult send() throws Exception;
    }

    SendResult send(DefaultMQProducer producer, Message message) throws Exception {
        return send(message, () -> producer.send(message));
    }

    SendResult send(Message message, Sending sending) throws Exception {
        String id = id(message);
        tried.add(id);
        SendResult result = sending.send();
        if (result.getSendStatus() != SendStatus.SEND_OK) {
            throw new IllegalStateException(result.toString());
        }
        acknowledged.put(id, result);
        return result;
    }

    Set<String> tried() {
        return tried;
    }

    Set<String> acknowledged() {
        return acknowledged.keySet();
    }

    /** Where each acknowledged message must stand in the log is where the broker said that it stands. */
    void requirePlaces(Feature feature, Iterable<MessageExt> log) {
        Map<String, MessageExt> byPlace = new TreeMap<>();
        log.forEach(message -> byPlace.put(message.getQueueId() + " " + message.getQueueOffset(), message));
        acknowledged.forEach((id, result) -> {
            String place = result.getMessageQueue().getQueueId() + " " + result.getQueueOffset();
            MessageExt there = byPlace.get(place);
            feature.require(there != null && id(there).equals(id), "%s was acknowledged at %s, where there is %s", id, place,
                there == null ? "nothing" : id(there));
        });
    }
}
