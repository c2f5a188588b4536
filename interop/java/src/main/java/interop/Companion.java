package interop;

import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageQueue;

/**
 * Gives mqadmin something to look at: sends ten keyed messages to queue 0 of a topic, consumes them with a live consumer,
 * prints the ids of the last one, and stays until its standard input ends.
 */
public final class Companion {
    private Companion() {
    }

    public static void main(String[] args) throws Exception {
        if (args.length != 3) {
            System.err.println("usage: Companion TOPIC GROUP KEY");
            System.exit(2);
        }
        World world = new World("mqadmin");
        try {
            DefaultMQProducer producer = world.tracedProducer();
            MessageQueue first = producer.fetchPublishMessageQueues(args[0]).stream()
                .filter(queue -> queue.getQueueId() == 0).findFirst().orElseThrow();
            SendResult last = null;
            for (int i = 0; i < 10; i++) {
                Message message = Texts.make(args[0], "a-" + i);
                message.setKeys(args[2]);
                message.setTags("TagA");
                last = Texts.ok(producer.send(message, first));
            }
            Received received = new Received();
            world.startPush(args[1], args[0], "*", received);
            World.await(30, "10 messages", () -> received.distinct() == 10);
            System.out.println("OFFSET_ID=" + last.getOffsetMsgId());
            System.out.println("UNIQUE_ID=" + last.getMsgId());
            System.out.println("READY");
            while (System.in.read() >= 0) {
                // Only the end of the input matters.
            }
        } finally {
            world.close();
        }
        System.exit(0);
    }
}
