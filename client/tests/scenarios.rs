//! The client against a small broker of this test, or against a real one: with `SLUICE_TEST_NAMESRV=host:port` set, the same
//! scenarios run there, on topics and groups of their own.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed test panics")]

mod broker;

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use broker::Broker;
use parking_lot::Mutex;
use sluice_client::{Client, ClientConfig, Decision, Error, Found, Message, Outcome, Received, Start, Topic};
use sluice_model::{Kind, Timestamp};
use tokio::sync::mpsc;

const LONG: Duration = Duration::from_secs(90);

struct World {
    names: String,
    broker: Option<Arc<Broker>>,
    salt: u128,
}

async fn world() -> World {
    let salt = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos();
    match std::env::var("SLUICE_TEST_NAMESRV") {
        Ok(names) => World { names, broker: None, salt },
        Err(_) => {
            let (names, broker) = broker::start().await;
            World { names, broker: Some(broker), salt }
        }
    }
}

impl World {
    fn client(&self, instance: &str) -> Client {
        let mut config = ClientConfig::new([self.names.as_str()]);
        config.instance_name = format!("{instance}-{}", self.salt);
        config.commit = Duration::from_millis(200);
        config.poll = Duration::from_secs(3);
        Client::new(config).unwrap()
    }

    /// A name of this test alone.
    fn name(&self, name: &str) -> String {
        format!("{name}-{}", self.salt)
    }

