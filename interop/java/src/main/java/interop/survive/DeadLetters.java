package interop.survive;

import java.util.HashSet;
import java.util.List;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.stream.Collectors;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerConcurrently;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageExt;

/** Messages that always fail end among the dead letters, and only they. One that is given back twice may be there twice. */
final class DeadLetters extends Feature {
    private static final String TOPIC = "survive_retry";
    private static final String GROUP = "survive_retry_group";
    private static final int MAX_RECONSUME = 2;
    private static final int PAUSE_MILLIS = 20;

    private final Clients clients;
    private final Tally acknowledged = tally("acknowledged", 20);
    private final Tally failed = tally("failed once", 5);
    private final Tally retried = tally("failed again", 5);
    private final AtomicInteger number = new AtomicInteger();
    private final Sent sent = new Sent();
    private final Set<String> accepted = ConcurrentHashMap.newKeySet();

    DeadLetters(Clients clients) {
        super("retry-dlq");
        this.clients = clients;
    }

    @Override
    void start() throws Exception {
        clients.topic(TOPIC, 4);
        DefaultMQPushConsumer consumer = clients.consumer(GROUP);
        consumer.setMaxReconsumeTimes(MAX_RECONSUME);
        consumer.subscribe(TOPIC, "*");
        consumer.registerMessageListener((MessageListenerConcurrently) (messages, context) -> {
            context.setDelayLevelWhenNextConsume(1);
            MessageExt message = messages.get(0);
            if (!fails(Sent.id(message))) {
                accepted.add(Sent.id(message));
                return ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
            }
            (message.getReconsumeTimes() == 0 ? failed : retried).add();
            return ConsumeConcurrentlyStatus.RECONSUME_LATER;
        });
        clients.start(consumer);
        DefaultMQProducer producer = clients.producer("survive_retry_producer");
        repeat(PAUSE_MILLIS, () -> {
            int turn = number.getAndIncrement();
            sent.send(producer, Sent.message(TOPIC, (turn % 3 == 0 ? "bad-" : "good-") + turn));
            acknowledged.add();
        });
    }

    private static boolean fails(String id) {
        return id.startsWith("bad");
    }

    private static Set<String> failing(Set<String> ids, boolean fails) {
        return ids.stream().filter(id -> fails(id) == fails).collect(Collectors.toSet());
    }

    private List<String> dead() throws Exception {
        return clients.log("%DLQ%" + GROUP).stream().map((Message message) -> Sent.id(message)).toList();
    }

    @Override
    boolean settled() throws Exception {
        return accepted.containsAll(failing(sent.acknowledged(), false)) && dead().containsAll(failing(sent.acknowledged(), true));
    }

    @Override
    String judge() throws Exception {
        sent.requirePlaces(this, clients.log(TOPIC));
        List<String> dead = dead();
        Set<String> distinct = new HashSet<>(dead);
        requireBetween(failing(sent.acknowledged(), true), distinct, failing(sent.tried(), true), "dead letters");
        requireBetween(failing(sent.acknowledged(), false), accepted, failing(sent.tried(), false), "accepted messages");
        return String.format("%s; %d dead letters, %d more than once, no other among them", counts(), distinct.size(), dead.size() - distinct.size());
    }
}
