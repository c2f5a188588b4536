package interop;

import static interop.Check.require;
import static interop.Check.same;
import static interop.World.await;

import java.util.HashSet;
import java.util.Set;
import java.util.TreeSet;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.exception.MQBrokerException;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.common.consumer.ConsumeFromWhere;
import org.apache.rocketmq.common.message.MessageQueue;
import org.apache.rocketmq.remoting.protocol.LanguageCode;
import org.apache.rocketmq.remoting.protocol.ResponseCode;
import org.apache.rocketmq.remoting.protocol.body.Connection;
import org.apache.rocketmq.remoting.protocol.body.ConsumerConnection;
import org.apache.rocketmq.remoting.protocol.body.ConsumerRunningInfo;
import org.apache.rocketmq.remoting.protocol.heartbeat.ConsumeType;
import org.apache.rocketmq.remoting.protocol.heartbeat.MessageModel;
import org.apache.rocketmq.tools.admin.DefaultMQAdminExt;

/** What an administrator sees of the clients: who is connected, what they subscribe, and what a consumer says about itself. */
final class Members {
    private Members() {
    }

    static String seenByAdministrators(World world) throws Exception {
        String topic = world.topic(4);
        String group = world.name("g");
        Received received = new Received();
        DefaultMQPushConsumer first = world.startPush(group, topic, "A || B", received);
        DefaultMQPushConsumer second = world.startPush(group, topic, "A || B", received);
        await(30, "each of two consumers to hold 2 of 4 queues",
            () -> World.held(first, topic).size() == 2 && World.held(second, topic).size() == 2);
        DefaultMQProducer producer = world.producer();
        Texts.ok(producer.send(Texts.make(topic, "m")));
        DefaultMQAdminExt admin = world.admin();

        Set<String> expected = Set.of(clientId(first), clientId(second));
        ConsumerConnection connected = admin.examineConsumerConnectionInfo(group);
        Set<String> members = new HashSet<>();
        for (Connection connection : connected.getConnectionSet()) {
            members.add(connection.getClientId());
            same(LanguageCode.JAVA, connection.getLanguage(), "language of a consumer");
            require(connection.getClientAddr().matches(".+:[0-9]+"), "address of a consumer: %s", connection.getClientAddr());
            require(connection.getVersion() > 0, "version of a consumer: %d", connection.getVersion());
        }
        same(expected, members, "consumers of the group");
        same(ConsumeType.CONSUME_PASSIVELY, connected.getConsumeType(), "how the group consumes");
        same(MessageModel.CLUSTERING, connected.getMessageModel(), "model of the group");
        same(ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET, connected.getConsumeFromWhere(), "where the group begins");
        same("A || B", connected.getSubscriptionTable().get(topic).getSubString(), "subscription");
        same(Set.of("A", "B"), connected.getSubscriptionTable().get(topic).getTagsSet(), "tags");
        require(admin.queryTopicConsumeByWho(topic).getGroupList().contains(group), "the topic is not known to be consumed by the group");

        Set<String> producers = new HashSet<>();
        // A producer is known by its heartbeat, which goes out when it first sends.
        await(40, "the producer among the connections", () -> {
            producers.clear();
            admin.examineProducerConnectionInfo(producer.getProducerGroup(), topic).getConnectionSet()
                .forEach(connection -> producers.add(connection.getClientId()));
            return !producers.isEmpty();
        });
        same(Set.of(producer.buildMQClientId()), producers, "producers of the group");

        Set<Integer> held = new TreeSet<>();
        for (DefaultMQPushConsumer consumer : new DefaultMQPushConsumer[] {first, second}) {
            ConsumerRunningInfo info = admin.getConsumerRunningInfo(group, clientId(consumer), true);
            require(info.getSubscriptionSet().stream().anyMatch(one -> one.getTopic().equals(topic)), "a consumer does not name its subscription");
            same("CONSUME_PASSIVELY", info.getProperties().getProperty(ConsumerRunningInfo.PROP_CONSUME_TYPE), "how a consumer consumes");
            require(info.getJstack().contains("interop.Main"), "the stack that was asked for is not there");
            Set<Integer> own = new TreeSet<>();
            for (MessageQueue queue : info.getMqTable().keySet()) {
                if (queue.getTopic().equals(topic)) {
                    own.add(queue.getQueueId());
                }
            }
            same(World.held(consumer, topic), own, "queues that a consumer says it holds");
            held.addAll(own);
        }
        same(4, held.size(), "queues held by both");

        first.shutdown();
        second.shutdown();
        int code = 0;
        try {
            admin.examineConsumerConnectionInfo(group);
        } catch (MQBrokerException gone) {
            code = gone.getResponseCode();
        }
        same(ResponseCode.CONSUMER_NOT_ONLINE, code, "code for a group without members");
        return "2 consumers and 1 producer with subscription, queues and stacks; a group that everyone left is refused with 206";
    }

    static String clientId(DefaultMQPushConsumer consumer) {
        return consumer.getDefaultMQPushConsumerImpl().getmQClientFactory().getClientId();
    }
}
