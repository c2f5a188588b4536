package interop.survive;

import com.alibaba.fastjson2.JSON;
import com.alibaba.fastjson2.JSONArray;
import com.alibaba.fastjson2.JSONObject;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.util.HashMap;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.stream.Collectors;
import org.apache.rocketmq.client.producer.LocalTransactionState;
import org.apache.rocketmq.client.producer.TransactionListener;
import org.apache.rocketmq.client.producer.TransactionMQProducer;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageConst;
import org.apache.rocketmq.common.message.MessageExt;

/**
 * Half messages, of which the id says what becomes of them, at once or when the producer is asked. The client sends its decision
 * one way: one that a kill swallowed is asked for again.
 */
final class Transactions extends Feature {
    private static final String TOPIC = "survive_transaction";
    private static final String[] KINDS = {"commit", "rollback", "later_commit", "later_rollback"};
    private static final int PAUSE_MILLIS = 20;
    /** How long a local transaction takes; a kill in this time leaves a half message without a decision. */
    private static final int LOCAL_MILLIS = 10;
    private static final int SENDING = 4;
    private static final String DECISIONS = "/api/v1/transactions/decisions?limit=1000";

    private final Clients clients;
    private final String rest = System.getenv("REST");
    private final HttpClient http = HttpClient.newHttpClient();
    private final Tally acknowledged = tally("half messages acknowledged", 20);
    private final Tally asked = tally("questions", 3);
    private final AtomicInteger number = new AtomicInteger();
    private final Sent sent = new Sent();
    /** Ids by the key that the client gives a message. */
    private final Map<String, String> ids = new ConcurrentHashMap<>();
    private final Set<String> lost = ConcurrentHashMap.newKeySet();

    Transactions(Clients clients) {
        super("transaction");
        this.clients = clients;
    }

    private static boolean commits(String id) {
        return id.contains("commit");
    }

    private final class Decider implements TransactionListener {
        @Override
        public LocalTransactionState executeLocalTransaction(Message message, Object argument) {
            try {
                Thread.sleep(LOCAL_MILLIS);
            } catch (InterruptedException stopped) {
                return LocalTransactionState.UNKNOW;
            }
            return Sent.id(message).startsWith("later") ? LocalTransactionState.UNKNOW : decision(message);
        }

        @Override
        public LocalTransactionState checkLocalTransaction(MessageExt message) {
            asked.add();
            String id = Sent.id(message);
            if (!id.startsWith("later") && sent.acknowledged().contains(id)) {
                lost.add(id);
            }
            return decision(message);
        }

        private LocalTransactionState decision(Message message) {
            return commits(Sent.id(message)) ? LocalTransactionState.COMMIT_MESSAGE : LocalTransactionState.ROLLBACK_MESSAGE;
        }
    }

    @Override
    void start() throws Exception {
        clients.topic(TOPIC, 4);
        TransactionMQProducer producer = clients.transactionProducer("survive_transaction_producer", new Decider());
        for (int i = 0; i < SENDING; i++) {
            repeat(PAUSE_MILLIS, () -> send(producer));
        }
    }

    private void send(TransactionMQProducer producer) throws Exception {
        int turn = number.getAndIncrement();
        Message message = Sent.message(TOPIC, KINDS[turn % KINDS.length] + "-" + turn);
        try {
            sent.send(message, () -> producer.sendMessageInTransaction(message, null));
            acknowledged.add();
        } finally {
            ids.put(message.getProperty(MessageConst.PROPERTY_UNIQ_CLIENT_MESSAGE_ID_KEYIDX), Sent.id(message));
        }
    }

    /** Nothing is left to decide. */
    @Override
    boolean settled() throws Exception {
        return get("/api/v1/transactions").getJSONArray("items").isEmpty();
    }

    private JSONObject get(String path) throws Exception {
        HttpResponse<String> answer = http.send(HttpRequest.newBuilder(URI.create(rest + path)).build(), HttpResponse.BodyHandlers.ofString());
        if (answer.statusCode() != 200) {
            throw new IllegalStateException(path + " gave " + answer.statusCode() + " " + answer.body());
        }
        return JSON.parseObject(answer.body());
    }

    /** Ids of what the broker noted as decided, and how. */
    private Map<String, String> decisions() throws Exception {
        Map<String, String> found = new HashMap<>();
        String cursor = "";
        while (cursor != null) {
            JSONObject page = get(DECISIONS + (cursor.isEmpty() ? "" : "&cursor=" + cursor));
            JSONArray items = page.getJSONArray("items");
            for (int i = 0; i < items.size(); i++) {
                JSONObject item = items.getJSONObject(i);
                String id = ids.get(item.getString("transaction_id"));
                require(id != null, "a message was decided that nobody sent: %s", item);
                if (id != null) {
                    String before = found.put(id, item.getString("decision"));
                    require(before == null, "%s was decided twice: %s and %s", id, item.getString("decision"), before);
                }
            }
            cursor = page.getString("next");
        }
        return found;
    }

    @Override
    String judge() throws Exception {
        Map<String, Integer> times = new HashMap<>();
        for (MessageExt message : clients.log(TOPIC)) {
            require(times.merge(Sent.id(message), 1, Integer::sum) == 1, "%s is in the log twice", Sent.id(message));
        }
        requireBetween(committed(sent.acknowledged()), times.keySet(), committed(sent.tried()), "committed messages");
        Map<String, String> decisions = decisions();
        requireBetween(sent.acknowledged(), decisions.keySet(), sent.tried(), "decisions");
        decisions.forEach((id, decision) -> require(decision.equals(commits(id) ? "commit" : "rollback"), "%s was decided: %s", id, decision));
        requireBetween(committed(decisions.keySet()), times.keySet(), decisions.keySet(), "messages with a decision");
        require(!lost.isEmpty(), "no decision was lost, so nobody knows whether one that is lost is asked for again");
        return String.format("%s; %d committed, each once, %d rolled back, none seen; %d decisions were lost and asked for again", counts(),
            times.size(), decisions.size() - times.size(), lost.size());
    }

    private static Set<String> committed(Set<String> ids) {
        return ids.stream().filter(Transactions::commits).collect(Collectors.toSet());
    }
}
