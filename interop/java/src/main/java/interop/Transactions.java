package interop;

import static interop.Check.require;
import static interop.Check.same;
import static interop.World.await;

import java.util.HashSet;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import org.apache.rocketmq.client.producer.LocalTransactionState;
import org.apache.rocketmq.client.producer.TransactionListener;
import org.apache.rocketmq.client.producer.TransactionMQProducer;
import org.apache.rocketmq.client.producer.TransactionSendResult;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageConst;
import org.apache.rocketmq.common.message.MessageExt;

/** Half messages: committed ones are seen, rolled back ones never, undecided ones are asked about. */
final class Transactions {
    private static final int EACH = 8;
    /** Fits a broker with RocketMQ's own defaults: asked when 6 s old, in rounds of 30 s. */
    private static final int CHECK_SECONDS = 90;

    private Transactions() {
    }

    /** Decides by the first word of the id, first at the send and then when asked. */
    private static final class Decider implements TransactionListener {
        private final Map<String, Integer> asked = new ConcurrentHashMap<>();
        private final Set<String> wrong = ConcurrentHashMap.newKeySet();

        @Override
        public LocalTransactionState executeLocalTransaction(Message message, Object argument) {
            if (message.getTransactionId() == null) {
                wrong.add("a half message was sent without a transaction id");
            }
            return switch (argument.toString()) {
                case "commit" -> LocalTransactionState.COMMIT_MESSAGE;
                case "rollback" -> LocalTransactionState.ROLLBACK_MESSAGE;
                default -> LocalTransactionState.UNKNOW;
            };
        }

        @Override
        public LocalTransactionState checkLocalTransaction(MessageExt message) {
            String id = Texts.id(message);
            int times = asked.merge(id, 1, Integer::sum);
            if (id.startsWith("later_commit")) {
                return LocalTransactionState.COMMIT_MESSAGE;
            }
            if (id.startsWith("later_rollback")) {
                return LocalTransactionState.ROLLBACK_MESSAGE;
            }
            if (id.startsWith("twice_commit")) {
                return times < 2 ? LocalTransactionState.UNKNOW : LocalTransactionState.COMMIT_MESSAGE;
            }
            wrong.add("asked about " + id + ", which was decided");
            return LocalTransactionState.UNKNOW;
        }
    }

    static String decisions(World world) throws Exception {
        String topic = world.topic(4);
        Received received = new Received();
        world.startPush(world.name("g"), topic, "*", received);
        Decider decider = new Decider();
        TransactionMQProducer producer = world.transactionProducer(world.name("p"), decider);
        Set<String> atOnce = new HashSet<>();
        Set<String> visible = new HashSet<>();
        Set<String> undecided = new HashSet<>();
        long start = System.nanoTime();
        for (int i = 0; i < EACH; i++) {
            for (String kind : new String[] {"commit", "rollback", "later_commit", "later_rollback", "twice_commit"}) {
                String id = kind + "-" + i;
                TransactionSendResult result = producer.sendMessageInTransaction(Texts.make(topic, id), kind);
                Texts.ok(result);
                if (kind.equals("commit")) {
                    atOnce.add(id);
                }
                if (kind.endsWith("commit")) {
                    visible.add(id);
                }
                if (kind.contains("_")) {
                    undecided.add(id);
                }
            }
        }
        await(15, EACH + " committed messages", () -> received.ids().containsAll(atOnce));
        await(CHECK_SECONDS, "the producer to be asked about every undecided message",
            () -> decider.asked.keySet().containsAll(undecided));
        await(CHECK_SECONDS, "all committed messages", () -> received.ids().containsAll(visible));
        double seconds = (System.nanoTime() - start) / 1e9;
        Thread.sleep(2_500);
        Texts.sameIds(visible, received.ids(), "visible messages");
        same(0, received.repeats(), "messages seen twice");
        require(decider.wrong.isEmpty(), "%s", decider.wrong);
        Texts.sameIds(undecided, decider.asked.keySet(), "messages asked about");
        received.arrivals().forEach(arrival -> same(topic, arrival.message().getTopic(), "topic of a committed message"));
        int asked = decider.asked.values().stream().mapToInt(Integer::intValue).sum();
        return String.format("%d half messages: %d visible, %d rolled back, %d questions about %d undecided, settled in %.1f s",
            5 * EACH, visible.size(), 2 * EACH, asked, undecided.size(), seconds);
    }

    /** A message may say how long nobody is to ask about it. */
    static String immunity(World world) throws Exception {
        int seconds = 12;
        String topic = world.topic(1);
        Received received = new Received();
        world.startPush(world.name("g"), topic, "*", received);
        Map<String, Long> askedAt = new ConcurrentHashMap<>();
        TransactionMQProducer producer = world.transactionProducer(world.name("p"), undecided(askedAt));
        Message immune = Texts.make(topic, "immune");
        immune.putUserProperty(MessageConst.PROPERTY_CHECK_IMMUNITY_TIME_IN_SECONDS, Integer.toString(seconds));
        long sent = System.currentTimeMillis();
        Texts.ok(producer.sendMessageInTransaction(immune, null));
        Texts.ok(producer.sendMessageInTransaction(Texts.make(topic, "plain"), null));
        await(CHECK_SECONDS, "questions about both messages", () -> askedAt.size() == 2);
        long plain = askedAt.get("plain") - sent;
        long late = askedAt.get("immune") - sent;
        require(late >= seconds * 1_000L, "asked about the immune message after %d ms, its time is %d s", late, seconds);
        await(15, "both messages, committed when asked about", () -> received.distinct() == 2);
        return String.format("asked about one after %.1f s, about the other, immune for %d s, after %.1f s", plain / 1e3, seconds, late / 1e3);
    }

    /** The producer that sent a half message is gone: another one of its group is asked. */
    static String otherProducer(World world) throws Exception {
        String topic = world.topic(1);
        String group = world.name("p");
        Received received = new Received();
        world.startPush(world.name("g"), topic, "*", received);
        Map<String, Long> gone = new ConcurrentHashMap<>();
        Map<String, Long> asked = new ConcurrentHashMap<>();
        TransactionMQProducer first = world.transactionProducer(group, undecided(gone));
        TransactionMQProducer second = world.transactionProducer(group, undecided(asked));
        // A producer is known to a broker by its heartbeat, which goes out when it first sends.
        Texts.ok(second.send(Texts.make(topic, "hello")));
        for (int i = 0; i < EACH; i++) {
            Texts.ok(first.sendMessageInTransaction(Texts.make(topic, "half-" + i), null));
        }
        first.shutdown();
        await(CHECK_SECONDS, "the other producer to be asked about " + EACH + " messages", () -> asked.size() == EACH);
        await(15, EACH + " committed messages", () -> received.distinct() == EACH + 1);
        same(Map.of(), gone, "questions to the producer that is gone");
        return EACH + " half messages of a producer that is gone: another one of its group was asked, and committed them";
    }

    /** Decides nothing at the send and commits when asked; keeps when that was. */
    private static TransactionListener undecided(Map<String, Long> askedAt) {
        return new TransactionListener() {
            @Override
            public LocalTransactionState executeLocalTransaction(Message message, Object argument) {
                return LocalTransactionState.UNKNOW;
            }

            @Override
            public LocalTransactionState checkLocalTransaction(MessageExt message) {
                askedAt.putIfAbsent(Texts.id(message), System.currentTimeMillis());
                return LocalTransactionState.COMMIT_MESSAGE;
            }
        };
    }
}
