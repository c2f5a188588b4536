package interop;

import static interop.Check.require;
import static interop.World.await;

import java.util.Collections;
import java.util.HashSet;
import java.util.Set;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.producer.DefaultMQProducer;

/** A consumer that comes back goes on where its group stopped. */
final class Restart {
    private static final int THREADS = 4;
    private static final int SETTLE_MILLIS = 1_500;

    private Restart() {
    }

    /** Everything was consumed before the stop, so nothing of it may come again. */
    static String resumes(World world) throws Exception {
        String topic = world.topic(4);
        String group = world.name("g");
        DefaultMQProducer producer = world.producer();

        Received before = new Received();
        DefaultMQPushConsumer first = world.startPush(group, topic, "*", before);
        Set<String> early = new HashSet<>(Texts.send(producer, topic, "early", 500));
        await(15, "500 messages before the restart", () -> before.distinct() == 500);
        // The listener has returned for all; let the client note that before it is stopped.
        Thread.sleep(200);
        first.shutdown();
        Set<String> late = new HashSet<>(Texts.send(producer, topic, "late", 500));

        Received after = new Received();
        world.startPush(group, topic, "*", after);
        await(20, "500 messages sent while nobody listened", () -> after.ids().containsAll(late));
        Set<String> last = new HashSet<>(Texts.send(producer, topic, "last", 100));
        await(15, "100 messages after the restart", () -> after.ids().containsAll(last));
        Thread.sleep(SETTLE_MILLIS);

        Set<String> again = new HashSet<>(after.ids());
        again.retainAll(early);
        require(again.isEmpty(), "%d messages consumed and committed before the restart came again", again.size());
        Set<String> expected = new HashSet<>(late);
        expected.addAll(last);
        Texts.sameIds(expected, after.ids(), "after the restart");
        return "500 before, 600 after, none of the 500 again";
    }

    /** Stopped in the middle: nothing is lost, and only what was in work at the stop may come again. */
    static String midway(World world) throws Exception {
        String topic = world.topic(4);
        String group = world.name("g");
        int total = 2_000;
        Set<String> sent = new HashSet<>(Texts.send(world.producer(), topic, "m", total));

        Received before = new Received(1);
        DefaultMQPushConsumer first = world.pushConsumer(group);
        first.setConsumeThreadMin(THREADS);
        first.setConsumeThreadMax(THREADS);
        first.setPullThresholdForQueue(50);
        first.setAwaitTerminationMillisWhenShutdown(5_000);
        first.subscribe(topic, "*");
        first.registerMessageListener(before);
        first.start();
        await(30, "300 messages before the stop", () -> before.distinct() >= 300);
        first.shutdown();
        int consumed = before.distinct();
        require(consumed < total, "all %d were consumed before the stop, nothing to resume", total);

        Received after = new Received();
        world.startPush(group, topic, "*", after);
        await(30, "the rest", () -> {
            Set<String> both = new HashSet<>(before.ids());
            both.addAll(after.ids());
            return both.size() >= total;
        });
        Thread.sleep(SETTLE_MILLIS);
        Set<String> both = new HashSet<>(before.ids());
        both.addAll(after.ids());
        Texts.sameIds(sent, both, "before and after");
        Set<String> again = new HashSet<>(before.ids());
        again.retainAll(after.ids());
        int bound = THREADS * 32;
        require(again.size() <= bound, "%d of %d consumed messages came again, at most %d were in work", again.size(), consumed, bound);
        return String.format("%d before the stop, %d after, %d twice (bound %d)%s", consumed, after.distinct(), again.size(), bound,
            Collections.disjoint(before.ids(), after.ids()) ? ", a clean cut" : "");
    }
}
