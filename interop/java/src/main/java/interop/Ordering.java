package interop;

import static interop.Check.require;
import static interop.Check.same;
import static interop.World.await;

import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicInteger;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.listener.ConsumeOrderlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerOrderly;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.common.message.MessageExt;

/** Orderly consumption: a queue is locked to one consumer, in order, and a failure holds it back. */
final class Ordering {
    private static final int KEYS = 12;
    private static final int EACH = 50;

    private Ordering() {
    }

    static String orderly(World world) throws Exception {
        String topic = world.topic(4);
        String group = world.name("g");
        Map<String, List<Integer>> byKey = new ConcurrentHashMap<>();
        Set<Integer> busy = ConcurrentHashMap.newKeySet();
        Set<String> refused = ConcurrentHashMap.newKeySet();
        List<String> wrong = Collections.synchronizedList(new ArrayList<>());
        AtomicInteger count = new AtomicInteger();
        MessageListenerOrderly listener = (messages, context) -> {
            MessageExt message = messages.get(0);
            if (!busy.add(message.getQueueId())) {
                wrong.add("queue " + message.getQueueId() + " is consumed by two threads at once");
            }
            try {
                String id = Texts.id(message);
                int number = Integer.parseInt(id.substring(id.indexOf('-') + 1));
                if (number == 10 && refused.add(id)) {
                    context.setSuspendCurrentQueueTimeMillis(300);
                    return ConsumeOrderlyStatus.SUSPEND_CURRENT_QUEUE_A_MOMENT;
                }
                byKey.computeIfAbsent(id.substring(0, id.indexOf('-')), key -> new ArrayList<>()).add(number);
                count.incrementAndGet();
                return ConsumeOrderlyStatus.SUCCESS;
            } finally {
                busy.remove(message.getQueueId());
            }
        };
        DefaultMQPushConsumer first = start(world, group, topic, listener);
        DefaultMQPushConsumer second = start(world, group, topic, listener);
        await(30, "each of two orderly consumers to hold 2 of 4 queues",
            () -> World.held(first, topic).size() == 2 && World.held(second, topic).size() == 2);

        DefaultMQProducer producer = world.producer();
        for (int i = 0; i < EACH; i++) {
            for (int k = 0; k < KEYS; k++) {
                Texts.ok(producer.send(Texts.make(topic, "k" + k + "-" + i),
                    (queues, message, key) -> queues.get((Integer) key % queues.size()), k));
            }
        }
        await(30, KEYS * EACH + " messages in order", () -> count.get() >= KEYS * EACH);
        require(wrong.isEmpty(), "%s", wrong);
        same(KEYS, byKey.size(), "keys");
        List<Integer> expected = new ArrayList<>();
        for (int i = 0; i < EACH; i++) {
            expected.add(i);
        }
        byKey.forEach((key, numbers) -> same(expected, numbers, "order of " + key));
        same(KEYS, refused.size(), "messages refused once");
        return KEYS * EACH + " messages in order over 4 queues of 2 consumers; " + KEYS + " refused once held their queue and came again";
    }

    private static DefaultMQPushConsumer start(World world, String group, String topic, MessageListenerOrderly listener) throws Exception {
        DefaultMQPushConsumer consumer = world.pushConsumer(group);
        consumer.subscribe(topic, "*");
        consumer.registerMessageListener(listener);
        consumer.start();
        return consumer;
    }

    /**
     * Order holds while a message is refused again and again and while queues change hands. A consumer that takes a queue over
     * may see again what the other had not yet committed, but never a message before the one in front of it.
     */
    static String retriesAndHandOver(World world) throws Exception {
        int refusals = 3;
        String topic = world.topic(4);
        String group = world.name("g");
        Map<Integer, Integer> last = new ConcurrentHashMap<>();
        Map<String, Integer> attempts = new ConcurrentHashMap<>();
        Set<Integer> busy = ConcurrentHashMap.newKeySet();
        Set<String> accepted = ConcurrentHashMap.newKeySet();
        List<String> wrong = Collections.synchronizedList(new ArrayList<>());
        MessageListenerOrderly listener = (messages, context) -> {
            MessageExt message = messages.get(0);
            int queue = message.getQueueId();
            if (!busy.add(queue)) {
                wrong.add("queue " + queue + " is consumed twice at once");
            }
            try {
                String id = Texts.id(message);
                int number = Integer.parseInt(id.substring(id.indexOf('-') + 1));
                int before = last.getOrDefault(queue, -1);
                if (number > before + 1) {
                    wrong.add("queue " + queue + ": " + number + " came after " + before);
                }
                if (number % 20 == 10 && attempts.merge(id, 1, Integer::sum) <= refusals) {
                    context.setSuspendCurrentQueueTimeMillis(50);
                    return ConsumeOrderlyStatus.SUSPEND_CURRENT_QUEUE_A_MOMENT;
                }
                last.put(queue, number);
                accepted.add(id);
                return ConsumeOrderlyStatus.SUCCESS;
            } finally {
                busy.remove(queue);
            }
        };
        DefaultMQPushConsumer first = start(world, group, topic, listener);
        await(30, "one orderly consumer to hold 4 queues", () -> World.held(first, topic).size() == 4);
        DefaultMQProducer producer = world.producer();
        AtomicBoolean stop = new AtomicBoolean();
        Map<Integer, Integer> sent = new ConcurrentHashMap<>();
        Thread sender = new Thread(() -> {
            try {
                for (int i = 0; !stop.get(); i++) {
                    for (int queue = 0; queue < 4; queue++) {
                        Texts.ok(producer.send(Texts.make(topic, "q" + queue + "-" + i), (queues, message, index) -> queues.get((Integer) index), queue));
                        sent.put(queue, i + 1);
                    }
                    Thread.sleep(10);
                }
            } catch (Exception failed) {
                wrong.add("sending failed: " + failed);
            }
        });
        sender.start();
        DefaultMQPushConsumer second;
        try {
            await(20, "50 messages of a queue at the first consumer", () -> last.getOrDefault(0, 0) > 50);
            second = start(world, group, topic, listener);
            await(60, "each of two orderly consumers to hold 2 of 4 queues",
                () -> World.held(first, topic).size() == 2 && World.held(second, topic).size() == 2);
            awaitProgress(last);
            first.shutdown();
            await(60, "the second consumer to hold 4 queues", () -> World.held(second, topic).size() == 4);
            awaitProgress(last);
        } finally {
            stop.set(true);
            sender.join();
        }
        int total = sent.values().stream().mapToInt(Integer::intValue).sum();
        await(40, total + " messages in order", () -> accepted.size() >= total || !wrong.isEmpty());
        require(wrong.isEmpty(), "%s", wrong);
        same(total, accepted.size(), "messages");
        same(true, attempts.values().stream().allMatch(count -> count > refusals), "refused messages came " + (refusals + 1) + " times");
        return String.format("%d messages in order in 4 queues, %d of them after %d refusals, while a consumer joined and one left",
            total, attempts.size(), refusals);
    }

    /** Each queue gets on by 30 messages. */
    private static void awaitProgress(Map<Integer, Integer> last) throws Exception {
        Map<Integer, Integer> before = Map.copyOf(last);
        await(60, "30 more messages of each queue",
            () -> before.keySet().stream().allMatch(queue -> last.get(queue) >= before.get(queue) + 30));
    }
}
