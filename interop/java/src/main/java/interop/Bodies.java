package interop;

import static interop.Check.require;
import static interop.Check.same;
import static interop.World.await;
import static java.nio.charset.StandardCharsets.UTF_8;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.TreeMap;
import org.apache.rocketmq.client.exception.MQBrokerException;
import org.apache.rocketmq.client.exception.MQClientException;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.common.compression.CompressionType;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.remoting.protocol.ResponseCode;

/** What is in a message comes out as it went in. */
final class Bodies {
    private static final int MIB = 1024 * 1024;
    private static final int MESSAGE_ILLEGAL = ResponseCode.MESSAGE_ILLEGAL;

    private Bodies() {
    }

    static String compressed(World world) throws Exception {
        String topic = world.topic(1);
        byte[] body = "a text that repeats itself, ".repeat(4_000).getBytes(UTF_8);
        List<String> seen = new ArrayList<>();
        long offset = 0;
        for (CompressionType type : CompressionType.values()) {
            DefaultMQProducer producer = world.producer();
            producer.setCompressType(type);
            SendResult result = Texts.ok(producer.send(new Message(topic, body)));
            same(offset++, result.getQueueOffset(), "queue offset");
            MessageExt back = producer.viewMessage(topic, result.getOffsetMsgId());
            require(Arrays.equals(body, back.getBody()), "the body compressed with %s came back different, viewed", type);
            require(back.getStoreSize() < body.length / 2, "stored %d bytes of a body of %d: not compressed", back.getStoreSize(), body.length);
            seen.add(type + " " + back.getStoreSize());
        }
        List<MessageExt> pulled = Pulling.everything(world, topic);
        same(CompressionType.values().length, pulled.size(), "messages pulled");
        for (MessageExt message : pulled) {
            require(Arrays.equals(body, message.getBody()), "a compressed body came back different, pulled");
        }
        return body.length + " bytes stored in " + seen;
    }

    static String sizes(World world) throws Exception {
        String topic = world.topic(2);
        DefaultMQProducer producer = world.producer();
        producer.setSendMsgTimeout(15_000);
        Random random = new Random(42);
        Map<Integer, byte[]> bodies = new TreeMap<>();
        for (int size : new int[] {1, 2, 4_095, 4_097, 65_535, 65_536, MIB, 4 * MIB - 16 * 1024}) {
            byte[] body = new byte[size];
            random.nextBytes(body);
            bodies.put(size, body);
            Texts.ok(producer.send(new Message(topic, body)));
        }
        List<MessageExt> back = new ArrayList<>();
        await(15, bodies.size() + " messages", () -> {
            back.clear();
            back.addAll(Pulling.everything(world, topic));
            return back.size() >= bodies.size();
        });
        for (MessageExt message : back) {
            byte[] body = message.getBody();
            require(Arrays.equals(bodies.get(body.length), body), "a body of %d bytes came back different", body.length);
        }
        same(bodies.size(), back.size(), "messages");
        return "bodies of " + bodies.keySet() + " random bytes";
    }

    /** Refused by the client's own limit, and by the broker when the client's limit is lifted. */
    static String tooLarge(World world) throws Exception {
        String topic = world.topic(1);
        byte[] body = new byte[4 * MIB + 1024];
        new Random(42).nextBytes(body);
        DefaultMQProducer strict = world.producer();
        try {
            strict.send(new Message(topic, body));
            throw new Check.Failed("the client sent a body above its own limit");
        } catch (MQClientException refused) {
            same(MESSAGE_ILLEGAL, refused.getResponseCode(), "code of the client's refusal");
        }
        DefaultMQProducer lax = world.producer();
        lax.setMaxMessageSize(16 * MIB);
        lax.setSendMsgTimeout(15_000);
        lax.setRetryTimesWhenSendFailed(0);
        String why;
        try {
            lax.send(new Message(topic, body));
            throw new Check.Failed("the broker took a body above 4 MiB");
        } catch (MQBrokerException refused) {
            same(MESSAGE_ILLEGAL, refused.getResponseCode(), "code of the broker's refusal");
            why = refused.getErrorMessage();
        }
        Texts.ok(lax.send(Texts.make(topic, "after")));
        same(1, Pulling.everything(world, topic).size(), "messages stored");
        return "client and broker refuse with code 13 (\"" + why + "\"), the connection goes on";
    }

    static String properties(World world) throws Exception {
        String topic = world.topic(1);
        DefaultMQProducer producer = world.producer();
        Message message = new Message(topic, "TagÄ", "key-1 Schlüssel-2", 7, "größe 鍵 🔑".getBytes(UTF_8), true);
        Map<String, String> user = new TreeMap<>();
        user.put("plain", "value");
        user.put("umlaut-ä", "wert-ß 値 🔑");
        user.put("spaces in name", " spaces around ");
        user.put("long", "x".repeat(8_000));
        user.put("punctuation", "{\"a\":[1,2]}=;,&");
        user.forEach(message::putUserProperty);
        message.setBuyerId("buyer");
        SendResult result = Texts.ok(producer.send(message));
        long before = System.currentTimeMillis();
        MessageExt back = Pulling.everything(world, topic).get(0);
        same("größe 鍵 🔑", new String(back.getBody(), UTF_8), "body");
        same("TagÄ", back.getTags(), "tag");
        same("key-1 Schlüssel-2", back.getKeys(), "keys");
        same(7, back.getFlag(), "flag");
        same("buyer", back.getBuyerId(), "buyer id");
        for (Map.Entry<String, String> property : user.entrySet()) {
            require(property.getValue().equals(back.getUserProperty(property.getKey())), "property %s: sent %s, got %s",
                property.getKey(), property.getValue(), back.getUserProperty(property.getKey()));
        }
        same(result.getMsgId(), back.getMsgId(), "message id");
        same(0L, back.getQueueOffset(), "queue offset");
        same(0, back.getReconsumeTimes(), "reconsumeTimes");
        require(Math.abs(back.getBornTimestamp() - before) < 10_000, "born %d, sent about %d", back.getBornTimestamp(), before);
        require(Math.abs(back.getStoreTimestamp() - before) < 10_000, "stored %d, sent about %d", back.getStoreTimestamp(), before);
        require(back.getBornHostString().equals("127.0.0.1") || !World.NAMESRV.startsWith("127."), "born host %s", back.getBornHostString());
        same(user.size(), (int) user.keySet().stream().filter(key -> back.getProperties().containsKey(key)).count(), "properties");
        return user.size() + " properties, keys, tag, flag, ids and times as sent";
    }
}
