package interop.survive;

import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.stream.Collectors;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.MessageSelector;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerConcurrently;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageExt;

/** A subscription with a condition, which only the broker evaluates: it gets every message that matches, and no other. */
final class Filtered extends Feature {
    private static final String TOPIC = "survive_sql92";
    private static final String CONDITION = "amount BETWEEN 20 AND 69 AND region <> 'asia'";
    private static final String[] REGIONS = {"eu", "us", "asia"};
    private static final int PAUSE_MILLIS = 5;

    private final Clients clients;
    private final Tally acknowledged = tally("acknowledged", 40);
    private final Tally matched = tally("consumed first", 10);
    private final AtomicInteger number = new AtomicInteger();
    private final Sent sent = new Sent();
    private final Set<String> seen = ConcurrentHashMap.newKeySet();

    Filtered(Clients clients) {
        super("sql92");
        this.clients = clients;
    }

    private static boolean matches(String id) {
        int turn = Integer.parseInt(id);
        int amount = turn % 100;
        return amount >= 20 && amount <= 69 && !REGIONS[turn % REGIONS.length].equals("asia");
    }

    @Override
    void start() throws Exception {
        clients.topic(TOPIC, 4);
        DefaultMQPushConsumer consumer = clients.consumer("survive_sql92_group");
        consumer.subscribe(TOPIC, MessageSelector.bySql(CONDITION));
        consumer.registerMessageListener((MessageListenerConcurrently) (messages, context) -> {
            for (MessageExt message : messages) {
                if (seen.add(Sent.id(message))) {
                    matched.add();
                }
            }
            return ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
        });
        clients.start(consumer);
        DefaultMQProducer producer = clients.producer("survive_sql92_producer");
        repeat(PAUSE_MILLIS, () -> {
            int turn = number.getAndIncrement();
            Message message = Sent.message(TOPIC, Integer.toString(turn));
            message.putUserProperty("amount", Integer.toString(turn % 100));
            message.putUserProperty("region", REGIONS[turn % REGIONS.length]);
            sent.send(producer, message);
            acknowledged.add();
        });
    }

    private static Set<String> matching(Set<String> ids) {
        return ids.stream().filter(Filtered::matches).collect(Collectors.toSet());
    }

    @Override
    boolean settled() {
        return seen.containsAll(matching(sent.acknowledged()));
    }

    @Override
    String judge() throws Exception {
        sent.requirePlaces(this, clients.log(TOPIC));
        requireBetween(matching(sent.acknowledged()), seen, matching(sent.tried()), "matching messages");
        return String.format("%s; no other came", counts());
    }
}
