package interop;

import static interop.Check.require;
import static interop.Check.same;
import static interop.World.await;
import static java.nio.charset.StandardCharsets.UTF_8;

import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicReference;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import org.apache.rocketmq.client.consumer.DefaultLitePullConsumer;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyStatus;
import org.apache.rocketmq.client.exception.MQBrokerException;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.LocalTransactionState;
import org.apache.rocketmq.client.producer.SendCallback;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.client.producer.TransactionListener;
import org.apache.rocketmq.client.producer.TransactionMQProducer;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.common.message.MessageRequestMode;
import org.apache.rocketmq.remoting.protocol.ResponseCode;
import org.apache.rocketmq.remoting.protocol.subscription.SubscriptionGroupConfig;

/**
 * Plugins of Sluice where official clients meet them: before a topic's messages are stored, and before a group receives them.
 *
 * <p>Sluice only: see {@link Rest}.
 */
final class Places {
    private static final String PAID = "\"plugin\": \"json-filter\", \"config\": {\"path\": \"/status\", \"equals\": \"paid\"}";
    private static final int TOTAL = 200;
    /** Long enough for a message that should not come to come. */
    private static final int SETTLE_MILLIS = 1_500;

    private Places() {
    }

    static String ingress(World world) throws Exception {
        String topic = world.topic(2);
        Rest.upload("json-filter");
        Rest.put("/topics/" + topic + "/ingress", "{\"steps\": [{" + PAID + "}]}");
        String said = "ingress of topic \"" + topic + "\": plugin json-filter@1.0.0 rejects";
        DefaultMQProducer producer = world.producer();
        producer.setRetryTimesWhenSendFailed(3);
        producer.setCompressMsgBodyOverHowmuch(1_000);
        int refusals = 0;
        for (int i = 0; i < TOTAL; i++) {
            Message message = order(topic, i);
            if (paid(i)) {
                Texts.ok(producer.send(message));
            } else {
                refused(said + " the message: filtered", () -> producer.send(message));
                refusals++;
            }
        }
        List<Message> batch = List.of(order(topic, 0), order(topic, 0), order(topic, 1));
        refused(said + " message 2 of the batch: filtered", () -> producer.send(batch));
        Message delayed = order(topic, 1);
        delayed.setDelayTimeLevel(1);
        refused(said + " the message: filtered", () -> producer.send(delayed));
        AtomicReference<Throwable> async = new AtomicReference<>();
        CountDownLatch answered = new CountDownLatch(1);
        producer.send(order(topic, 1), new SendCallback() {
            @Override
            public void onSuccess(SendResult result) {
                answered.countDown();
            }

            @Override
            public void onException(Throwable thrown) {
                async.set(thrown);
                answered.countDown();
            }
        });
        require(answered.await(10, TimeUnit.SECONDS), "no answer to an asynchronous send");
        require(async.get() instanceof MQBrokerException, "the asynchronous send ended with %s", async.get());
        TransactionMQProducer bank = world.transactionProducer(world.name("p"), new TransactionListener() {
            @Override
            public LocalTransactionState executeLocalTransaction(Message message, Object argument) {
                return LocalTransactionState.COMMIT_MESSAGE;
            }

            @Override
            public LocalTransactionState checkLocalTransaction(MessageExt message) {
                return LocalTransactionState.COMMIT_MESSAGE;
            }
        });
        try {
            bank.sendMessageInTransaction(order(topic, 1), null);
            throw new Check.Failed("a half message was taken that the ingress does not want");
        } catch (org.apache.rocketmq.client.exception.MQClientException thrown) {
            require(thrown.toString().contains(said) || String.valueOf(thrown.getCause()).contains(said), "it said %s", thrown);
        }
        // One attempt each: the client does not try again what it was told is illegal.
        String counts = Rest.get("/topics/" + topic + "/ingress");
        same(refusals + 6L, number(counts, "rejected"), "refused messages, three of them a batch, in " + counts);
        same((long) TOTAL - refusals, number(counts, "out"), "messages that passed");
        return String.format("%d stored, %d refused with code 13 and the plugin's name, each tried once", TOTAL - refusals, refusals + 6);
    }

