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
        TransactionMQProducer producer = world.transactionProducer(decider);
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
}
