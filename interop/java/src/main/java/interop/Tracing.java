package interop;

import static interop.Check.require;
import static interop.Check.same;
import static interop.World.await;

import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.EnumSet;
import java.util.List;
import java.util.Set;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.exception.MQClientException;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.client.trace.TraceContext;
import org.apache.rocketmq.client.trace.TraceDataEncoder;
import org.apache.rocketmq.client.trace.TraceType;
import org.apache.rocketmq.common.consumer.ConsumeFromWhere;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.common.topic.TopicValidator;

/** What happened to a message, recorded by the clients in a topic of the broker. */
final class Tracing {
    private static final String TRACE_TOPIC = TopicValidator.RMQ_SYS_TRACE_TOPIC;
    private static final Set<TraceType> ALL = EnumSet.of(TraceType.Pub, TraceType.SubBefore, TraceType.SubAfter);

    private Tracing() {
    }

    static String sentAndConsumed(World world) throws Exception {
        String topic = world.topic(1);
        String group = world.name("g");
        Received received = new Received();
        DefaultMQPushConsumer consumer = new DefaultMQPushConsumer(group, true, null);
        consumer.setNamesrvAddr(World.NAMESRV);
        consumer.setInstanceName(world.name("consumer"));
        consumer.setConsumeFromWhere(ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET);
        consumer.subscribe(topic, "*");
        consumer.registerMessageListener(received);
        world.onClose(consumer::shutdown);
        consumer.start();
        DefaultMQProducer producer = world.tracedProducer();

        long begin = System.currentTimeMillis() - 1_000;
        String key = world.name("key");
        Message message = Texts.make(topic, "traced");
        message.setKeys(key);
        message.setTags("T");
        SendResult sent = Texts.ok(producer.send(message));
        Texts.ok(producer.send(Texts.make(topic, "another")));
        await(20, "two messages", () -> received.distinct() == 2);

        // Clients gather traces for some seconds before they send them.
        for (String by : List.of(sent.getMsgId(), key)) {
            await(30, "traces of " + ALL + " by " + by, () -> types(records(world, by, sent.getMsgId(), begin)).equals(ALL));
        }
        for (TraceContext record : records(world, key, sent.getMsgId(), begin)) {
            require(record.isSuccess(), "%s is recorded as failed", record.getTraceType());
            if (record.getTraceType() == TraceType.Pub) {
                same(producer.getProducerGroup(), record.getGroupName(), "group of the trace");
                same(topic, record.getTraceBeans().get(0).getTopic(), "topic of the trace");
                same("T", record.getTraceBeans().get(0).getTags(), "tag of the trace");
                same(sent.getOffsetMsgId(), record.getTraceBeans().get(0).getOffsetMsgId(), "offset id of the trace");
            } else {
                same(group, record.getGroupName(), "group of " + record.getTraceType());
            }
        }
        return "sending, and consuming's begin and end, found in " + TRACE_TOPIC + " by message id and by key";
    }

    private static Set<TraceType> types(List<TraceContext> records) {
        Set<TraceType> types = EnumSet.noneOf(TraceType.class);
        records.forEach(record -> types.add(record.getTraceType()));
        return types;
    }

    /** The records about the message, of the trace messages that are found by {@code by}. */
    private static List<TraceContext> records(World world, String by, String messageId, long begin) throws Exception {
        List<TraceContext> records = new ArrayList<>();
        List<MessageExt> found;
        try {
            found = world.admin().queryMessage(TRACE_TOPIC, by, 64, begin, System.currentTimeMillis() + 1_000).getMessageList();
        } catch (MQClientException none) {
            return records;
        }
        for (MessageExt trace : found) {
            for (TraceContext record : TraceDataEncoder.decoderFromTraceDataString(new String(trace.getBody(), StandardCharsets.UTF_8))) {
                if (record.getTraceBeans().get(0).getMsgId().equals(messageId)) {
                    records.add(record);
                }
            }
        }
        return records;
    }
}
