package interop;

import static interop.Check.require;
import static interop.Check.same;
import static interop.World.await;

import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import org.apache.rocketmq.client.exception.MQBrokerException;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.producer.RecallMessageHandle;

/** Messages that wait before they are seen. */
final class Delays {
    private static final int EACH = 10;
    private static final int ILLEGAL_OPERATION = 604;
    private static final int LATE_MILLIS = 3_000;
    /** RocketMQ's timer wheel turns once a second, and may deliver up to one turn early. */
    private static final int TIMER_TURN_MILLIS = 1_000;

    private record Span(int lowest, int highest) {
        Span with(long millis) {
            return new Span((int) Math.min(lowest, millis), (int) Math.max(highest, millis));
        }
    }

    private Delays() {
    }

    static String levels(World world) throws Exception {
        String topic = world.topic(4);
        Received received = new Received();
        world.startPush(world.name("g"), topic, "*", received);
        DefaultMQProducer producer = world.producer();
        Map<String, Long> due = new ConcurrentHashMap<>();
        int[] millis = {0, 1_000, 5_000};
        for (int i = 0; i < EACH; i++) {
            for (int level = 0; level <= 2; level++) {
                String id = level + "-" + i;
                Message message = Texts.make(topic, id);
                message.setTags("T");
                message.setDelayTimeLevel(level);
                due.put(id, System.currentTimeMillis() + millis[level]);
                Texts.ok(producer.send(message));
            }
        }
        return onTime(received, due, topic, 0);
    }

    static String timer(World world) throws Exception {
        String topic = world.topic(4);
        Received received = new Received();
        world.startPush(world.name("g"), topic, "*", received);
        DefaultMQProducer producer = world.producer();
        Map<String, Long> due = new ConcurrentHashMap<>();
        for (int i = 0; i < EACH; i++) {
            long now = System.currentTimeMillis();
            Message after = Texts.make(topic, "after-" + i);
            after.setTags("T");
            after.setDelayTimeMs(2_300);
            due.put("after-" + i, now + 2_300);
            Texts.ok(producer.send(after));
            Message at = Texts.make(topic, "at-" + i);
            at.setTags("T");
            at.setDeliverTimeMs(now + 4_700);
            due.put("at-" + i, now + 4_700);
            Texts.ok(producer.send(at));
        }
        return onTime(received, due, topic, TIMER_TURN_MILLIS);
    }

    /** A message for a time is taken back by its handle; a handle that is none is refused. */
    static String recall(World world) throws Exception {
        String topic = world.topic(4);
        Received received = new Received();
        world.startPush(world.name("g"), topic, "*", received);
        DefaultMQProducer producer = world.producer();
        Map<String, Long> due = new ConcurrentHashMap<>();
        for (int i = 0; i < 2 * EACH; i++) {
            String id = (i % 2 == 0 ? "kept-" : "recalled-") + i;
            Message message = Texts.make(topic, id);
            message.setTags("T");
            message.setDelayTimeMs(4_000);
            long at = System.currentTimeMillis() + 4_000;
            SendResult sent = Texts.ok(producer.send(message));
            if (i % 2 == 0) {
                due.put(id, at);
            } else {
                same(sent.getMsgId(), producer.recallMessage(topic, sent.getRecallHandle()), "id of the recalled message");
            }
        }
        String late = RecallMessageHandle.HandleV1.buildHandle(topic, "broker-a", "1", "0A");
        try {
            producer.recallMessage(topic, late);
            throw new Check.Failed("a handle of the past was taken");
        } catch (MQBrokerException refused) {
            same(ILLEGAL_OPERATION, refused.getResponseCode(), "code of the refusal");
        }
        return onTime(received, due, topic, TIMER_TURN_MILLIS) + ", " + EACH + " recalled";
    }

    /** All come, once, with their topic and tag, none before its time less {@code early}. */
    private static String onTime(Received received, Map<String, Long> due, String topic, int early) throws Exception {
        await(20, due.size() + " delayed messages", () -> received.distinct() >= due.size());
        Texts.sameIds(due.keySet(), received.ids(), "delayed messages");
        same(0, received.repeats(), "repeats");
        Span span = new Span(Integer.MAX_VALUE, Integer.MIN_VALUE);
        for (Received.Arrival arrival : received.arrivals()) {
            String id = Texts.id(arrival.message());
            same(topic, arrival.message().getTopic(), "topic of " + id);
            same("T", arrival.message().getTags(), "tag of " + id);
            long off = arrival.millis() - due.get(id);
            require(off >= -early, "%s came %d ms early", id, -off);
            require(off <= LATE_MILLIS, "%s came %d ms late", id, off);
            span = span.with(off);
        }
        return String.format("%d messages, %d to %d ms after their time", due.size(), span.lowest(), span.highest());
    }
}
