package interop;

import static interop.Check.require;
import static interop.Check.same;
import static interop.World.await;
import static java.nio.charset.StandardCharsets.ISO_8859_1;
import static java.nio.charset.StandardCharsets.UTF_8;

import com.alibaba.fastjson2.JSON;
import com.alibaba.fastjson2.JSONArray;
import com.alibaba.fastjson2.JSONObject;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.TreeSet;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.atomic.AtomicBoolean;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.common.message.MessageQueue;

/** The versions of a pipeline follow each other while producers feed it. */
final class Upgrade {
    private static final int QUEUES = 4;
    private static final int BATCH = 16;
    /** Messages that each version has to see before the next one comes. */
    private static final long STEP = 2_000;

    private Upgrade() {
    }

    /**
     * Every version writes its number into what it passes on. Then each message is in the sink once, in its order, and bears the number
     * of the version whose range of offsets it lies in.
     */
    static String underLoad(World world) throws Exception {
        String source = world.topic(QUEUES);
        String sink = world.topic(QUEUES);
        String plugin = world.name("w").replace('_', '-');
        byte[] first = Rest.component("json-map");
        Rest.upload(plugin, first);
        // The same code as far as it goes, and another component: it says that it is a later version.
        Rest.upload(plugin, new String(first, ISO_8859_1).replace("1.0.0", "2.0.0").getBytes(ISO_8859_1));
        Pipeline pipeline = new Pipeline(world.name("l"), source, sink, plugin);
        AtomicBoolean stop = new AtomicBoolean();
        ExecutorService threads = Executors.newFixedThreadPool(QUEUES);
        List<Long> sent = new ArrayList<>();
        try {
            DefaultMQProducer producer = world.producer();
            List<Future<Long>> feeders = new ArrayList<>();
            for (MessageQueue queue : new TreeSet<>(producer.fetchPublishMessageQueues(source))) {
                feeders.add(threads.submit(() -> feed(producer, queue, stop)));
            }
            pipeline.runs(1, "1.0.0", "");
            pipeline.runs(2, "2.0.0", "");
            Rest.post(pipeline.path + ":rollback");
            pipeline.moves();
            pipeline.runs(4, "2", "/candidate?mode=canary&queues=1,2");
            Rest.post(pipeline.path + ":promote");
            pipeline.moves();
            pipeline.runs(5, "1", "/candidate?mode=shadow");
            Rest.delete(pipeline.path + "/candidate");
            pipeline.runs(6, "1", "/candidate?mode=canary&queues=3");
            Rest.delete(pipeline.path + "/candidate");
            pipeline.moves();
            stop.set(true);
            for (Future<Long> feeder : feeders) {
                sent.add(feeder.get());
            }
        } finally {
            stop.set(true);
            threads.shutdown();
        }
        long total = sent.stream().mapToLong(Long::longValue).sum();
        await(30, "the pipeline's end", () -> pipeline.position() == total);
        return judge(world, pipeline, sink, sent);
    }

    private static String judge(World world, Pipeline pipeline, String sink, List<Long> sent) throws Exception {
        Map<String, Integer> versions = pipeline.versions(sent);
        Map<Integer, Long> next = new HashMap<>();
        TreeSet<Integer> seen = new TreeSet<>();
        long total = 0;
        for (MessageExt message : Pulling.everything(world, sink)) {
            JSONObject body = JSON.parseObject(new String(message.getBody(), UTF_8));
            int queue = message.getQueueId();
            long number = next.merge(queue, 1L, Long::sum) - 1;
            same(number, body.getLong("n"), "number " + number + " in queue " + queue + " of the sink");
            same(versions.get(queue + "/" + number), body.getInteger("v"), "the version of offset " + number + " of queue " + queue);
            seen.add(body.getInteger("v"));
            total++;
        }
        for (int queue = 0; queue < QUEUES; queue++) {
            same(sent.get(queue), next.get(queue), "messages in queue " + queue + " of the sink");
        }
        same(new TreeSet<>(List.of(1, 2, 4, 6)), seen, "versions that wrote something");
        return total + " messages through 4 versions, each once, in order, and by the version of its offset";
    }

    /** Numbers the messages of a queue; gives how many there are. */
    private static long feed(DefaultMQProducer producer, MessageQueue queue, AtomicBoolean stop) throws Exception {
        long next = 0;
        while (!stop.get()) {
            List<Message> batch = new ArrayList<>(BATCH);
            for (int i = 0; i < BATCH; i++) {
                batch.add(new Message(queue.getTopic(), ("{\"n\":" + next++ + "}").getBytes(UTF_8)));
            }
            Texts.ok(producer.send(batch, queue));
        }
        return next;
    }

    /** The pipeline, as REST has it. */
    private static final class Pipeline {
        private final String name;
        private final String source;
        private final String sink;
        private final String plugin;
        private final String path;

        Pipeline(String name, String source, String sink, String plugin) {
            this.name = name;
            this.source = source;
            this.sink = sink;
            this.plugin = plugin;
            this.path = "/pipelines/" + name;
        }

        /** Puts a version there, which writes its number, and waits until it had something to do. */
        void runs(int number, String version, String where) throws Exception {
            Rest.put(path + where, String.format(
                "{\"name\": \"%s\", \"source\": {\"topic\": \"%s\", \"start\": \"earliest\"}, \"sinks\": [\"%s\"],"
                    + " \"steps\": [{\"plugin\": \"%s@%s\", \"config\": {\"set\": {\"/v\": %d}}}]}",
                name, source, sink, plugin, version, number));
            moves();
        }

        void moves() throws Exception {
            long from = position();
            await(30, "more messages through the pipeline", () -> position() >= from + STEP);
        }

        /** Records of all queues that were done with. */
        long position() {
            try {
                JSONObject all = JSON.parseObject(Rest.get(path));
                require("running".equals(all.getString("state")), "it does not run: %s", all);
                return all.getJSONArray("queues").stream().mapToLong(queue -> ((JSONObject) queue).getLong("position")).sum();
            } catch (java.io.IOException | InterruptedException lost) {
                throw new Check.Failed("REST does not answer: " + lost);
            }
        }

        /** By queue and offset, the number that the version writes which ran there. */
        Map<String, Integer> versions(List<Long> ends) throws Exception {
            Map<String, Integer> versions = new HashMap<>();
            JSONArray revisions = JSON.parseObject(Rest.get(path + "/revisions")).getJSONArray("items");
            // The live versions from the oldest on, and then the canaries, which ran in the place of one.
            for (String tried : List.of("", "tried")) {
                for (int at = revisions.size() - 1; at >= 0; at--) {
                    JSONObject revision = revisions.getJSONObject(at);
                    if ("tried".equals(revision.getString("reason")) == tried.isEmpty()) {
                        continue;
                    }
                    JSONObject config = revision.getJSONObject("spec").getJSONArray("steps").getJSONObject(0).getJSONObject("config");
                    int number = config.getJSONObject("set").getIntValue("/v");
                    for (String queue : revision.getJSONObject("from").keySet()) {
                        Long until = revision.getJSONObject("until").getLong(queue);
                        long end = until == null ? ends.get(Integer.parseInt(queue)) : until;
                        for (long offset = revision.getJSONObject("from").getLongValue(queue); offset < end; offset++) {
                            versions.put(queue + "/" + offset, number);
                        }
                    }
                }
            }
            return versions;
        }
    }
}
