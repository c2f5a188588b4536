package interop;

import java.util.ArrayDeque;
import java.util.Deque;
import java.util.HashSet;
import java.util.Set;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import org.apache.rocketmq.client.consumer.DefaultLitePullConsumer;
import org.apache.rocketmq.client.consumer.DefaultMQPullConsumer;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.TransactionListener;
import org.apache.rocketmq.client.producer.TransactionMQProducer;
import org.apache.rocketmq.common.TopicConfig;
import org.apache.rocketmq.common.consumer.ConsumeFromWhere;
import org.apache.rocketmq.remoting.protocol.body.ClusterInfo;
import org.apache.rocketmq.remoting.protocol.route.BrokerData;
import org.apache.rocketmq.tools.admin.DefaultMQAdminExt;

/** What one check owns at the broker: fresh names, and clients that end with the check. */
final class World implements AutoCloseable {
    static final String NAMESRV = System.getenv().getOrDefault("NAMESRV_ADDR", "127.0.0.1:9876");
    private static final String RUN = Long.toString(System.currentTimeMillis() & 0xFFFFFFFL, 36) + "_" + ProcessHandle.current().pid();
    private static final AtomicInteger SERIAL = new AtomicInteger();
    private static final int CLOSE_SECONDS = 20;
    private static final int CLIENT_INTERVAL_MILLIS = 1_000;

    private final String check;
    private final Deque<Runnable> closers = new ArrayDeque<>();
    private DefaultMQAdminExt admin;
    private boolean closed;

    World(String check) {
        this.check = check;
    }

    /** A name nobody used before, fit for topics, groups and instances. */
    String name(String kind) {
        return "it_" + check.replace('-', '_') + "_" + kind + "_" + RUN + "_" + SERIAL.incrementAndGet();
    }

    /** Creates a topic on the first master and waits until the name server routes it. */
    String topic(int queues) throws Exception {
        String topic = name("t");
        admin().createAndUpdateTopicConfig(brokerAddress(), new TopicConfig(topic, queues, queues));
        awaitRoute(topic);
        return topic;
    }

    void awaitRoute(String topic) throws Exception {
        await(15, "a route for " + topic, () -> {
            try {
                return !admin().examineTopicRouteInfo(topic).getQueueDatas().isEmpty();
            } catch (Exception notYet) {
                return false;
            }
        });
    }

    String brokerAddress() throws Exception {
        ClusterInfo cluster = admin().examineBrokerClusterInfo();
        for (BrokerData broker : cluster.getBrokerAddrTable().values()) {
            String master = broker.getBrokerAddrs().get(0L);
            if (master != null) {
                return master;
            }
        }
        throw new Check.Failed("the name server at " + NAMESRV + " knows no master broker");
    }

    synchronized DefaultMQAdminExt admin() throws Exception {
        if (admin == null) {
            DefaultMQAdminExt made = new DefaultMQAdminExt(10_000);
            made.setNamesrvAddr(NAMESRV);
            made.setInstanceName(name("admin"));
            made.start();
            onClose(made::shutdown);
            admin = made;
        }
        return admin;
    }

    DefaultMQProducer producer() throws Exception {
        return start(new DefaultMQProducer(name("p")));
    }

    /** A producer that records what it sends in the trace topic. */
    DefaultMQProducer tracedProducer() throws Exception {
        return start(new DefaultMQProducer(name("p"), true, null));
    }

    private DefaultMQProducer start(DefaultMQProducer producer) throws Exception {
        producer.setNamesrvAddr(NAMESRV);
        producer.setInstanceName(name("producer"));
        producer.setSendMsgTimeout(5_000);
        producer.start();
        onClose(producer::shutdown);
        return producer;
    }

    TransactionMQProducer transactionProducer(String group, TransactionListener listener) throws Exception {
        TransactionMQProducer producer = new TransactionMQProducer(group);
        producer.setNamesrvAddr(NAMESRV);
        producer.setInstanceName(name("producer"));
        producer.setTransactionListener(listener);
        producer.start();
        onClose(producer::shutdown);
        return producer;
    }

