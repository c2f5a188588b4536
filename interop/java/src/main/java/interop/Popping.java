package interop;

import static interop.Check.require;
import static interop.Check.same;
import static interop.World.await;

import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.CountDownLatch;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerConcurrently;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.common.message.MessageRequestMode;
import org.apache.rocketmq.remoting.protocol.subscription.SubscriptionGroupConfig;

/** Push consumers of a group whose request mode is POP, as `mqadmin setConsumeMode` sets it. */
final class Popping {
    private static final int SHARED = 400;
    private static final int FAILING = 10;
    private static final int HELD = 20;
    private static final int INVISIBLE_MILLIS = 8_000;
    /** What the client asks for after the first failure of a message. */
    private static final int FIRST_DELAY_MILLIS = 10_000;

    private Popping() {
    }

    static String sharedFailedAndLeft(World world) throws Exception {
        String topic = world.topic(8);
        String group = popGroup(world, topic);
        Received first = new Received(5);
        Received second = new Received(5);
        DefaultMQPushConsumer a = start(world, group, topic, first);
        DefaultMQPushConsumer b = start(world, group, topic, second);
        await(30, "both consumers to pop", () -> pops(a, topic) && pops(b, topic));
        Set<String> sent = new HashSet<>(Texts.send(world.producer(), topic, "shared", SHARED));
        await(30, SHARED + " distinct messages", () -> first.distinct() + second.distinct() >= SHARED);
        require(first.distinct() > 0 && second.distinct() > 0, "one consumer got nothing");

        String failed = failed(world);
        String left = left(world);

        // By now every lease of the shared messages would be over, had it not been acknowledged.
        Set<String> seen = new HashSet<>(first.ids());
        seen.addAll(second.ids());
        Texts.sameIds(sent, seen, "messages of the group");
        same(SHARED, first.distinct() + second.distinct(), "messages of the two consumers");
        same(0, first.repeats() + second.repeats(), "repeats of acknowledged messages");
        return String.format("%d shared as %d and %d, none twice; %s; %s", SHARED, first.distinct(), second.distinct(), failed, left);
    }

    /** A message that its listener fails once comes again, as a retry of the same topic. */
    private static String failed(World world) throws Exception {
        String topic = world.topic(2);
        String group = popGroup(world, topic);
        Map<String, List<MessageExt>> attempts = new ConcurrentHashMap<>();
        Map<String, Long> failedAt = new ConcurrentHashMap<>();
        Map<String, Long> againAt = new ConcurrentHashMap<>();
        start(world, group, topic, (messages, context) -> {
            MessageExt message = messages.get(0);
            String id = Texts.id(message);
            attempts.computeIfAbsent(id, key -> new ArrayList<>()).add(message);
            if (message.getReconsumeTimes() == 0) {
                failedAt.put(id, System.currentTimeMillis());
                return ConsumeConcurrentlyStatus.RECONSUME_LATER;
            }
            againAt.put(id, System.currentTimeMillis());
            return ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
        });
        Set<String> sent = new HashSet<>(Texts.send(world.producer(), topic, "failing", FAILING));
        await(30, "a second attempt at " + FAILING + " messages", () -> againAt.size() >= FAILING);
        Texts.sameIds(sent, againAt.keySet(), "second attempts");
        attempts.forEach((id, of) -> {
            same(2, of.size(), "attempts at " + id);
            MessageExt again = of.get(1);
            same(1, again.getReconsumeTimes(), "reconsume times of " + id);
            same(topic, again.getTopic(), "topic of the second attempt at " + id);
            long delay = againAt.get(id) - failedAt.get(id);
            require(delay >= FIRST_DELAY_MILLIS - 500 && delay < FIRST_DELAY_MILLIS + 5_000, "%s came again after %d ms", id, delay);
        });
        return FAILING + " failed once came again after 10 s";
    }

    /** What a consumer took that ends without a word comes to another. */
    private static String left(World world) throws Exception {
        String topic = world.topic(2);
        String group = popGroup(world, topic);
        CountDownLatch over = new CountDownLatch(1);
        world.onClose(over::countDown);
        Set<String> taken = ConcurrentHashMap.newKeySet();
        DefaultMQPushConsumer holder = start(world, group, topic, (messages, context) -> {
            messages.forEach(message -> taken.add(Texts.id(message)));
            try {
                over.await();
            } catch (InterruptedException ended) {
                // Falls through: nothing of this is acknowledged.
            }
            return ConsumeConcurrentlyStatus.RECONSUME_LATER;
        });
        await(30, "the first consumer to pop", () -> pops(holder, topic));
        Set<String> sent = new HashSet<>(Texts.send(world.producer(), topic, "left", HELD));
        await(15, HELD + " messages at the first consumer", () -> taken.size() >= HELD);
        holder.shutdown();
        Received heir = new Received();
        start(world, group, topic, heir);
        await(INVISIBLE_MILLIS / 1_000.0 + 15, HELD + " messages at the second consumer", () -> heir.distinct() >= HELD);
        Texts.sameIds(sent, heir.ids(), "messages left behind");
        heir.arrivals().forEach(arrival -> same(1, arrival.message().getReconsumeTimes(), "reconsume times"));
        return HELD + " left behind by a consumer that ended came to another";
    }

    private static String popGroup(World world, String topic) throws Exception {
        String group = world.name("g");
        SubscriptionGroupConfig config = new SubscriptionGroupConfig();
        config.setGroupName(group);
        world.admin().createAndUpdateSubscriptionGroupConfig(world.brokerAddress(), config);
        world.admin().setMessageRequestMode(world.brokerAddress(), topic, group, MessageRequestMode.POP, 0, 5_000);
        return group;
    }

    private static DefaultMQPushConsumer start(World world, String group, String topic, MessageListenerConcurrently listener)
        throws Exception {
        DefaultMQPushConsumer consumer = world.pushConsumer(group);
        // The broker says who consumes what, and how.
        consumer.setClientRebalance(false);
        consumer.setPopInvisibleTime(INVISIBLE_MILLIS);
        consumer.subscribe(topic, "*");
        consumer.registerMessageListener(listener);
        consumer.start();
        return consumer;
    }

    private static boolean pops(DefaultMQPushConsumer consumer, String topic) {
        return consumer.getDefaultMQPushConsumerImpl().getRebalanceImpl().getPopProcessQueueTable().keySet().stream()
            .anyMatch(queue -> queue.getTopic().equals(topic) && queue.getQueueId() == -1);
    }
}
