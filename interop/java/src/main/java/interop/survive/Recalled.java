package interop.survive;

import java.util.HashMap;
import java.util.HashSet;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.DelayQueue;
import java.util.concurrent.Delayed;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageExt;

/** Messages for a time, half of them taken back before it: those never come, all others once. */
final class Recalled extends Feature {
    private static final String TOPIC = "survive_recall";
    private static final int WAIT_MILLIS = 7_000;
    /** A message is taken back up to so long after it was sent: often the broker was killed in between. */
    private static final int LONGEST_MILLIS = 4_000;
    private static final int PAUSE_MILLIS = 40;
    private static final int AGAIN_MILLIS = 200;
    private static final int LATE_MILLIS = 3_000;

    private final Clients clients;
    private final Tally acknowledged = tally("acknowledged", 10);
    private final Tally taken = tally("recalled", 5);
    private final AtomicInteger number = new AtomicInteger();
    private final Sent sent = new Sent();
    private final DelayQueue<Handle> handles = new DelayQueue<>();
    private final Set<String> recalled = ConcurrentHashMap.newKeySet();
    /** Nobody knows whether they are taken back. */
    private final Set<String> unknown = ConcurrentHashMap.newKeySet();
    private volatile long lastDue;

    private record Handle(String id, String handle, long due, long at) implements Delayed {
        @Override
        public long getDelay(TimeUnit unit) {
            return unit.convert(at - System.currentTimeMillis(), TimeUnit.MILLISECONDS);
        }

        @Override
        public int compareTo(Delayed other) {
            return Long.compare(at, ((Handle) other).at);
        }
    }

    Recalled(Clients clients) {
        super("recall");
        this.clients = clients;
    }

    @Override
    void start() throws Exception {
        clients.topic(TOPIC, 4);
        DefaultMQProducer producer = clients.producer("survive_recall_producer");
        repeat(PAUSE_MILLIS, () -> send(producer));
        repeat(0, () -> recall(producer));
    }

    private void send(DefaultMQProducer producer) throws Exception {
        int turn = number.getAndIncrement();
        Message message = Sent.message(TOPIC, (turn % 2 == 0 ? "kept-" : "recalled-") + turn);
        message.setDelayTimeMs(WAIT_MILLIS);
        SendResult result = sent.send(producer, message);
        acknowledged.add();
        long now = System.currentTimeMillis();
        lastDue = now + WAIT_MILLIS;
        if (turn % 2 == 1) {
            handles.add(new Handle(Sent.id(message), result.getRecallHandle(), lastDue, now + turn * 311L % LONGEST_MILLIS));
        }
    }

    private void recall(DefaultMQProducer producer) throws Exception {
        Handle handle = handles.poll(PAUSE_MILLIS, TimeUnit.MILLISECONDS);
        if (handle == null) {
            return;
        }
        unknown.add(handle.id());
        try {
            producer.recallMessage(TOPIC, handle.handle());
        } catch (Exception failed) {
            long now = System.currentTimeMillis();
            if (now + AGAIN_MILLIS < handle.due()) {
                handles.add(new Handle(handle.id(), handle.handle(), handle.due(), now + AGAIN_MILLIS));
            }
            return;
        }
        unknown.remove(handle.id());
        recalled.add(handle.id());
        taken.add();
    }

    @Override
    boolean settled() {
        return System.currentTimeMillis() > lastDue + LATE_MILLIS;
    }

    @Override
    String judge() throws Exception {
        Map<String, Integer> times = new HashMap<>();
        for (MessageExt message : clients.log(TOPIC)) {
            require(times.merge(Sent.id(message), 1, Integer::sum) == 1, "%s is in the log twice", Sent.id(message));
        }
        Set<String> may = new HashSet<>(sent.tried());
        may.removeAll(recalled);
        Set<String> must = new HashSet<>(sent.acknowledged());
        must.removeAll(recalled);
        must.removeAll(unknown);
        requireBetween(must, times.keySet(), may, "messages for a time in the log");
        return String.format("%s; %d in the log, each once, none of those recalled; %d with a recall of unknown fate", counts(),
            times.size(), unknown.size());
    }
}
