package interop;

import java.util.Collection;
import java.util.List;
import java.util.Map;
import java.util.Queue;
import java.util.Set;
import java.util.TreeSet;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ConcurrentLinkedQueue;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyContext;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerConcurrently;
import org.apache.rocketmq.common.message.MessageExt;

/** A listener that keeps every message it is given, with the time of its arrival, and counts ids. */
final class Received implements MessageListenerConcurrently {
    record Arrival(MessageExt message, long millis) {
    }

    private final Queue<Arrival> arrivals = new ConcurrentLinkedQueue<>();
    private final Map<String, Integer> timesById = new ConcurrentHashMap<>();
    private final long pauseMillis;

    Received() {
        this(0);
    }

    /** @param pauseMillis how long each message keeps its thread */
    Received(long pauseMillis) {
        this.pauseMillis = pauseMillis;
    }

    @Override
    public ConsumeConcurrentlyStatus consumeMessage(List<MessageExt> messages, ConsumeConcurrentlyContext context) {
        if (pauseMillis > 0) {
            try {
                Thread.sleep(pauseMillis * messages.size());
            } catch (InterruptedException stopped) {
                return ConsumeConcurrentlyStatus.RECONSUME_LATER;
            }
        }
        take(messages);
        return ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
    }

    void take(Collection<MessageExt> messages) {
        long now = System.currentTimeMillis();
        for (MessageExt message : messages) {
            arrivals.add(new Arrival(message, now));
            timesById.merge(Texts.id(message), 1, Integer::sum);
        }
    }

    Collection<Arrival> arrivals() {
        return arrivals;
    }

    Set<String> ids() {
        return timesById.keySet();
    }

    int distinct() {
        return timesById.size();
    }

    int repeats() {
        return timesById.values().stream().mapToInt(times -> times - 1).sum();
    }

    Set<Integer> queues() {
        Set<Integer> queues = new TreeSet<>();
        arrivals.forEach(arrival -> queues.add(arrival.message().getQueueId()));
        return queues;
    }
}
