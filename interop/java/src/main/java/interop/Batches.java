package interop;

import static interop.Check.require;
import static interop.Check.same;
import static interop.World.await;

import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import org.apache.rocketmq.client.exception.MQClientException;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.common.MixAll;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageConst;
import org.apache.rocketmq.common.message.MessageDecoder;
import org.apache.rocketmq.common.message.MessageQueue;
import org.apache.rocketmq.common.sysflag.MessageSysFlag;
import org.apache.rocketmq.remoting.netty.NettyClientConfig;
import org.apache.rocketmq.remoting.netty.NettyRemotingClient;
import org.apache.rocketmq.remoting.protocol.RemotingCommand;
import org.apache.rocketmq.remoting.protocol.RequestCode;
import org.apache.rocketmq.remoting.protocol.ResponseCode;
import org.apache.rocketmq.remoting.protocol.header.SendMessageRequestHeader;
import org.apache.rocketmq.remoting.protocol.header.SendMessageRequestHeaderV2;

/** Batches that may not be: the client refuses what it sees itself, so a bare connection says the same to the broker. */
final class Batches {
    private static final int OVER_MAXIMUM = (4 << 20) + 1_000;

    private Batches() {
    }

    static String refused(World world) throws Exception {
        String topic = world.topic(1);
        DefaultMQProducer producer = world.producer();
        requireClientRefuses(world, producer, topic);

        String group = world.name("g");
        world.startPush(group, topic, "*", new Received());
        String retry = MixAll.getRetryTopic(group);
        world.awaitRoute(retry);
        byte[] two = MessageDecoder.encodeMessages(List.of(Texts.make(topic, "a-0"), Texts.make(topic, "a-1")));
        Message large = Texts.make(topic, "large");
        large.setBody(new byte[OVER_MAXIMUM]);
        Map<String, String> delayed = Map.of(MessageConst.PROPERTY_DELAY_TIME_LEVEL, "1");

        NettyRemotingClient client = new NettyRemotingClient(new NettyClientConfig());
        world.onClose(client::shutdown);
        client.start();
        String broker = world.brokerAddress();
        Map<String, Integer> codes = new TreeMap<>();
        codes.put("delayed", code(client, broker, topic, 0, delayed, two));
        codes.put("half", code(client, broker, topic, MessageSysFlag.TRANSACTION_PREPARED_TYPE, Map.of(), two));
        codes.put("to a retry topic", code(client, broker, retry, 0, Map.of(), two));
        codes.forEach((kind, code) -> same(ResponseCode.MESSAGE_ILLEGAL, code, "code of a batch " + kind));
        // RocketMQ 5.5.0 says no more than "system error" here.
        int tooLarge = code(client, broker, topic, 0, Map.of(), MessageDecoder.encodeMessages(List.of(large)));
        require(tooLarge == ResponseCode.MESSAGE_ILLEGAL || tooLarge == ResponseCode.SYSTEM_ERROR, "code of a batch too large: %d", tooLarge);

        // The same frame without a fault is taken, so it was the fault that was refused.
        same(ResponseCode.SUCCESS, code(client, broker, topic, 0, Map.of(), two), "code of a batch without fault");
        MessageQueue queue = producer.fetchPublishMessageQueues(topic).get(0);
        await(10, "the two messages that were taken", () -> world.admin().maxOffset(queue) == 2);
        return "by the client: mixed topics, delayed, retry topic; by the broker: too large, " + String.join(", ", codes.keySet());
    }

    private static void requireClientRefuses(World world, DefaultMQProducer producer, String topic) throws Exception {
        Message delayed = Texts.make(topic, "d");
        delayed.setDelayTimeLevel(1);
        Map<String, List<Message>> wrong = Map.of(
            "of two topics", List.of(Texts.make(topic, "a"), Texts.make(world.topic(1), "b")),
            "with a delayed message", List.of(Texts.make(topic, "a"), delayed),
            "to a retry topic", List.of(Texts.make(MixAll.getRetryTopic("g"), "a")));
        for (Map.Entry<String, List<Message>> batch : wrong.entrySet()) {
            try {
                producer.send(batch.getValue());
            } catch (MQClientException | UnsupportedOperationException refused) {
                continue;
            }
            throw new Check.Failed("a batch " + batch.getKey() + " was sent");
        }
    }

    private static int code(NettyRemotingClient client, String broker, String topic, int sysFlag, Map<String, String> properties, byte[] body)
        throws Exception {
        SendMessageRequestHeader header = new SendMessageRequestHeader();
        header.setProducerGroup("it_batches");
        header.setTopic(topic);
        header.setDefaultTopic("TBW102");
        header.setDefaultTopicQueueNums(4);
        header.setQueueId(0);
        header.setSysFlag(sysFlag);
        header.setBornTimestamp(System.currentTimeMillis());
        header.setFlag(0);
        header.setProperties(MessageDecoder.messageProperties2String(properties));
        header.setReconsumeTimes(0);
        header.setBatch(true);
        RemotingCommand request = RemotingCommand.createRequestCommand(
            RequestCode.SEND_BATCH_MESSAGE, SendMessageRequestHeaderV2.createSendMessageRequestHeaderV2(header));
        request.setBody(body);
        return client.invokeSync(broker, request, 10_000).getCode();
    }
}
