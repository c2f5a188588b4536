package interop;

import static interop.Check.same;
import static interop.World.await;
import static java.nio.charset.StandardCharsets.UTF_8;

import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerConcurrently;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.utils.MessageUtil;
import org.apache.rocketmq.common.message.Message;

/** A message that is answered: the broker hands the reply to the producer that asked. */
final class RequestReply {
    private RequestReply() {
    }

    static String roundTrip(World world) throws Exception {
        String topic = world.topic(2);
        DefaultMQProducer replier = world.producer();
        DefaultMQPushConsumer consumer = world.pushConsumer(world.name("g"));
        consumer.subscribe(topic, "*");
        consumer.registerMessageListener((MessageListenerConcurrently) (messages, context) -> {
            try {
                String question = new String(messages.get(0).getBody(), UTF_8);
                replier.send(MessageUtil.createReplyMessage(messages.get(0), ("re: " + question).getBytes(UTF_8)));
                return ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
            } catch (Exception failed) {
                System.out.println("note request-reply: the reply was not sent: " + failed);
                return ConsumeConcurrentlyStatus.RECONSUME_LATER;
            }
        });
        consumer.start();
        await(15, "the consumer to hold both queues", () -> World.held(consumer, topic).size() == 2);
        DefaultMQProducer producer = world.producer();
        for (int i = 0; i < 10; i++) {
            Message answer = producer.request(new Message(topic, ("question " + i).getBytes(UTF_8)), 8_000);
            same("re: question " + i, new String(answer.getBody(), UTF_8), "answer");
        }
        return "10 requests answered";
    }
}
