package interop.survive;

import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.atomic.AtomicInteger;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.listener.ConsumeOrderlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerOrderly;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageExt;

/**
 * Numbers by key, one under way of each key, the same again until it is acknowledged: in the log and at the consumers a number
 * may repeat, but none comes first before the one below it.
 */
final class Orderly extends Feature {
    private static final String TOPIC = "survive_orderly";
    private static final int KEYS = 8;
    private static final int QUEUES = 4;

    private final Clients clients;
    private final Tally acknowledged = tally("acknowledged", 40);
    private final Tally consumed = tally("consumed first", 40);
    /** By key, the number that is sent next; all below are acknowledged. */
    private final int[] next = new int[KEYS];
    private final Sent sent = new Sent();
    /** What the consumers must see next, by key and by queue. */
    private final Progress progress = new Progress();
    private final AtomicInteger again = new AtomicInteger();

    Orderly(Clients clients) {
        super("orderly");
        this.clients = clients;
    }

    /** What comes is either next or came before. */
    private static final class Progress {
        private final Map<String, Long> next = new HashMap<>();

        /** 0: it is next. Below 0: it came before. Above: so many are skipped. */
        long take(String of, long number) {
            long gap = number - next(of);
            if (gap == 0) {
                next.put(of, number + 1);
            }
            return gap;
        }

        long next(String of) {
            return next.getOrDefault(of, 0L);
        }
    }

    @Override
    void start() throws Exception {
        clients.topic(TOPIC, QUEUES);
        MessageListenerOrderly listener = (messages, context) -> {
            messages.forEach(this::took);
            return ConsumeOrderlyStatus.SUCCESS;
        };
        for (int i = 0; i < 2; i++) {
            DefaultMQPushConsumer consumer = clients.consumer("survive_orderly_group");
            consumer.subscribe(TOPIC, "*");
            consumer.registerMessageListener(listener);
            clients.start(consumer);
        }
        DefaultMQProducer producer = clients.producer("survive_orderly_producer");
        for (int i = 0; i < KEYS; i++) {
            int key = i;
            repeat(5, () -> send(producer, key));
        }
    }

    private void send(DefaultMQProducer producer, int key) throws Exception {
        Message message = Sent.message(TOPIC, key + "-" + next[key]);
        sent.send(message, () -> producer.send(message, (queues, chosen, argument) -> queues.get(key % queues.size()), null));
        next[key]++;
        acknowledged.add();
    }

    private static String key(MessageExt message) {
        String id = Sent.id(message);
        return "key " + id.substring(0, id.indexOf('-'));
    }

    private static long number(MessageExt message) {
        String id = Sent.id(message);
        return Long.parseLong(id.substring(id.indexOf('-') + 1));
    }

    private void took(MessageExt message) {
        String queue = "queue " + message.getQueueId();
        synchronized (progress) {
            long skipped = progress.take(queue, message.getQueueOffset());
            require(skipped <= 0, "%s: offset %d came when %d was next", queue, message.getQueueOffset(), progress.next(queue));
            long gap = progress.take(key(message), number(message));
            require(gap <= 0, "%s: %d came when %d was next", key(message), number(message), progress.next(key(message)));
            if (gap == 0) {
                consumed.add();
            } else {
                again.incrementAndGet();
            }
        }
    }

    @Override
    boolean settled() {
        synchronized (progress) {
            for (int key = 0; key < KEYS; key++) {
                if (progress.next("key " + key) < next[key]) {
                    return false;
                }
            }
            return true;
        }
    }

    @Override
    String judge() throws Exception {
        List<MessageExt> log = clients.log(TOPIC);
        Progress stored = new Progress();
        sent.requirePlaces(this, log);
        for (MessageExt message : log) {
            long gap = stored.take(key(message), number(message));
            require(gap <= 0, "the log has %d of %s where %d was next", number(message), key(message), stored.next(key(message)));
        }
        for (int key = 0; key < KEYS; key++) {
            long seen = progress.next("key " + key);
            require(seen >= next[key], "key %d: acknowledged up to %d, consumed up to %d", key, next[key] - 1, seen - 1);
        }
        return String.format("%s; %d of %d keys in the log, in order; %d consumed again, none skipped", counts(), log.size(), KEYS, again.get());
    }
}
