package interop;

import static interop.Check.require;
import static interop.Check.same;
import static interop.World.await;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashSet;
import java.util.List;
import java.util.Set;
import org.apache.rocketmq.client.QueryResult;
import org.apache.rocketmq.client.exception.MQBrokerException;
import org.apache.rocketmq.client.exception.MQClientException;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.common.message.MessageQueue;
import org.apache.rocketmq.tools.admin.DefaultMQAdminExt;

/** Finding messages without consuming them. */
final class Lookup {
    private Lookup() {
    }

    static String byKeyAndId(World world) throws Exception {
        String topic = world.topic(4);
        DefaultMQProducer producer = world.producer();
        DefaultMQAdminExt admin = world.admin();
        Set<String> expected = new HashSet<>();
        SendResult result = null;
        long begin = System.currentTimeMillis() - 1_000;
        for (int i = 0; i < 30; i++) {
            Message message = Texts.make(topic, "q-" + i);
            message.setKeys("order-" + i + " group-" + i % 3);
            result = Texts.ok(producer.send(message));
            if (i % 3 == 2) {
                expected.add("q-" + i);
            }
        }
        await(15, "10 messages with the key group-2", () -> idsOf(admin, topic, "group-2", begin).size() >= 10);
        Texts.sameIds(expected, idsOf(admin, topic, "group-2", begin), "messages with the key group-2");
        Texts.sameIds(Set.of("q-7"), idsOf(admin, topic, "order-7", begin), "messages with the key order-7");
        require(idsOf(admin, topic, "order-", begin).isEmpty(), "part of a key found a message");

        MessageExt byOffsetId = producer.viewMessage(topic, result.getOffsetMsgId());
        same("q-29", Texts.id(byOffsetId), "message of the offset id");
        same(topic, byOffsetId.getTopic(), "topic by offset id");
        same(result.getQueueOffset(), byOffsetId.getQueueOffset(), "queue offset by offset id");
        same(result.getMessageQueue().getQueueId(), byOffsetId.getQueueId(), "queue by offset id");
        MessageExt byUniqueId = admin.viewMessage(topic, result.getMsgId());
        same("q-29", Texts.id(byUniqueId), "message of the unique id");
        requireUnknownRefused(admin, topic, result.getOffsetMsgId());
        return "10 of 30 by a shared key, 1 by its own, one by offset id, one by unique id; an unknown id is refused";
    }

    private static Set<String> idsOf(DefaultMQAdminExt admin, String topic, String key, long begin) throws Exception {
        Set<String> ids = new HashSet<>();
        try {
            QueryResult found = admin.queryMessage(topic, key, 64, begin, System.currentTimeMillis() + 1_000);
            found.getMessageList().forEach(message -> ids.add(Texts.id(message)));
        } catch (MQClientException none) {
            require(none.getResponseCode() == 208 || none.getResponseCode() == 22 || none.getErrorMessage().contains("no message"),
                "query by key %s: %s", key, none.getMessage());
        }
        return ids;
    }

    /** An id that points behind the end of the log must be answered with an error, not with a wrong message. */
    private static void requireUnknownRefused(DefaultMQAdminExt admin, String topic, String offsetId) throws Exception {
        String unknown = offsetId.substring(0, 16) + "00000FFFFFFFFFF0";
        try {
            MessageExt wrong = admin.viewMessage(topic, unknown);
            require(wrong == null, "an id behind the end of the log gave a message");
        } catch (MQClientException | MQBrokerException refused) {
            return;
        }
    }

    static String offsets(World world) throws Exception {
        String topic = world.topic(1);
        DefaultMQProducer producer = world.producer();
        DefaultMQAdminExt admin = world.admin();
        MessageQueue queue = producer.fetchPublishMessageQueues(topic).get(0);
        same(0L, admin.maxOffset(queue), "maximum offset of an empty queue");
        long before = System.currentTimeMillis();
        List<String> firstHalf = Texts.send(producer, topic, "first", 10);
        Thread.sleep(60);
        long middle = System.currentTimeMillis();
        Thread.sleep(60);
        Texts.send(producer, topic, "second", 10);
        await(10, "20 messages in the queue", () -> admin.maxOffset(queue) == 20);
        same(0L, admin.minOffset(queue), "minimum offset");
        same((long) firstHalf.size(), admin.searchOffset(queue, middle), "first offset after the middle");
        same(0L, admin.searchOffset(queue, before - 60_000), "first offset after a time before all");
        long end = admin.searchOffset(queue, System.currentTimeMillis() + 60_000);
        require(end == 20 || end == 19, "offset for a time after all: %d of 20", end);
        long earliest = admin.earliestMsgStoreTime(queue);
        require(earliest >= before - 5 && earliest <= middle, "earliest store time %d is not between %d and %d", earliest, before, middle);
        return "empty 0, then minimum 0, maximum 20, by time 0, 10 and " + end;
    }

    /** The first message of a moment or after it, and the last of it or before it. */
    static String boundaries(World world) throws Exception {
        String topic = world.topic(1);
        DefaultMQProducer producer = world.producer();
        DefaultMQAdminExt admin = world.admin();
        MessageQueue queue = producer.fetchPublishMessageQueues(topic).get(0);
        // Messages of one batch have one time.
        for (String part : List.of("first", "second", "third")) {
            List<Message> batch = new ArrayList<>();
            for (int i = 0; i < 5; i++) {
                batch.add(Texts.make(topic, part + "-" + i));
            }
            Texts.ok(producer.send(batch));
            Thread.sleep(60);
        }
        await(10, "15 messages in the queue", () -> admin.maxOffset(queue) == 15);
        long[] times = new long[15];
        for (MessageExt message : Pulling.everything(world, topic)) {
            times[(int) message.getQueueOffset()] = message.getStoreTimestamp();
        }
        require(times[5] == times[9] && times[9] + 30 < times[10], "stored at %s", Arrays.toString(times));
        long second = times[5];
        same(5L, admin.searchLowerBoundaryOffset(queue, second), "lower boundary of the second batch's time");
        same(9L, admin.searchUpperBoundaryOffset(queue, second), "upper boundary of the second batch's time");
        long between = second + 30;
        same(10L, admin.searchLowerBoundaryOffset(queue, between), "lower boundary of a time after the second batch");
        same(9L, admin.searchUpperBoundaryOffset(queue, between), "upper boundary of a time after the second batch");
        long before = times[0] - 60_000;
        same(0L, admin.searchLowerBoundaryOffset(queue, before), "lower boundary of a time before all");
        same(0L, admin.searchUpperBoundaryOffset(queue, before), "upper boundary of a time before all");
        long after = times[14] + 60_000;
        same(15L, admin.searchLowerBoundaryOffset(queue, after), "lower boundary of a time after all");
        same(14L, admin.searchUpperBoundaryOffset(queue, after), "upper boundary of a time after all");
        return "5 messages of one time: lower 5, upper 9; between two times: 10 and 9; before all: 0 and 0; after all: 15 and 14";
    }
}
