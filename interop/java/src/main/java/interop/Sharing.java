package interop;

import static interop.Check.require;
import static interop.Check.same;
import static interop.World.await;

import java.util.ArrayList;
import java.util.BitSet;
import java.util.Collections;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicReference;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.SendCallback;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageQueue;
import org.apache.rocketmq.remoting.protocol.heartbeat.MessageModel;

/** Who gets what: one group shares, broadcasting repeats. */
final class Sharing {
    private static final int QUEUES = 8;
    private static final int SENDERS = 4;
    private static final int EACH = 5_000;
    private static final int BATCH = 50;

    private Sharing() {
    }

    static String mixedSends(World world) throws Exception {
        String topic = world.topic(QUEUES);
        String group = world.name("g");
        Received first = new Received();
        Received second = new Received();
        DefaultMQPushConsumer a = world.startPush(group, topic, "*", first);
        DefaultMQPushConsumer b = world.startPush(group, topic, "*", second);
        await(40, "each of two consumers to hold 4 of 8 queues",
            () -> World.held(a, topic).size() == 4 && World.held(b, topic).size() == 4);
        require(Collections.disjoint(World.held(a, topic), World.held(b, topic)), "the two consumers hold the same queues");

        long start = System.nanoTime();
        Set<String> sent = sendMixed(world, topic);
        double sendSeconds = (System.nanoTime() - start) / 1e9;
        int total = sent.size();
        await(40, total + " distinct messages", () -> distinct(first, second) >= total);

        Set<String> seen = new HashSet<>(first.ids());
        seen.addAll(second.ids());
        Texts.sameIds(sent, seen, "messages of the group");
        require(first.distinct() > 0 && second.distinct() > 0, "one consumer got nothing");
        require(Collections.disjoint(first.queues(), second.queues()),
            "both consumers got messages of one queue: %s and %s", first.queues(), second.queues());
        long stored = requireDense(world, topic, first, second);
        return String.format("%d sent in %.1f s (sync, async, one-way, batch), %d stored; consumers got %d and %d, %d repeats",
            total, sendSeconds, stored, first.distinct(), second.distinct(), first.repeats() + second.repeats());
    }

    private static int distinct(Received first, Received second) {
        return first.distinct() + second.distinct();
    }

    private static Set<String> sendMixed(World world, String topic) throws Exception {
        DefaultMQProducer producer = world.producer();
        Set<String> sent = ConcurrentHashMap.newKeySet();
        AtomicInteger unanswered = new AtomicInteger();
        AtomicReference<Throwable> asyncFailure = new AtomicReference<>();
        ExecutorService senders = Executors.newFixedThreadPool(SENDERS);
        try {
            List<Future<?>> running = new ArrayList<>();
            for (int s = 0; s < SENDERS; s++) {
                int sender = s;
                running.add(senders.submit(() -> {
                    sendShare(producer, topic, sender, sent, unanswered, asyncFailure);
                    return null;
                }));
            }
            for (Future<?> one : running) {
                one.get();
            }
        } finally {
            senders.shutdownNow();
        }
        await(15, "answers to asynchronous sends", () -> unanswered.get() == 0);
        require(asyncFailure.get() == null, "an asynchronous send failed: %s", asyncFailure.get());
        return sent;
    }

    private static void sendShare(DefaultMQProducer producer, String topic, int sender, Set<String> sent,
        AtomicInteger unanswered, AtomicReference<Throwable> asyncFailure) throws Exception {
        List<Message> batch = new ArrayList<>();
        for (int i = 0; i < EACH; i++) {
            String id = sender + "-" + i;
            Message message = Texts.make(topic, id);
            sent.add(id);
            switch (i % 4) {
                case 0 -> Texts.ok(producer.send(message));
                case 1 -> {
                    unanswered.incrementAndGet();
                    producer.send(message, new SendCallback() {
                        @Override
                        public void onSuccess(SendResult result) {
                            unanswered.decrementAndGet();
                        }

                        @Override
                        public void onException(Throwable thrown) {
                            asyncFailure.set(thrown);
                            unanswered.decrementAndGet();
                        }
                    });
                }
                case 2 -> producer.sendOneway(message);
                default -> batch.add(message);
            }
            if (batch.size() == BATCH || i == EACH - 1) {
                Texts.ok(producer.send(batch));
                batch = new ArrayList<>();
            }
        }
    }

    /** Every queue starts at 0 and every offset below its maximum was delivered. Returns how many messages are stored. */
    private static long requireDense(World world, String topic, Received... received) throws Exception {
        Map<Integer, BitSet> offsets = new TreeMap<>();
        for (Received one : received) {
            one.arrivals().forEach(arrival -> offsets
                .computeIfAbsent(arrival.message().getQueueId(), queue -> new BitSet())
                .set((int) arrival.message().getQueueOffset()));
        }
        same(QUEUES, offsets.size(), "queues with messages");
        long stored = 0;
        for (MessageQueue queue : world.producer().fetchPublishMessageQueues(topic)) {
            long max = world.admin().maxOffset(queue);
            same(0L, world.admin().minOffset(queue), "minimum offset of queue " + queue.getQueueId());
            BitSet seen = offsets.get(queue.getQueueId());
            require(seen.cardinality() == max && seen.length() == max, "queue %d: offsets up to %d, delivered %d, highest %d",
                queue.getQueueId(), max, seen.cardinality(), seen.length() - 1);
            stored += max;
        }
        return stored;
    }

    static String broadcasting(World world) throws Exception {
        String topic = world.topic(4);
        String group = world.name("g");
        List<Received> all = new ArrayList<>();
        for (int i = 0; i < 3; i++) {
            Received received = new Received();
            DefaultMQPushConsumer consumer = world.pushConsumer(group);
            consumer.setMessageModel(MessageModel.BROADCASTING);
            consumer.subscribe(topic, "*");
            consumer.registerMessageListener(received);
            consumer.start();
            await(20, "a broadcasting consumer to hold all 4 queues", () -> World.held(consumer, topic).size() == 4);
            all.add(received);
        }
        Set<String> sent = new HashSet<>(Texts.send(world.producer(), topic, "b", 400));
        for (Received received : all) {
            await(15, "400 messages at each broadcasting consumer", () -> received.distinct() >= 400);
            Texts.sameIds(sent, received.ids(), "broadcast");
            same(0, received.repeats(), "repeated broadcasts");
        }
        return "3 consumers got all 400 each, none twice";
    }

    static String autoCreatedTopic(World world) throws Exception {
        String topic = world.name("t");
        Set<String> sent = new HashSet<>(Texts.send(world.producer(), topic, "n", 40));
        Received received = new Received();
        world.startPush(world.name("g"), topic, "*", received);
        await(15, "40 messages of a topic nobody created", () -> received.distinct() >= 40);
        Texts.sameIds(sent, received.ids(), "messages");
        return "40 sent to a topic nobody created, got over queues " + received.queues();
    }
}
