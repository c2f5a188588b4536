package interop.survive;

import java.util.HashMap;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.atomic.AtomicInteger;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerConcurrently;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageExt;

/** Messages that wait, by level or for a time: each comes once, and none before it is due. */
final class Delayed extends Feature {
    private static final int[] LEVELS_MILLIS = {1_000, 5_000, 10_000};
    private static final int LONGEST_MILLIS = 10_000;
    private static final int PAUSE_MILLIS = 20;

    /** Says in the message how long it waits. */
    interface Delay {
        /** Returns the time before which the message must not come, given that it is sent at {@code now}. */
        long put(Message message, int number, long now);
    }

    private final Clients clients;
    private final Delay delay;
    private final String topic;
    private final Tally acknowledged = tally("acknowledged", 20);
    private final Tally arrived = tally("arrived", 10);
    private final AtomicInteger number = new AtomicInteger();
    private final Sent sent = new Sent();
    private final Map<String, Long> due = new ConcurrentHashMap<>();
    private final Set<String> arrivals = ConcurrentHashMap.newKeySet();

    private Delayed(String name, Clients clients, Delay delay) {
        super(name);
        this.clients = clients;
        this.delay = delay;
        topic = "survive_" + name.replace('-', '_');
    }

    static Delayed levels(Clients clients) {
        return new Delayed("delay-levels", clients, (message, number, now) -> {
            int level = number % LEVELS_MILLIS.length;
            message.setDelayTimeLevel(level + 1);
            return now + LEVELS_MILLIS[level];
        });
    }

    static Delayed timers(Clients clients) {
        return new Delayed("timers", clients, (message, number, now) -> {
            // Near and far ones side by side, so that many are due at any moment.
            long wait = 500 + number * 733L % (LONGEST_MILLIS - 500);
            if (number % 2 == 0) {
                message.setDelayTimeMs(wait);
            } else {
                message.setDeliverTimeMs(now + wait);
            }
            return now + wait;
        });
    }

    @Override
    void start() throws Exception {
        clients.topic(topic, 4);
        DefaultMQPushConsumer consumer = clients.consumer(topic + "_group");
        consumer.subscribe(topic, "*");
        consumer.registerMessageListener((MessageListenerConcurrently) (messages, context) -> {
            for (MessageExt message : messages) {
                if (arrivals.add(Sent.id(message))) {
                    arrived.add();
                }
            }
            return ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
        });
        clients.start(consumer);
        DefaultMQProducer producer = clients.producer(topic + "_producer");
        for (int i = 0; i < 2; i++) {
            repeat(PAUSE_MILLIS, () -> send(producer));
        }
    }

    private void send(DefaultMQProducer producer) throws Exception {
        int turn = number.getAndIncrement();
        Message message = Sent.message(topic, Integer.toString(turn));
        due.put(Sent.id(message), delay.put(message, turn, System.currentTimeMillis()));
        sent.send(producer, message);
        acknowledged.add();
    }

    @Override
    boolean settled() {
        return arrivals.containsAll(sent.acknowledged());
    }

    @Override
    String judge() throws Exception {
        Map<String, Integer> times = new HashMap<>();
        long latest = 0;
        for (MessageExt message : clients.log(topic)) {
            String id = Sent.id(message);
            require(times.merge(id, 1, Integer::sum) == 1, "%s is in the log twice", id);
            // The broker stores a message again when it is due, and has the clock of this machine.
            long after = message.getStoreTimestamp() - due.getOrDefault(id, Long.MIN_VALUE / 2);
            require(after >= 0, "%s came %d ms early", id, -after);
            latest = Math.max(latest, after);
        }
        requireBetween(sent.acknowledged(), times.keySet(), sent.tried(), "delayed messages in the log");
        requireBetween(sent.acknowledged(), arrivals, times.keySet(), "delayed messages at the consumer");
        return String.format("%s; %d in the log, each once, none early, the latest %d ms after its time", counts(), times.size(), latest);
    }
}
