package interop.survive;

import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.concurrent.atomic.AtomicInteger;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyContext;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerConcurrently;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.common.message.MessageConst;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.common.message.MessageRequestMode;
import org.apache.rocketmq.remoting.RPCHook;
import org.apache.rocketmq.remoting.protocol.RemotingCommand;
import org.apache.rocketmq.remoting.protocol.RequestCode;
import org.apache.rocketmq.remoting.protocol.ResponseCode;
import org.apache.rocketmq.remoting.protocol.header.AckMessageRequestHeader;
import org.apache.rocketmq.remoting.protocol.header.ExtraInfoUtil;
import org.apache.rocketmq.remoting.protocol.subscription.SubscriptionGroupConfig;

/** Two consumers that pop: each message is acknowledged at last, and not popped again once its acknowledgement was answered. */
final class Popped extends Feature implements MessageListenerConcurrently, RPCHook {
    private static final String TOPIC = "survive_pop";
    private static final String GROUP = "survive_pop_group";
    private static final int INVISIBLE_MILLIS = 8_000;
    /** What is hidden is seen again by then, also what failed and the client hid for 10 s. */
    private static final int QUIET_MILLIS = 12_000;
    private static final int PAUSE_MILLIS = 5;
    /** One of so many fails the first time, and is kept hidden for a while. */
    private static final int FAILING = 50;

    /** A message that a consumer was given, and when the broker gave it. */
    private record Delivery(String id, long millis) {
    }

    private final Clients clients;
    private final Tally acknowledged = tally("acknowledged", 40);
    private final Tally consumed = tally("popped and acknowledged", 40);
    private final AtomicInteger number = new AtomicInteger();
    private final Sent sent = new Sent();
    private final List<DefaultMQPushConsumer> consumers = new ArrayList<>();
    private final ConcurrentLinkedQueue<Delivery> deliveries = new ConcurrentLinkedQueue<>();
    private final Map<String, String> idsByHandle = new ConcurrentHashMap<>();
    /** When the answer to its acknowledgement was here. */
    private final Map<String, Long> ended = new ConcurrentHashMap<>();
    /** An acknowledgement was sent; without an answer nobody knows whether it was taken. */
    private final Set<String> ending = ConcurrentHashMap.newKeySet();
    private final AtomicInteger refused = new AtomicInteger();
    private volatile long lastDelivery;

    Popped(Clients clients) {
        super("pop");
        this.clients = clients;
    }

    @Override
    void start() throws Exception {
        clients.topic(TOPIC, 8);
        SubscriptionGroupConfig config = new SubscriptionGroupConfig();
        config.setGroupName(GROUP);
        clients.admin().createAndUpdateSubscriptionGroupConfig(clients.brokerAddress(), config);
        clients.admin().setMessageRequestMode(clients.brokerAddress(), TOPIC, GROUP, MessageRequestMode.POP, 0, 5_000);
        for (int i = 0; i < 2; i++) {
            DefaultMQPushConsumer consumer = clients.consumer(GROUP, this);
            consumer.setClientRebalance(false);
            consumer.setPopInvisibleTime(INVISIBLE_MILLIS);
            consumer.subscribe(TOPIC, "*");
            consumer.registerMessageListener(this);
            clients.start(consumer);
            consumers.add(consumer);
        }
        DefaultMQProducer producer = clients.producer("survive_pop_producer");
        for (int i = 0; i < 2; i++) {
            repeat(PAUSE_MILLIS, () -> {
                sent.send(producer, Sent.message(TOPIC, Integer.toString(number.getAndIncrement())));
                acknowledged.add();
            });
        }
    }

    @Override
    public ConsumeConcurrentlyStatus consumeMessage(List<MessageExt> messages, ConsumeConcurrentlyContext context) {
        MessageExt message = messages.get(0);
        String id = Sent.id(message);
        String handle = message.getProperty(MessageConst.PROPERTY_POP_CK);
        require(handle != null, "%s came by pull", id);
        if (handle == null) {
            return ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
        }
        lastDelivery = System.currentTimeMillis();
        deliveries.add(new Delivery(id, ExtraInfoUtil.getPopTime(ExtraInfoUtil.split(handle))));
        idsByHandle.put(handle, id);
        boolean fails = message.getReconsumeTimes() == 0 && Integer.parseInt(id) % FAILING == 0;
        return fails ? ConsumeConcurrentlyStatus.RECONSUME_LATER : ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
    }

    private String acknowledges(RemotingCommand request) {
        return idsByHandle.get(((AckMessageRequestHeader) request.readCustomHeader()).getExtraInfo());
    }

    /** The client tells nobody else of an acknowledgement, nor what became of it. */
    @Override
    public void doBeforeRequest(String address, RemotingCommand request) {
        if (request.getCode() == RequestCode.ACK_MESSAGE) {
            ending.add(acknowledges(request));
        }
    }

    @Override
    public void doAfterResponse(String address, RemotingCommand request, RemotingCommand response) {
        if (request.getCode() != RequestCode.ACK_MESSAGE || response == null) {
            return;
        }
        if (response.getCode() != ResponseCode.SUCCESS) {
            refused.incrementAndGet();
            return;
        }
        String id = acknowledges(request);
        require(ended.putIfAbsent(id, System.currentTimeMillis()) == null, "%s was acknowledged twice", id);
        consumed.add();
    }

    @Override
    boolean settled() {
        return ending.containsAll(sent.acknowledged()) && System.currentTimeMillis() > lastDelivery + QUIET_MILLIS;
    }

    @Override
    String judge() throws Exception {
        sent.requirePlaces(this, clients.log(TOPIC));
        requireBetween(sent.acknowledged(), ending, sent.tried(), "messages popped and acknowledged");
        Set<String> distinct = new HashSet<>();
        int again = 0;
        for (Delivery delivery : deliveries) {
            again += distinct.add(delivery.id()) ? 0 : 1;
            Long at = ended.get(delivery.id());
            require(at == null || delivery.millis() <= at, "%s was popped %d ms after its acknowledgement was answered", delivery.id(),
                at == null ? 0 : delivery.millis() - at);
        }
        for (DefaultMQPushConsumer consumer : consumers) {
            require(consumer.getDefaultMQPushConsumerImpl().getRebalanceImpl().getProcessQueueTable().keySet().stream()
                .noneMatch(queue -> queue.getTopic().equals(TOPIC)), "a consumer pulls");
        }
        return String.format("%s; %d came again, none after its acknowledgement was answered; %d acknowledgements without an answer, "
            + "%d too late", counts(), again, ending.size() - ended.size(), refused.get());
    }
}
