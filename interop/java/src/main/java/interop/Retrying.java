package interop;

import static interop.Check.require;
import static interop.Check.same;
import static interop.World.await;

import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerConcurrently;
import org.apache.rocketmq.client.exception.MQBrokerException;
import org.apache.rocketmq.client.exception.MQClientException;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.common.MixAll;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageConst;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.remoting.protocol.body.CMResult;
import org.apache.rocketmq.remoting.protocol.body.ConsumeMessageDirectlyResult;

/** A message that is not consumed comes back, and after the last attempt lies in the dead-letter topic. */
final class Retrying {
    private static final int MAX_RECONSUME = 2;
    private static final int DELAY_LEVEL_1_MILLIS = 1_000;

    private record Attempt(int reconsumeTimes, String topic, String keys, long millis) {
    }

    private Retrying() {
    }

    static String untilDeadLetter(World world) throws Exception {
        String topic = world.topic(4);
        String group = world.name("g");
        Map<String, List<Attempt>> attempts = new ConcurrentHashMap<>();
        DefaultMQPushConsumer consumer = world.pushConsumer(group);
        consumer.setMaxReconsumeTimes(MAX_RECONSUME);
        consumer.subscribe(topic, "*");
        consumer.registerMessageListener((MessageListenerConcurrently) (messages, context) -> {
            context.setDelayLevelWhenNextConsume(1);
            MessageExt message = messages.get(0);
            String id = Texts.id(message);
            attempts.computeIfAbsent(id, key -> new ArrayList<>()).add(new Attempt(
                message.getReconsumeTimes(), message.getTopic(), message.getKeys(), System.currentTimeMillis()));
            boolean accept = id.startsWith("good") || id.startsWith("second") && message.getReconsumeTimes() == 1;
            return accept ? ConsumeConcurrentlyStatus.CONSUME_SUCCESS : ConsumeConcurrentlyStatus.RECONSUME_LATER;
        });
        consumer.start();

        DefaultMQProducer producer = world.producer();
        Set<String> bad = new HashSet<>();
        for (int i = 0; i < 10; i++) {
            for (String kind : List.of("good", "second", "bad")) {
                Message message = Texts.make(topic, kind + "-" + i);
                message.setKeys("key-" + kind + "-" + i);
                message.setTags("T");
                Texts.ok(producer.send(message));
            }
            bad.add("bad-" + i);
        }
        await(30, "3 attempts at each message that always fails", () -> bad.stream()
            .allMatch(id -> attempts.getOrDefault(id, List.of()).size() >= MAX_RECONSUME + 1));
        List<MessageExt> dead = deadLetters(world, "%DLQ%" + group, bad.size());

        requireAttempts(attempts, topic);
        requireDead(dead, bad, topic);
        return "30 sent; 10 accepted at once, 10 at the second attempt, 10 after attempts 0,1,2 in %DLQ% (" + dead.size() + ")";
    }

    /** Dead letters are messages like others: a group consumes their topic, and one is handed again to the group that failed. */
    static String deadLettersAgain(World world) throws Exception {
        String topic = world.topic(2);
        String group = world.name("g");
        Set<String> accepted = ConcurrentHashMap.newKeySet();
        DefaultMQPushConsumer consumer = world.pushConsumer(group);
        consumer.subscribe(topic, "*");
        consumer.registerMessageListener((MessageListenerConcurrently) (messages, context) -> {
            MessageExt message = messages.get(0);
            if (!message.getTopic().equals(topic)) {
                accepted.add(Texts.id(message));
                return ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
            }
            // A negative level: to the dead letters at once.
            context.setDelayLevelWhenNextConsume(-1);
            return ConsumeConcurrentlyStatus.RECONSUME_LATER;
        });
        consumer.start();
        List<String> sent = Texts.send(world.producer(), topic, "d", 10);
        String dead = MixAll.getDLQTopic(group);
        await(20, "a topic of dead letters", () -> world.admin().fetchAllTopicList().getTopicList().contains(dead));
        world.awaitRoute(dead);

        Received others = new Received();
        world.startPush(world.name("g"), dead, "*", others);
        await(30, "10 dead letters at another group", () -> others.distinct() >= 10);
        Texts.sameIds(new HashSet<>(sent), others.ids(), "dead letters");
        same(0, others.repeats(), "repeats");

        // What the dashboard's "resend" does.
        MessageExt letter = others.arrivals().iterator().next().message();
        String unique = letter.getProperty(MessageConst.PROPERTY_UNIQ_CLIENT_MESSAGE_ID_KEYIDX);
        await(10, "the dead letter by its unique id", () -> found(world, dead, unique));
        ConsumeMessageDirectlyResult result = world.admin().consumeMessageDirectly(group, Members.clientId(consumer), dead, unique);
        same(CMResult.CR_SUCCESS, result.getConsumeResult(), "what the consumer said about the dead letter");
        same(Set.of(Texts.id(letter)), accepted, "dead letters that the consumer accepted");
        return "10 dead letters consumed by another group; one handed again to the group that failed, which took it";
    }

    private static boolean found(World world, String topic, String id) throws Exception {
        try {
            return world.admin().viewMessage(topic, id) != null;
        } catch (MQClientException | MQBrokerException notYet) {
            return false;
        }
    }

    private static List<MessageExt> deadLetters(World world, String topic, int count) throws Exception {
        world.awaitRoute(topic);
        List<MessageExt> dead = new ArrayList<>();
        await(20, count + " messages in " + topic, () -> {
            dead.clear();
            dead.addAll(Pulling.everything(world, topic));
            return dead.size() >= count;
        });
        // One more look: a message that fails must not go round again.
        Thread.sleep(2_000);
        dead.clear();
        dead.addAll(Pulling.everything(world, topic));
        return dead;
    }

    private static void requireAttempts(Map<String, List<Attempt>> attempts, String topic) {
        same(30, attempts.size(), "messages seen");
        attempts.forEach((id, seen) -> {
            int expected = id.startsWith("good") ? 1 : id.startsWith("second") ? 2 : MAX_RECONSUME + 1;
            same(expected, seen.size(), "attempts at " + id);
            for (int i = 0; i < expected; i++) {
                Attempt attempt = seen.get(i);
                same(i, attempt.reconsumeTimes(), "reconsumeTimes of attempt " + i + " at " + id);
                same(topic, attempt.topic(), "topic shown at attempt " + i + " at " + id);
                same("key-" + id, attempt.keys(), "keys of " + id);
                long gap = i == 0 ? DELAY_LEVEL_1_MILLIS : attempt.millis() - seen.get(i - 1).millis();
                require(gap >= DELAY_LEVEL_1_MILLIS - 50, "attempt %d at %s came after %d ms, level 1 is 1 s", i, id, gap);
            }
        });
    }

    private static void requireDead(List<MessageExt> dead, Set<String> bad, String topic) {
        Set<String> ids = new HashSet<>();
        for (MessageExt message : dead) {
            String id = Texts.id(message);
            ids.add(id);
            same("key-" + id, message.getKeys(), "keys of dead " + id);
            same("T", message.getTags(), "tag of dead " + id);
            same(topic, message.getProperty(MessageConst.PROPERTY_RETRY_TOPIC), "RETRY_TOPIC of dead " + id);
            require(message.getProperty(MessageConst.PROPERTY_ORIGIN_MESSAGE_ID) != null, "dead %s has no ORIGIN_MESSAGE_ID", id);
        }
        Texts.sameIds(bad, ids, "dead letters");
        same(bad.size(), dead.size(), "dead letters, counted");
    }
}
