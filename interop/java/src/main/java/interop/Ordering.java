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
}
