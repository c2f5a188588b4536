package interop;

import static interop.Check.same;
import static interop.World.await;

import java.util.HashSet;
import java.util.Set;
import org.apache.rocketmq.client.consumer.DefaultLitePullConsumer;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.MessageSelector;
import org.apache.rocketmq.client.exception.MQClientException;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.remoting.protocol.ResponseCode;

/** Subscriptions that want only some of the messages. */
final class Filtering {
    private static final int TOTAL = 600;
    /** Long enough for a message that should not come to come. */
    private static final int SETTLE_MILLIS = 1_500;
    private static final String CONDITION =
        "amount BETWEEN 20 AND 40 AND region IN ('eu', 'us') AND note IS NULL OR TAGS = 'always'";

    private Filtering() {
    }

    static String tags(World world) throws Exception {
        String topic = world.topic(4);
        Received some = new Received();
        Received all = new Received();
        world.startPush(world.name("g"), topic, "A || C || Aa", some);
        world.startPush(world.name("g"), topic, "*", all);
        DefaultMQProducer producer = world.producer();
        Set<String> wanted = new HashSet<>();
        for (int i = 0; i < TOTAL; i++) {
            // "Aa" and "BB" have the same Java hash: a filter that compares hashes only would let BB pass.
            String tag = new String[] {"A", "B", "C", null, "Aa", "BB"}[i % 6];
            String id = tag + "-" + i;
            Message message = Texts.make(topic, id);
            if (tag != null) {
                message.setTags(tag);
            }
            Texts.ok(producer.send(message));
            if (i % 6 == 0 || i % 6 == 2 || i % 6 == 4) {
                wanted.add(id);
            }
        }
        await(15, "all messages at the consumer of *", () -> all.distinct() == TOTAL);
        await(15, wanted.size() + " messages tagged A, C or Aa", () -> some.distinct() >= wanted.size());
        Thread.sleep(SETTLE_MILLIS);
        Texts.sameIds(wanted, some.ids(), "A || C || Aa");
        same(0, some.repeats(), "repeats");
        return String.format("%d of %d matched \"A || C || Aa\", no other came", wanted.size(), TOTAL);
    }

    static String sql92(World world) throws Exception {
        String topic = world.topic(4);
        Received received = new Received();
        DefaultMQPushConsumer consumer = world.pushConsumer(world.name("g"));
        consumer.subscribe(topic, MessageSelector.bySql(CONDITION));
        consumer.registerMessageListener(received);
        consumer.start();
        DefaultMQProducer producer = world.producer();
        Set<String> wanted = new HashSet<>();
        for (int i = 0; i < TOTAL; i++) {
            int amount = i % 100;
            String region = new String[] {"eu", "us", "asia"}[i % 3];
            String id = "s-" + i;
            Message message = Texts.make(topic, id);
            if (amount == 99) {
                // No number: the whole condition fails, though its last part would hold.
                message.putUserProperty("amount", "many");
            } else if (amount != 49) {
                message.putUserProperty("amount", Integer.toString(amount));
            }
            message.putUserProperty("region", region);
            if (i % 2 == 0) {
                message.putUserProperty("note", "even");
            }
            if (i % 50 == 49) {
                message.setTags("always");
            }
            Texts.ok(producer.send(message));
            if (amount >= 20 && amount <= 40 && !region.equals("asia") && i % 2 == 1 || amount == 49) {
                wanted.add(id);
            }
        }
        await(15, wanted.size() + " messages that match", () -> received.distinct() >= wanted.size());
        Thread.sleep(SETTLE_MILLIS);
        Texts.sameIds(wanted, received.ids(), "SQL92");

        // A client that says with every pull what it wants.
        DefaultLitePullConsumer polling = world.litePullConsumer(world.name("g"));
        polling.subscribe(topic, MessageSelector.bySql(CONDITION));
        polling.start();
        Received polled = new Received();
        await(20, wanted.size() + " polled messages that match", () -> {
            polled.take(polling.poll(200));
            return polled.distinct() >= wanted.size();
        });
        polled.take(polling.poll(SETTLE_MILLIS));
        Texts.sameIds(wanted, polled.ids(), "SQL92, polled");

        for (String wrong : new String[] {"amount BETWEEN 20 AND", "amount > 'many'", "region = NULL", "amount = 0.0"}) {
            DefaultMQPushConsumer refused = world.pushConsumer(world.name("g"));
            refused.subscribe(topic, MessageSelector.bySql(wrong));
            refused.registerMessageListener(new Received());
            int code = 0;
            try {
                refused.start();
            } catch (MQClientException error) {
                code = error.getResponseCode();
            }
            same(ResponseCode.SUBSCRIPTION_PARSE_FAILED, code, "code for " + wrong);
        }
        return String.format("%d of %d matched, pushed and polled, no other came; 4 wrong conditions refused", wanted.size(), TOTAL);
    }
}
