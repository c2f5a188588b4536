package interop.survive;

import static java.nio.charset.StandardCharsets.UTF_8;

import java.util.concurrent.atomic.AtomicInteger;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerConcurrently;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.utils.MessageUtil;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageExt;

/** Requests: a kill lets those under way fail, but none gets the reply to another, and afterwards they are answered again. */
final class Requests extends Feature {
    private static final String TOPIC = "survive_request";
    private static final int ASKING = 3;
    private static final int PAUSE_MILLIS = 20;
    private static final int TIMEOUT_MILLIS = 2_000;
    private static final int LAST_TIMEOUT_MILLIS = 8_000;
    private static final int LAST = 10;

    private final Clients clients;
    private final Tally answered = tally("answered", 10);
    private final AtomicInteger number = new AtomicInteger();
    private final AtomicInteger failed = new AtomicInteger();
    private DefaultMQProducer producer;

    Requests(Clients clients) {
        super("request-reply");
        this.clients = clients;
    }

    @Override
    void start() throws Exception {
        clients.topic(TOPIC, 4);
        DefaultMQProducer replier = clients.producer("survive_reply_producer");
        DefaultMQPushConsumer consumer = clients.consumer("survive_request_group");
        consumer.subscribe(TOPIC, "*");
        consumer.registerMessageListener((MessageListenerConcurrently) (messages, context) -> {
            MessageExt request = messages.get(0);
            try {
                replier.send(MessageUtil.createReplyMessage(request, reply(Sent.id(request)).getBytes(UTF_8)));
            } catch (Exception gone) {
                // Who asked has lost its connection and its patience; nobody waits for a second reply.
            }
            return ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
        });
        clients.start(consumer);
        producer = clients.producer("survive_request_producer");
        for (int i = 0; i < ASKING; i++) {
            repeat(PAUSE_MILLIS, () -> {
                try {
                    ask(TIMEOUT_MILLIS);
                } catch (Exception timeout) {
                    failed.incrementAndGet();
                    throw timeout;
                }
            });
        }
    }

    private static String reply(String question) {
        return "re: " + question;
    }

    private void ask(int timeoutMillis) throws Exception {
        String question = "question " + number.getAndIncrement();
        Message answer = producer.request(Sent.message(TOPIC, question), timeoutMillis);
        require(reply(question).equals(Sent.id(answer)), "%s got the answer %s", question, Sent.id(answer));
        answered.add();
    }

    @Override
    boolean settled() {
        return true;
    }

    @Override
    String judge() throws Exception {
        for (int i = 0; i < LAST; i++) {
            ask(LAST_TIMEOUT_MILLIS);
        }
        return String.format("%s; %d failed, none got the reply to another; %d more answered at the end", counts(), failed.get(), LAST);
    }
}