    /**
     * Not yet started: the check subscribes, sets its listener and starts it.
     *
     * <p>The two intervals are the client's own settings, 30 s unless set. With 30 s a new group may wait that long for
     * the route of its retry topic, and for a heartbeat that its rebalance dropped because another one was under way.
     */
    DefaultMQPushConsumer pushConsumer(String group) {
        DefaultMQPushConsumer consumer = new DefaultMQPushConsumer(group);
        consumer.setNamesrvAddr(NAMESRV);
        consumer.setInstanceName(name("consumer"));
        consumer.setConsumeFromWhere(ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET);
        consumer.setPollNameServerInterval(CLIENT_INTERVAL_MILLIS);
        consumer.setHeartbeatBrokerInterval(CLIENT_INTERVAL_MILLIS);
        onClose(consumer::shutdown);
        return consumer;
    }

    DefaultMQPushConsumer startPush(String group, String topic, String tags, Received received) throws Exception {
        DefaultMQPushConsumer consumer = pushConsumer(group);
        consumer.subscribe(topic, tags);
        consumer.registerMessageListener(received);
        consumer.start();
        return consumer;
    }

    /** Not yet started. */
    DefaultLitePullConsumer litePullConsumer(String group) {
        DefaultLitePullConsumer consumer = new DefaultLitePullConsumer(group);
        consumer.setNamesrvAddr(NAMESRV);
        consumer.setInstanceName(name("consumer"));
        consumer.setConsumeFromWhere(ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET);
        onClose(consumer::shutdown);
        return consumer;
    }

    @SuppressWarnings("deprecation")
    DefaultMQPullConsumer pullConsumer(String group) throws Exception {
        DefaultMQPullConsumer consumer = new DefaultMQPullConsumer(group);
        consumer.setNamesrvAddr(NAMESRV);
        consumer.setInstanceName(name("consumer"));
        consumer.start();
        onClose(consumer::shutdown);
        return consumer;
    }

    /** The queue ids of the topic that this push consumer holds now. */
    static Set<Integer> held(DefaultMQPushConsumer consumer, String topic) {
        Set<Integer> ids = new HashSet<>();
        consumer.getDefaultMQPushConsumerImpl().getRebalanceImpl().getProcessQueueTable().keySet().forEach(queue -> {
            if (queue.getTopic().equals(topic)) {
                ids.add(queue.getQueueId());
            }
        });
        return ids;
    }

    interface Condition {
        boolean holds() throws Exception;
    }

    static void await(double seconds, String what, Condition condition) throws Exception {
        long deadline = System.nanoTime() + (long) (seconds * 1e9);
        while (!condition.holds()) {
            Check.require(System.nanoTime() < deadline, "waited %.0f s for %s", seconds, what);
            Thread.sleep(20);
        }
    }

    synchronized void onClose(Runnable closer) {
        Check.require(!closed, "the check is over");
        closers.push(closer);
    }

    /** Ends every client, newest first, in bounded time. */
    @Override
    public void close() {
        synchronized (this) {
            closed = true;
        }
        CountDownLatch done = new CountDownLatch(1);
        Thread thread = new Thread(() -> {
            for (Runnable closer : closers) {
                try {
                    closer.run();
                } catch (RuntimeException ignored) {
                    // A client that does not end cleanly is not what the check is about.
                }
            }
            done.countDown();
        }, "close-" + check);
        thread.setDaemon(true);
        thread.start();
        try {
            if (!done.await(CLOSE_SECONDS, TimeUnit.SECONDS)) {
                System.out.println("note " + check + ": its clients did not end within " + CLOSE_SECONDS + " s");
            }
        } catch (InterruptedException stopped) {
            Thread.currentThread().interrupt();
        }
    }
}
