package interop;

import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicLong;
import java.util.function.Consumer;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import org.apache.rocketmq.client.consumer.DefaultMQPullConsumer;
import org.apache.rocketmq.client.consumer.PullResult;
import org.apache.rocketmq.client.consumer.PullStatus;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.common.message.MessageQueue;

/**
 * Feeds a stateful pipeline, and judges its sinks: {@code produce} sends sales until the standard input ends; {@code judge} compares
 * every sink with what the source says it must hold, and with the sink of the same pipeline that was never killed.
 */
@SuppressWarnings("deprecation")
public final class ExactlyOnce {
    private static final String SOURCE = "eo_sales";
    /** Sinks of the pipelines that are killed, and of those that are not. */
    private static final String[][] SINKS = {{"eo_even", "eo_odd", "eo_windows"}, {"ref_even", "ref_odd", "ref_windows"}};
    /** Those of which the source says what they hold; what the windows hold is in the times of the sales as well. */
    private static final int TOTALS = 2;
    /** More than the pipelines have memory for. */
    private static final int CUSTOMERS = 8_000;
    private static final int THREADS = 4;
    private static final int LEAST = 1_000;
    private static final int BATCH = 32;
    private static final Pattern SALE =
        Pattern.compile("\\{\"customer\":\"c(\\d+)\",\"status\":\"(\\w+)\",\"amount\":(\\d+)}");

    private ExactlyOnce() {
    }

    public static void main(String[] args) throws Exception {
        boolean fine = switch (args.length == 1 ? args[0] : "") {
            case "produce" -> produce();
            case "judge" -> judge();
            default -> throw new IllegalArgumentException("expected produce or judge");
        };
        // The client's own threads would keep this process alive.
        System.exit(fine ? 0 : 1);
    }

    private static boolean produce() throws Exception {
        AtomicBoolean stop = new AtomicBoolean();
        AtomicLong sent = new AtomicLong();
        DefaultMQProducer producer = new DefaultMQProducer("eo_producer");
        producer.setNamesrvAddr(World.NAMESRV);
        producer.setRetryTimesWhenSendFailed(0);
        producer.setSendMsgTimeout(1_000);
        producer.setPollNameServerInterval(1_000);
        producer.start();
        List<Thread> threads = new ArrayList<>();
        for (int number = 0; number < THREADS; number++) {
            long seed = number;
            Thread thread = new Thread(() -> sell(producer, seed, stop, sent));
            thread.start();
            threads.add(thread);
        }
        while (System.in.read() >= 0) {
            // Until it ends.
        }
        stop.set(true);
        for (Thread thread : threads) {
            thread.join();
        }
        System.out.println(sent.get());
        return true;
    }

    /** A sale whose send failed may be stored or not: the pipeline's source decides what was sold, not who sold it. */
    private static void sell(DefaultMQProducer producer, long seed, AtomicBoolean stop, AtomicLong sent) {
        java.util.Random random = new java.util.Random(seed);
        while (!stop.get()) {
            int customer = random.nextInt(CUSTOMERS);
            String status = random.nextInt(4) == 0 ? "open" : "paid";
            String body = "{\"customer\":\"c" + customer + "\",\"status\":\"" + status + "\",\"amount\":" + random.nextInt(100) + "}";
            Message sale = new Message(SOURCE, body.getBytes(StandardCharsets.UTF_8));
            sale.putUserProperty("side", customer % 2 == 0 ? "even" : "odd");
            try {
                producer.send(sale, (queues, message, of) -> queues.get((Integer) of % queues.size()), customer);
                sent.incrementAndGet();
            } catch (Exception down) {
                try {
                    Thread.sleep(20);
                } catch (InterruptedException stopped) {
                    return;
                }
            }
        }
    }

