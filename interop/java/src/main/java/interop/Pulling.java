package interop;

import static interop.Check.require;
import static interop.Check.same;
import static interop.World.await;

import java.util.ArrayList;
import java.util.Collection;
import java.util.Comparator;
import java.util.HashSet;
import java.util.List;
import java.util.Set;
import org.apache.rocketmq.client.consumer.DefaultLitePullConsumer;
import org.apache.rocketmq.client.consumer.DefaultMQPullConsumer;
import org.apache.rocketmq.client.consumer.PullResult;
import org.apache.rocketmq.client.consumer.PullStatus;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.common.message.MessageQueue;

/** Consumers that ask: by position, and by poll. */
@SuppressWarnings("deprecation")
final class Pulling {
    private Pulling() {
    }

    /** All messages of a topic now, queue by queue. */
    static List<MessageExt> everything(World world, String topic) throws Exception {
        DefaultMQPullConsumer consumer = world.pullConsumer(world.name("g"));
        List<MessageExt> messages = new ArrayList<>();
        for (MessageQueue queue : consumer.fetchSubscribeMessageQueues(topic)) {
            long next = consumer.minOffset(queue);
            long end = consumer.maxOffset(queue);
            while (next < end) {
                PullResult result = consumer.pull(queue, "*", next, 32);
                if (result.getPullStatus() == PullStatus.FOUND) {
                    messages.addAll(result.getMsgFoundList());
                }
                require(result.getNextBeginOffset() > next, "a pull at %d of %s gave %s and no progress", next, queue, result.getPullStatus());
                next = result.getNextBeginOffset();
            }
        }
        consumer.shutdown();
        return messages;
    }

    static String byOffset(World world) throws Exception {
        String topic = world.topic(1);
        List<String> sent = Texts.send(world.producer(), topic, "p", 100);
        String group = world.name("g");
        DefaultMQPullConsumer consumer = world.pullConsumer(group);
        MessageQueue queue = consumer.fetchSubscribeMessageQueues(topic).iterator().next();
        await(10, "100 messages in the queue", () -> consumer.maxOffset(queue) == 100);

        PullResult ten = consumer.pull(queue, "*", 40, 10);
        same(PullStatus.FOUND, ten.getPullStatus(), "pull at 40");
        same(sent.subList(40, 50), ten.getMsgFoundList().stream().map(Texts::id).toList(), "10 messages from 40");
        same(50L, ten.getNextBeginOffset(), "next offset");
        same(0L, ten.getMinOffset(), "minimum offset in the answer");
        same(100L, ten.getMaxOffset(), "maximum offset in the answer");
        same(PullStatus.NO_NEW_MSG, consumer.pull(queue, "*", 100, 10).getPullStatus(), "pull at the end");
        PullResult beyond = consumer.pull(queue, "*", 100_000, 10);
        same(PullStatus.OFFSET_ILLEGAL, beyond.getPullStatus(), "pull far behind the end");
        same(100L, beyond.getNextBeginOffset(), "corrected offset");
        PullResult none = consumer.pull(queue, "Nobody", 0, 32);
        same(PullStatus.NO_MATCHED_MSG, none.getPullStatus(), "pull of a tag nobody sent");

        long start = System.nanoTime();
        Thread later = new Thread(() -> {
            try {
                Thread.sleep(700);
                Texts.send(world.producer(), topic, "late", 1);
            } catch (Exception failed) {
                throw new IllegalStateException(failed);
            }
        });
        later.start();
        PullResult waited = consumer.pullBlockIfNotFound(queue, "*", 100, 10);
        double seconds = (System.nanoTime() - start) / 1e9;
        later.join();
        same(PullStatus.FOUND, waited.getPullStatus(), "pull that waits");
        require(seconds < 5, "a waiting pull was answered %.1f s after it began, the message came at 0.7 s", seconds);

        // A broker answers 0, not "unknown", while the queue still has its first message and it is in memory.
        same(0L, consumer.fetchConsumeOffset(queue, true), "offset of a new group");
        consumer.getDefaultMQPullConsumerImpl().updateConsumeOffsetToBroker(queue, 42, false);
        same(42L, consumer.fetchConsumeOffset(queue, true), "offset kept by the broker");
        return String.format("by offset, at the end, behind the end, no match; a waiting pull answered after %.2f s; offset 42 kept", seconds);
    }