    /// A topic with four queues that the name server knows.
    async fn topic(&self, client: &Client, name: &str) -> String {
        let name = self.name(name);
        client.admin().create_topic(&Topic::new(&name, 4)).await.unwrap();
        let known = async {
            while client.admin().queues(&name).await.map_or(0, |queues| queues.len()) < 4 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(LONG, known).await.unwrap();
        name
    }
}

async fn take(from: &mut mpsc::UnboundedReceiver<Received>, count: usize) -> Vec<Received> {
    let mut taken = Vec::new();
    while taken.len() < count {
        let one = tokio::time::timeout(LONG, from.recv()).await;
        taken.push(one.unwrap_or_else(|_| panic!("{} of {count} came", taken.len())).unwrap());
    }
    taken
}

fn bodies(messages: &[Received]) -> Vec<String> {
    let mut bodies: Vec<_> = messages.iter().map(|m| String::from_utf8(m.body.to_vec()).unwrap()).collect();
    bodies.sort();
    bodies
}

#[tokio::test]
async fn what_is_sent_is_pulled_found_and_viewed() {
    let world = world().await;
    let client = world.client("pull");
    let topic = world.topic(&client, "pulled").await;
    let producer = client.producer(&world.name("producer")).unwrap();
    let large = "large ".repeat(3000);
    let sent = producer.send(Message::new(&topic, large.clone()).key("k1").tag("a")).await.unwrap();
    let consumer = client.pull_consumer(&world.name("puller")).unwrap();
    let from = sent.offset.0 as i64;
    let pulled = consumer.pull(&sent.queue, "*", from, 32, Duration::ZERO).await.unwrap();
    assert_eq!((pulled.found, pulled.next_offset), (Found::Messages, from + 1));
    let message = &pulled.messages[0];
    assert_eq!(message.body, large, "decompressed");
    assert_eq!((message.tag(), message.keys().collect::<Vec<_>>()), (Some("a"), vec!["k1"]));
    assert_eq!((&message.message_id, message.stored_id().to_string()), (&sent.message_id, sent.stored_id.clone()));
    let viewed = client.admin().view(&sent.stored_id).await.unwrap();
    assert_eq!(viewed.message_id, sent.message_id);
    let end = Timestamp(i64::MAX / 2);
    let found = async {
        loop {
            let found = client.admin().query(&topic, "k1", 10, Timestamp(0), end).await.unwrap();
            if !found.is_empty() {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    assert_eq!(tokio::time::timeout(LONG, found).await.unwrap()[0].message_id, sent.message_id);
    let nothing = consumer.pull(&sent.queue, "*", from + 1, 32, Duration::ZERO).await.unwrap();
    assert_eq!(nothing.found, Found::Nothing);
    assert_eq!(consumer.committed(&sent.queue).await.unwrap(), None);
    consumer.commit(&sent.queue, sent.offset).await.unwrap();
    assert_eq!(consumer.committed(&sent.queue).await.unwrap(), Some(sent.offset));
}

#[tokio::test]
async fn a_poll_reads_all_assigned_queues_from_where_it_stands() {
    let world = world().await;
    let client = world.client("poll");
    let topic = world.topic(&client, "polled").await;
    let producer = client.producer(&world.name("producer")).unwrap();
    let consumer = client.pull_consumer(&world.name("poller")).unwrap();
    let queues = consumer.queues(&topic).await.unwrap();
    for (at, queue) in queues.iter().enumerate() {
        producer.send_to(queue, Message::new(&topic, at.to_string())).await.unwrap();
    }
    consumer.assign(queues.clone()).await.unwrap();
    let mut got = Vec::new();
    while got.len() < 4 {
        got.extend(consumer.poll(32, LONG).await.unwrap());
    }
    assert_eq!(bodies(&got), ["0", "1", "2", "3"]);
    consumer.seek(&queues[2], consumer.min_offset(&queues[2]).await.unwrap()).unwrap();
    assert_eq!(bodies(&consumer.poll(32, LONG).await.unwrap()), ["2"]);
    assert!(consumer.poll(32, Duration::from_millis(100)).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_batch_is_stored_in_its_order() {
    let world = world().await;
    let client = world.client("batch");
    let topic = world.topic(&client, "batched").await;
    let producer = client.producer(&world.name("producer")).unwrap();
    let messages = (0..5).map(|at| Message::new(&topic, at.to_string())).collect();
    let sent = producer.send_batch(messages).await.unwrap();
    let consumer = client.pull_consumer(&world.name("puller")).unwrap();
    let pulled = consumer.pull(&sent.queue, "*", sent.offset.0 as i64, 32, Duration::from_secs(5)).await.unwrap();
    let ids: Vec<_> = pulled.messages.iter().map(|message| message.message_id.as_str()).collect();
    assert_eq!(ids.join(","), sent.message_id);
    let mixed = vec![Message::new(&topic, "a"), Message::new("other", "b")];
    assert_eq!(producer.send_batch(mixed).await.unwrap_err().kind(), Kind::Invalid);
}

#[tokio::test]
async fn consumers_of_a_group_share_the_messages_they_want() {
    let world = world().await;
    let client = world.client("share-a");
    let topic = world.topic(&client, "shared").await;
    let producer = client.producer(&world.name("producer")).unwrap();
    let (to, mut from) = mpsc::unbounded_channel();
    let mut consumers = Vec::new();
    let counts = [Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0))];
    for (at, instance) in ["share-b", "share-c"].into_iter().enumerate() {
        let (to, count) = (to.clone(), counts[at].clone());
        let builder = world.client(instance).push_consumer(&world.name("sharers")).subscribe(&topic, "a || b");
        let consumer = builder.start_from(Start::First).start(move |messages: Vec<Received>| {
            count.fetch_add(messages.len(), Ordering::SeqCst);
            messages.into_iter().for_each(|message| to.send(message).unwrap());
            async { Outcome::Done }
        });
        consumers.push(consumer.await.unwrap());
    }
    let settled = async {
        while client.admin().consumers(&world.name("sharers"), &topic).await.unwrap().len() < 2 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(LONG, settled).await.unwrap();
    let mut wanted = Vec::new();
    for at in 0..60 {
        let tag = ["a", "b", "c"][at % 3];
        producer.send(Message::new(&topic, format!("{at:02}")).tag(tag)).await.unwrap();
        if tag != "c" {
            wanted.push(format!("{at:02}"));
        }
    }
    let mut got = std::collections::BTreeSet::new();
    while got.len() < wanted.len() {
        got.extend(bodies(&take(&mut from, 1).await));
    }
    assert_eq!(got.into_iter().collect::<Vec<_>>(), wanted);
    for consumer in consumers {
        consumer.stop().await;
    }
    // Offsets were stored when the consumers stopped: nothing comes again.
    let again = world.client("share-d").push_consumer(&world.name("sharers")).subscribe(&topic, "a || b");
    let (to, mut from) = mpsc::unbounded_channel();
    let consumer = again.start_from(Start::First).start(move |messages: Vec<Received>| {
        messages.into_iter().for_each(|message| to.send(message).unwrap());
        async { Outcome::Done }
    });
    let consumer = consumer.await.unwrap();
    let last = producer.send(Message::new(&topic, "last").tag("a")).await.unwrap();
    assert_eq!(take(&mut from, 1).await[0].message_id, last.message_id);
    consumer.stop().await;
}

#[tokio::test]
async fn a_failed_message_comes_again_under_its_own_topic() {
    let world = world().await;
    let client = world.client("retry");
    let topic = world.topic(&client, "retried").await;
    let (to, mut from) = mpsc::unbounded_channel();
    let builder = client.push_consumer(&world.name("retriers")).subscribe(&topic, "*").start_from(Start::First);
    let consumer = builder.start(move |messages: Vec<Received>| {
        let first = messages[0].reconsume_times == 0;
        messages.into_iter().for_each(|message| to.send(message).unwrap());
        async move { if first { Outcome::RetryAt(1) } else { Outcome::Done } }
    });
    let consumer = consumer.await.unwrap();
    let producer = client.producer(&world.name("producer")).unwrap();
    let sent = producer.send(Message::new(&topic, "again").tag("t")).await.unwrap();
    let came = take(&mut from, 2).await;
    assert_eq!(came.iter().map(|m| m.reconsume_times).collect::<Vec<_>>(), [0, 1]);
    assert!(came.iter().all(|m| m.topic == topic && m.tag() == Some("t")), "{came:?}");
    assert_eq!(came[1].queue.topic, format!("%RETRY%{}", world.name("retriers")));
    assert_eq!(came[0].message_id, sent.message_id);
    consumer.stop().await;
}

#[tokio::test]
async fn in_order_a_queue_waits_for_what_failed() {
    let world = world().await;
    let client = world.client("order");
    let topic = world.topic(&client, "ordered").await;
    let producer = client.producer(&world.name("producer")).unwrap();
    let (to, mut from) = mpsc::unbounded_channel();
    let failed = Arc::new(AtomicBool::new(false));
    let builder = client.push_consumer(&world.name("orderers")).subscribe(&topic, "*").start_from(Start::First);
    let consumer = builder.pause(Duration::from_millis(50)).start_ordered(move |messages: Vec<Received>| {
        let fail = messages[0].body == "k1 3" && !failed.swap(true, Ordering::SeqCst);
        if !fail {
            messages.into_iter().for_each(|message| to.send(message).unwrap());
        }
        async move { if fail { Outcome::Retry } else { Outcome::Done } }
    });
    let consumer = consumer.await.unwrap();
    for at in 0..8 {
        for key in ["k1", "k2", "k3"] {
            producer.send_ordered(key, Message::new(&topic, format!("{key} {at}"))).await.unwrap();
        }
    }
    let mut by_key: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for message in take(&mut from, 24).await {
        let body = String::from_utf8(message.body.to_vec()).unwrap();
        let (key, at) = body.split_once(' ').unwrap();
        by_key.entry(key.to_owned()).or_default().push(at.to_owned());
    }
    for (key, order) in by_key {
        assert_eq!(order, ["0", "1", "2", "3", "4", "5", "6", "7"], "{key}");
    }
    consumer.stop().await;
}

#[tokio::test]
async fn broadcast_messages_reach_every_member() {
    let world = world().await;
    let client = world.client("cast-a");
    let topic = world.topic(&client, "cast").await;
    let mut consumers = Vec::new();
    for instance in ["cast-b", "cast-c"] {
        let (to, from) = mpsc::unbounded_channel();
        let builder = world.client(instance).push_consumer(&world.name("hearers")).subscribe(&topic, "*");
        let consumer = builder.broadcasting().start_from(Start::First).start(move |messages: Vec<Received>| {
            messages.into_iter().for_each(|message| to.send(message).unwrap());
            async { Outcome::Done }
        });
        consumers.push((consumer.await.unwrap(), from));
    }
    let producer = client.producer(&world.name("producer")).unwrap();
    for at in 0..8 {
        producer.send(Message::new(&topic, at.to_string())).await.unwrap();
    }
    for (consumer, mut from) in consumers {
        assert_eq!(bodies(&take(&mut from, 8).await), ["0", "1", "2", "3", "4", "5", "6", "7"]);
        consumer.stop().await;
    }
}

#[tokio::test]
async fn only_committed_transactions_are_seen_and_undecided_ones_are_asked_about() {
    let world = world().await;
    let client = world.client("half");
    let topic = world.topic(&client, "halves").await;
    let asked = Arc::new(Mutex::new(Vec::new()));
    let remember = asked.clone();
    let producer = client.producer(&world.name("deciders")).unwrap().transactional(move |half| {
        remember.lock().push(String::from_utf8(half.body.to_vec()).unwrap());
        Decision::Commit
    });
    let (to, mut from) = mpsc::unbounded_channel();
    let builder = world.client("half-c").push_consumer(&world.name("seers")).subscribe(&topic, "*");
    let consumer = builder.start_from(Start::First).start(move |messages: Vec<Received>| {
        messages.into_iter().for_each(|message| to.send(message).unwrap());
        async { Outcome::Done }
    });
    let consumer = consumer.await.unwrap();
    for (body, decision) in [("undecided", Decision::Unknown), ("no", Decision::Rollback), ("yes", Decision::Commit)] {
        producer.send(Message::new(&topic, body), |_| async move { decision }).await.unwrap();
    }
    assert_eq!(bodies(&take(&mut from, 1).await), ["yes"]);
    if let Some(broker) = &world.broker {
        broker.ask_about(0);
    }
    assert_eq!(bodies(&take(&mut from, 1).await), ["undecided"]);
    assert_eq!(asked.lock().first().map(String::as_str), Some("undecided"));
    assert!(!asked.lock().contains(&"no".to_owned()));
    consumer.stop().await;
}

#[tokio::test]
async fn a_send_is_tried_again_and_a_hopeless_one_says_why() {
    let world = world().await;
    let client = world.client("again");
    let producer = client.producer(&world.name("producer")).unwrap();
    if let Some(broker) = &world.broker {
        let topic = world.topic(&client, "again").await;
        broker.refuse_sends(2);
        producer.send(Message::new(&topic, "x")).await.unwrap();
        broker.refuse_sends(3);
        let refused = producer.send(Message::new(&topic, "x")).await.unwrap_err();
        assert!(matches!(&refused, Error::Refused { remark, .. } if remark.contains("refused as told")), "{refused}");
        assert_eq!(refused.kind(), Kind::Busy);
        broker.refuse_sends(0);
    }
    assert_eq!(producer.send(Message::new("a b", "x")).await.unwrap_err().kind(), Kind::Invalid);
    let large = vec![0; 5 << 20];
    assert_eq!(producer.send(Message::new("t", large)).await.unwrap_err().kind(), Kind::Invalid);
    // A topic that does not exist is made by the first message.
    let fresh = world.name("fresh");
    let sent = producer.send(Message::new(&fresh, "first")).await.unwrap();
    assert_eq!(sent.queue.topic, fresh);
    let nobody = Client::new(ClientConfig::new(["127.0.0.1:1"])).unwrap();
    let unreachable = nobody.producer("p").unwrap().send(Message::new("t", "x")).await.unwrap_err();
    assert!(unreachable.to_string().contains("127.0.0.1:1"), "{unreachable}");
}
