package interop.survive;

import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.atomic.AtomicInteger;
import org.apache.rocketmq.client.consumer.DefaultMQPullConsumer;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.PullResult;
import org.apache.rocketmq.client.consumer.PullStatus;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.TransactionListener;
import org.apache.rocketmq.client.producer.TransactionMQProducer;
import org.apache.rocketmq.common.TopicConfig;
import org.apache.rocketmq.common.consumer.ConsumeFromWhere;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.common.message.MessageQueue;
import org.apache.rocketmq.remoting.RPCHook;
import org.apache.rocketmq.tools.admin.DefaultMQAdminExt;

/** Official clients that find a broker again soon after it was killed. */
@SuppressWarnings("deprecation")
final class Clients {
    private static final String NAMESRV = System.getenv("NAMESRV_ADDR");
    /** Heartbeats, routes and offsets: the client's own settings, 30 s and 5 s unless set. */
    private static final int INTERVAL_MILLIS = 1_000;
    private static final int OFFSETS_MILLIS = 500;
    /** After a pull or pop that failed; 3 s unless set. */
    private static final int AGAIN_MILLIS = 200;
    private static final int TIMEOUT_MILLIS = 3_000;
    private static final int ADMIN_TIMEOUT_MILLIS = 10_000;
    private static final int THREADS = 4;
    private static final int ROUTE_SECONDS = 30;
    private static final int BATCH = 32;

    private final AtomicInteger serial = new AtomicInteger();
    private final DefaultMQAdminExt admin = new DefaultMQAdminExt(ADMIN_TIMEOUT_MILLIS);
    private final DefaultMQPullConsumer reader = new DefaultMQPullConsumer("survive_reader");

    void start() throws Exception {
        admin.setNamesrvAddr(NAMESRV);
        admin.setInstanceName(instance());
        admin.start();
        reader.setNamesrvAddr(NAMESRV);
        reader.setInstanceName(instance());
        reader.start();
    }

    DefaultMQAdminExt admin() {
        return admin;
    }

    private String instance() {
        return "survive-" + serial.incrementAndGet();
    }

    String brokerAddress() throws Exception {
        return admin.examineBrokerClusterInfo().getBrokerAddrTable().values().iterator().next().getBrokerAddrs().get(0L);
    }

    /** Makes a topic; it has a route when this returns. */
    void topic(String topic, int queues) throws Exception {
        long deadline = System.nanoTime() + ROUTE_SECONDS * 1_000_000_000L;
        while (true) {
            try {
                admin.createAndUpdateTopicConfig(brokerAddress(), new TopicConfig(topic, queues, queues));
                admin.examineTopicRouteInfo(topic);
                return;
            } catch (Exception notYet) {
                if (System.nanoTime() > deadline) {
                    throw notYet;
                }
                Thread.sleep(INTERVAL_MILLIS / 10);
            }
        }
    }

    /** Sends each message once: when a send fails, nobody knows whether the message is stored. */
    DefaultMQProducer producer(String group) throws Exception {
        return started(new DefaultMQProducer(group));
    }

    TransactionMQProducer transactionProducer(String group, TransactionListener listener) throws Exception {
        TransactionMQProducer producer = new TransactionMQProducer(group);
        producer.setTransactionListener(listener);
        return started(producer);
    }

    private <P extends DefaultMQProducer> P started(P producer) throws Exception {
        producer.setNamesrvAddr(NAMESRV);
        producer.setInstanceName(instance());
        producer.setPollNameServerInterval(INTERVAL_MILLIS);
        producer.setHeartbeatBrokerInterval(INTERVAL_MILLIS);
        producer.setRetryTimesWhenSendFailed(0);
        producer.setSendMsgTimeout(TIMEOUT_MILLIS);
        producer.start();
        return producer;
    }

    /** Not yet started; subscribe, set a listener, and give it to {@link #start(DefaultMQPushConsumer)}. */
    DefaultMQPushConsumer consumer(String group, RPCHook hook) {
        DefaultMQPushConsumer consumer = new DefaultMQPushConsumer(group, hook);
        consumer.setNamesrvAddr(NAMESRV);
        consumer.setInstanceName(instance());
        consumer.setConsumeFromWhere(ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET);
        consumer.setPollNameServerInterval(INTERVAL_MILLIS);
        consumer.setHeartbeatBrokerInterval(INTERVAL_MILLIS);
        consumer.setPersistConsumerOffsetInterval(OFFSETS_MILLIS);
        consumer.setConsumeThreadMin(THREADS);
        consumer.setConsumeThreadMax(THREADS);
        return consumer;
    }

    DefaultMQPushConsumer consumer(String group) {
        return consumer(group, null);
    }

    void start(DefaultMQPushConsumer consumer) throws Exception {
        consumer.getDefaultMQPushConsumerImpl().setPullTimeDelayMillsWhenException(AGAIN_MILLIS);
        consumer.start();
    }

    /** The log of a topic, queue by queue; its offsets must be dense. */
    List<MessageExt> log(String topic) throws Exception {
        List<MessageExt> messages = new ArrayList<>();
        for (MessageQueue queue : reader.fetchSubscribeMessageQueues(topic)) {
            long next = 0;
            long end = reader.maxOffset(queue);
            while (next < end) {
                PullResult result = reader.pull(queue, "*", next, BATCH);
                if (result.getPullStatus() != PullStatus.FOUND) {
                    throw new IllegalStateException("a pull at " + next + " of " + queue + ", which ends at " + end + ", gave " + result);
                }
                for (MessageExt message : result.getMsgFoundList()) {
                    if (message.getQueueOffset() != next) {
                        throw new IllegalStateException("at " + next + " of " + queue + " stands " + message);
                    }
                    next++;
                    messages.add(message);
                }
            }
        }
        return messages;
    }
}