    static String litePull(World world) throws Exception {
        String topic = world.topic(2);
        DefaultMQProducer producer = world.producer();
        Set<String> sent = new HashSet<>(Texts.send(producer, topic, "l", 200));
        DefaultLitePullConsumer assigned = world.litePullConsumer(world.name("g"));
        assigned.setAutoCommit(false);
        assigned.setPullBatchSize(32);
        assigned.start();
        List<MessageQueue> queues = new ArrayList<>(assigned.fetchMessageQueues(topic));
        queues.sort(Comparator.comparingInt(MessageQueue::getQueueId));
        same(2, queues.size(), "queues");
        assigned.assign(queues);
        Texts.sameIds(sent, pollAll(assigned, 200).ids(), "polled");

        rest(assigned);
        for (MessageQueue queue : queues) {
            assigned.seekToBegin(queue);
        }
        Texts.sameIds(sent, pollAll(assigned, 200).ids(), "polled after seekToBegin");

        MessageQueue one = queues.get(0);
        assigned.assign(List.of(one));
        rest(assigned);
        assigned.seek(one, 60);
        long first = firstOffset(assigned, one);
        same(60L, first, "first offset after seek(60)");
        rest(assigned);
        assigned.seekToEnd(one);
        require(assigned.poll(500).isEmpty(), "messages after seekToEnd");
        assigned.commit(java.util.Map.of(one, 77L), true);
        await(10, "the committed offset 77", () -> assigned.committed(one) == 77);
        long byTime = assigned.offsetForTimestamp(one, 0L);
        same(0L, byTime, "offset for the time 0");

        Received subscribed = subscribe(world, topic, sent);
        return String.format("assign: 200 polled, again after seekToBegin, seek 60 gave 60, end is empty, committed 77; subscribe: %d polled", subscribed.distinct());
    }

    private static Received pollAll(DefaultLitePullConsumer consumer, int count) throws Exception {
        Received all = new Received();
        await(15, count + " polled messages", () -> {
            all.take(consumer.poll(200));
            return all.distinct() >= count;
        });
        return all;
    }

    /**
     * Until everything was polled and the consumer's tasks wait in long polls. seek() interrupts the task's thread, and when that
     * thread is not waiting right then, the client closes its connection to the broker and fails whatever else is under way on it
     * (seen with 5.5.0 against Apache's own broker too, about once in twenty runs).
     */
    private static void rest(DefaultLitePullConsumer consumer) {
        while (!consumer.poll(500).isEmpty()) {
            continue;
        }
    }

    private static long firstOffset(DefaultLitePullConsumer consumer, MessageQueue queue) throws Exception {
        List<MessageExt> got = new ArrayList<>();
        await(10, "messages after a seek", () -> {
            Collection<MessageExt> polled = consumer.poll(200);
            polled.stream().filter(message -> message.getQueueId() == queue.getQueueId()).forEach(got::add);
            return !got.isEmpty();
        });
        return got.get(0).getQueueOffset();
    }

    private static Received subscribe(World world, String topic, Set<String> sent) throws Exception {
        DefaultLitePullConsumer consumer = world.litePullConsumer(world.name("g"));
        consumer.subscribe(topic, "*");
        consumer.start();
        Received received = new Received();
        await(20, "200 polled messages of a subscription", () -> {
            received.take(consumer.poll(200));
            return received.distinct() >= 200;
        });
        Texts.sameIds(sent, received.ids(), "polled by subscription");
        return received;
    }
}