    static String filter(World world) throws Exception {
        String topic = world.topic(4);
        Rest.upload("json-filter");
        String pushed = group(world);
        String popped = group(world);
        String pulled = group(world);
        world.admin().setMessageRequestMode(world.brokerAddress(), topic, popped, MessageRequestMode.POP, 0, 5_000);
        for (String group : List.of(pushed, popped, pulled)) {
            Rest.put("/groups/" + group + "/filters/" + topic, "{" + PAID + "}");
        }
        Set<String> byPush = ConcurrentHashMap.newKeySet();
        Set<String> byPop = ConcurrentHashMap.newKeySet();
        Set<String> byAll = ConcurrentHashMap.newKeySet();
        start(world, pushed, topic, byPush, true);
        start(world, popped, topic, byPop, false);
        start(world, world.name("g"), topic, byAll, true);
        DefaultLitePullConsumer lite = world.litePullConsumer(pulled);
        lite.subscribe(topic, "*");
        lite.start();
        DefaultMQProducer producer = world.producer();
        Set<String> wanted = new HashSet<>();
        Set<String> sent = new HashSet<>();
        for (int i = 0; i < TOTAL; i++) {
            Message message = order(topic, i);
            sent.add(new String(message.getBody(), UTF_8));
            if (paid(i)) {
                wanted.add(new String(message.getBody(), UTF_8));
            }
            Texts.ok(producer.send(message));
        }
        Set<String> byPull = new HashSet<>();
        await(30, "everything at the group without a filter", () -> byAll.size() >= TOTAL);
        await(30, "what the filter keeps at the group that pulls", () -> {
            lite.poll(100).forEach(message -> byPull.add(new String(message.getBody(), UTF_8)));
            return byPull.size() >= wanted.size();
        });
        await(30, "what the filter keeps at the others", () -> byPush.size() >= wanted.size() && byPop.size() >= wanted.size());
        Thread.sleep(SETTLE_MILLIS);
        lite.poll(100).forEach(message -> byPull.add(new String(message.getBody(), UTF_8)));
        Texts.sameIds(sent, byAll, "messages without a filter");
        Texts.sameIds(wanted, byPush, "messages pushed");
        Texts.sameIds(wanted, byPop, "messages popped");
        Texts.sameIds(wanted, byPull, "messages pulled");
        await(15, "no message to be left to the group that pops", () -> number(Rest.get("/groups/" + popped), "lag") == 0);
        return String.format("of %d messages push, POP and lite pull each got the %d that the plugin keeps", TOTAL, wanted.size());
    }

    private static void start(World world, String group, String topic, Set<String> bodies, boolean clientRebalance) throws Exception {
        DefaultMQPushConsumer consumer = world.pushConsumer(group);
        consumer.setClientRebalance(clientRebalance);
        consumer.subscribe(topic, "*");
        consumer.registerMessageListener((List<MessageExt> messages,
            org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyContext context) -> {
            messages.forEach(message -> bodies.add(new String(message.getBody(), UTF_8)));
            return ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
        });
        consumer.start();
    }

    private static String group(World world) throws Exception {
        SubscriptionGroupConfig config = new SubscriptionGroupConfig();
        config.setGroupName(world.name("g"));
        world.admin().createAndUpdateSubscriptionGroupConfig(world.brokerAddress(), config);
        return config.getGroupName();
    }

    private static boolean paid(int i) {
        return i % 4 == 0;
    }

    /** Every tenth is long enough for the client to compress it. */
    private static Message order(String topic, int i) {
        String note = i % 10 == 0 ? "x".repeat(5_000) : "";
        String body = "{\"n\":" + i + ",\"status\":\"" + (paid(i) ? "paid" : "new") + "\",\"note\":\"" + note + "\"}";
        return new Message(topic, body.getBytes(UTF_8));
    }

    private interface Sending {
        void run() throws Exception;
    }

    private static void refused(String said, Sending sending) throws Exception {
        try {
            sending.run();
        } catch (MQBrokerException refusal) {
            same(ResponseCode.MESSAGE_ILLEGAL, refusal.getResponseCode(), "code");
            same(said, refusal.getErrorMessage(), "remark");
            return;
        }
        throw new Check.Failed("a message was taken that the ingress does not want");
    }

    /** The first number under a name. */
    private static long number(String json, String name) {
        Matcher found = Pattern.compile("\"" + name + "\":\\s*(\\d+)").matcher(json);
        require(found.find(), "no %s in %s", name, json);
        return Long.parseLong(found.group(1));
    }
}
