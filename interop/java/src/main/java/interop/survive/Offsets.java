package interop.survive;

import java.util.BitSet;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.atomic.AtomicInteger;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerConcurrently;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.common.message.MessageExt;

/**
 * A group whose one consumer is another one after every kill, so that it goes on where the broker says: that is never behind a
 * message that nobody consumed.
 */
final class Offsets extends Feature {
    private static final String TOPIC = "survive_offsets";
    private static final String GROUP = "survive_offsets_group";
    private static final int PAUSE_MILLIS = 5;
    private static final int ANSWER_MILLIS = 30_000;

    private final Clients clients;
    private final Tally acknowledged = tally("acknowledged", 40);
    private final Tally consumed = tally("consumed first", 40);
    private final AtomicInteger number = new AtomicInteger();
    private final Sent sent = new Sent();
    private final Set<String> seen = ConcurrentHashMap.newKeySet();
    /** By queue, the offsets that were consumed. */
    private final Map<Integer, BitSet> offsets = new TreeMap<>();
    private final AtomicInteger again = new AtomicInteger();
    private DefaultMQPushConsumer consumer;
    private int kills;
    private long furthest;

    Offsets(Clients clients) {
        super("offsets");
        this.clients = clients;
    }

    @Override
    void start() throws Exception {
        clients.topic(TOPIC, 4);
        consumer = consume();
        DefaultMQProducer producer = clients.producer("survive_offsets_producer");
        for (int i = 0; i < 2; i++) {
            repeat(PAUSE_MILLIS, () -> {
                sent.send(producer, Sent.message(TOPIC, Integer.toString(number.getAndIncrement())));
                acknowledged.add();
            });
        }
    }

    private DefaultMQPushConsumer consume() throws Exception {
        DefaultMQPushConsumer made = clients.consumer(GROUP);
        made.subscribe(TOPIC, "*");
        made.registerMessageListener((MessageListenerConcurrently) (messages, context) -> {
            messages.forEach(this::took);
            return ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
        });
        clients.start(made);
        return made;
    }

    private void took(MessageExt message) {
        synchronized (offsets) {
            offsets.computeIfAbsent(message.getQueueId(), queue -> new BitSet()).set((int) message.getQueueOffset());
        }
        if (seen.add(Sent.id(message))) {
            consumed.add();
        } else {
            again.incrementAndGet();
        }
    }

    /** Every second time the consumer ends while the broker is dead, and what it would commit at its end is lost. */
    @Override
    void killed() {
        kills++;
        if (kills % 2 == 0) {
            endConsumer();
        }
    }

    /** Not waited for: the client takes seconds to end. */
    private void endConsumer() {
        Thread thread = new Thread(consumer::shutdown, "end-consumer");
        thread.setDaemon(true);
        thread.start();
    }

    @Override
    void restarted() throws Exception {
        if (kills % 2 == 1) {
            endConsumer();
        }
        committed().forEach((queue, offset) -> {
            furthest = Math.max(furthest, offset);
            int next = next(queue);
            require(offset <= next, "after kill %d the group is at %d of queue %d, and %d is not consumed", kills, offset, queue, next);
        });
        consumer = consume();
    }

    /** The first offset that is not consumed. */
    private int next(int queue) {
        synchronized (offsets) {
            return offsets.getOrDefault(queue, new BitSet()).nextClearBit(0);
        }
    }

    private Map<Integer, Long> committed() throws Exception {
        Map<Integer, Long> found = new TreeMap<>();
        long deadline = System.currentTimeMillis() + ANSWER_MILLIS;
        while (found.isEmpty()) {
            try {
                clients.admin().examineConsumeStats(GROUP, TOPIC).getOffsetTable().forEach((queue, at) -> {
                    if (queue.getTopic().equals(TOPIC)) {
                        found.put(queue.getQueueId(), at.getConsumerOffset());
                    }
                });
            } catch (Exception failed) {
                // The admin client's connection may still be the one to the killed broker.
                if (System.currentTimeMillis() > deadline) {
                    throw failed;
                }
                Thread.sleep(100);
            }
        }
        return found;
    }

    @Override
    boolean settled() {
        return seen.containsAll(sent.acknowledged());
    }

    @Override
    String judge() throws Exception {
        sent.requirePlaces(this, clients.log(TOPIC));
        requireBetween(sent.acknowledged(), seen, sent.tried(), "messages consumed");
        offsets.forEach((queue, taken) ->
            require(taken.nextClearBit(0) == taken.length(), "offset %d of queue %d was skipped", taken.nextClearBit(0), queue));
        require(furthest > 0, "the group was at the begin after every kill");
        return String.format("%s; %d consumed again, none skipped, by %d consumers one after the other", counts(), again.get(), kills + 1);
    }
}