    private static boolean judge() throws Exception {
        DefaultMQPullConsumer reader = new DefaultMQPullConsumer("eo_judge");
        reader.setNamesrvAddr(World.NAMESRV);
        reader.start();
        Map<String, List<String>> expected = expected(reader);
        int problems = 0;
        long outputs = 0;
        long inWindows = 0;
        for (int sink = 0; sink < SINKS[0].length; sink++) {
            boolean ofRecords = sink < TOTALS;
            Map<Integer, MessageQueue> reference = queues(reader, SINKS[1][sink]);
            for (Map.Entry<Integer, MessageQueue> killed : queues(reader, SINKS[0][sink]).entrySet()) {
                List<String> got = new ArrayList<>();
                List<String> bodies = new ArrayList<>();
                read(reader, killed.getValue(), message -> {
                    got.add(whole(message, ofRecords));
                    bodies.add(body(message));
                });
                List<String> other = new ArrayList<>();
                read(reader, reference.get(killed.getKey()), message -> other.add(whole(message, ofRecords)));
                String where = SINKS[0][sink] + " queue " + killed.getKey();
                problems += differ(where + ", beside the reference run", got, other);
                if (ofRecords) {
                    problems += differ(where + ", beside what the source says", bodies,
                        expected.getOrDefault(SINKS[0][sink] + "/" + killed.getKey(), List.of()));
                }
                outputs += got.size();
                inWindows += ofRecords ? 0 : got.size();
            }
        }
        if (inWindows == 0) {
            System.out.println("FAIL exactly-once: no window was closed");
            return false;
        }
        if (outputs < LEAST) {
            System.out.println("FAIL exactly-once: " + outputs + " outputs say nothing, at least " + LEAST + " were expected");
            return false;
        }
        if (problems == 0) {
            System.out.println("PASS exactly-once: " + outputs
                + " outputs in " + SINKS[0].length + " sinks are byte for byte those of the reference run, and what the source says");
        }
        return problems == 0;
    }

    private static int differ(String what, List<String> got, List<String> wanted) {
        if (got.equals(wanted)) {
            return 0;
        }
        int at = 0;
        while (at < got.size() && at < wanted.size() && got.get(at).equals(wanted.get(at))) {
            at++;
        }
        System.out.println("FAIL " + what + ": " + got.size() + " messages, expected " + wanted.size() + "; number " + at + " is "
            + (at < got.size() ? got.get(at) : "missing") + ", expected " + (at < wanted.size() ? wanted.get(at) : "none"));
        return 1;
    }

    /** What each queue of each sink must hold: paid sales only, with the customer's count and sum so far. */
    private static Map<String, List<String>> expected(DefaultMQPullConsumer reader) throws Exception {
        Map<String, List<String>> expected = new HashMap<>();
        for (Map.Entry<Integer, MessageQueue> queue : queues(reader, SOURCE).entrySet()) {
            Map<Integer, long[]> totals = new HashMap<>();
            read(reader, queue.getValue(), message -> {
                Matcher sale = SALE.matcher(body(message));
                if (!sale.matches()) {
                    throw new IllegalStateException("the source holds " + body(message));
                }
                if (!sale.group(2).equals("paid")) {
                    return;
                }
                int customer = Integer.parseInt(sale.group(1));
                long[] total = totals.computeIfAbsent(customer, none -> new long[2]);
                total[0]++;
                total[1] += Long.parseLong(sale.group(3));
                expected.computeIfAbsent(SINKS[0][customer % 2] + "/" + queue.getKey(), none -> new ArrayList<>())
                    .add("{\"count\":" + total[0] + ",\"key\":\"c" + customer + "\",\"sum\":" + total[1] + "}");
            });
        }
        return expected;
    }

    private static Map<Integer, MessageQueue> queues(DefaultMQPullConsumer reader, String topic) throws Exception {
        Map<Integer, MessageQueue> queues = new TreeMap<>();
        for (MessageQueue queue : reader.fetchSubscribeMessageQueues(topic)) {
            queues.put(queue.getQueueId(), queue);
        }
        return queues;
    }

    /** All messages of a queue, none of them kept: there may be a million. */
    private static void read(DefaultMQPullConsumer reader, MessageQueue queue, Consumer<MessageExt> each) throws Exception {
        long end = reader.maxOffset(queue);
        long at = 0;
        long read = 0;
        while (at < end) {
            PullResult pulled = reader.pull(queue, "*", at, BATCH);
            if (pulled.getPullStatus() == PullStatus.FOUND) {
                pulled.getMsgFoundList().forEach(each);
                read += pulled.getMsgFoundList().size();
            }
            at = pulled.getNextBeginOffset();
        }
        if (read != end) {
            throw new IOException(queue + " holds " + read + " of " + end);
        }
    }

    private static String body(MessageExt message) {
        return new String(message.getBody(), StandardCharsets.UTF_8);
    }

    /** Body, key, tag, born time and all properties that the pipeline passes on; a message that is of no single record has an id of its own. */
    private static String whole(MessageExt message, boolean ofRecord) {
        Map<String, String> properties = new TreeMap<>(message.getProperties());
        // What is said of the queue, and of the record's place in the log: which unit it is a part of, and its checksum.
        properties.keySet().removeAll(List.of("MIN_OFFSET", "MAX_OFFSET", "SLUICE_UNIT", "__CRC32#"));
        if (!ofRecord) {
            properties.remove("UNIQ_KEY");
        }
        return body(message) + " " + message.getBornTimestamp() + " " + properties;
    }
}
