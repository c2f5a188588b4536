//! What a group's filter does to what its members receive, and what it must not do.
#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

mod binary;
mod guests;

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use binary::{Dev, stderr, stdout};
use sluice_client::{Client, ClientConfig, Found, Message, Outcome, Producer, PullConsumer, QueueRef, Start, Topic};
use sluice_model::QueueOffset;

const PAID: [&str; 4] = ["--plugin", "json-filter", "--config", r#"{"path":"/status","equals":"paid"}"#];

/// A topic with one queue, and a group that is known.
async fn world(dev: &Dev, group: &str) -> (Client, Producer, PullConsumer, QueueRef) {
    let client = Client::new(ClientConfig::new([dev.name_server()])).unwrap();
    client.admin().create_topic(&Topic::new("t", 1)).await.unwrap();
    let consumer = client.pull_consumer(group).unwrap();
    let queue = consumer.queues("t").await.unwrap().remove(0);
    consumer.commit(&queue, QueueOffset(0)).await.unwrap();
    let producer = client.producer("producer").unwrap();
    (client, producer, consumer, queue)
}

fn bind(dev: &Dev, group: &str, args: &[&str]) {
    let applied = dev.run(&[&["group", "filter", "apply", group, "t"], args].concat());
    assert!(applied.status.success(), "{}", stderr(&applied));
}

fn order(n: usize, status: &str) -> Message {
    Message::new("t", format!("{{\"n\":{n},\"status\":\"{status}\"}}"))
}

fn status(n: usize) -> &'static str {
    if n.is_multiple_of(5) { "paid" } else { "new" }
}

fn text(message: &sluice_client::Received) -> String {
    String::from_utf8_lossy(&message.body).into_owned()
}

#[tokio::test]
async fn a_pull_gets_what_the_filter_keeps_and_moves_past_the_rest() {
    let dev = Dev::start();
    guests::push(&dev, &["json-filter"]);
    let (client, producer, consumer, queue) = world(&dev, "g").await;
    let tag = |n: usize| if n.is_multiple_of(2) { "even" } else { "odd" };
    for n in 0..100 {
        // Some are long enough for the client to compress them.
        let message = if n == 50 {
            Message::new("t", format!("{{\"status\":\"paid\",\"note\":\"{}\"}}", "x".repeat(9_000)))
        } else {
            order(n, status(n))
        };
        producer.send(message.tag(tag(n))).await.unwrap();
    }
    bind(&dev, "g", &PAID);
    let (mut at, mut offsets) = (0, Vec::new());
    while at < 100 {
        let pulled = consumer.pull(&queue, "*", at, 32, Duration::ZERO).await.unwrap();
        assert!(pulled.next_offset > at, "{pulled:?}");
        offsets.extend(pulled.messages.iter().map(|message| message.offset.0));
        at = pulled.next_offset;
    }
    assert_eq!(offsets, (0..100).filter(|n| n % 5 == 0).collect::<Vec<_>>());
    let even = consumer.pull(&queue, "even", 0, 32, Duration::ZERO).await.unwrap();
    assert_eq!(even.messages.iter().map(|message| message.offset.0).collect::<Vec<_>>(), [0, 10, 20, 30, 40, 50, 60]);
    let none = consumer.pull(&queue, "*", 1, 4, Duration::ZERO).await.unwrap();
    assert_eq!((none.found, none.messages.len(), none.next_offset), (Found::NoMatch, 0, 5));
    let other = client.pull_consumer("other").unwrap().pull(&queue, "*", 0, 32, Duration::ZERO).await.unwrap();
    assert_eq!(other.messages.len(), 32, "another group gets everything");
    let shown = stdout(&dev.run(&["group", "filter", "show", "g", "t", "-o", "json"]));
    let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
    assert_eq!((&shown["out"], &shown["failed"]), (&27.into(), &0.into()), "{shown}");
    let gone = dev.run(&["group", "filter", "delete", "g", "t"]);
    assert!(gone.status.success(), "{}", stderr(&gone));
    assert_eq!(consumer.pull(&queue, "*", 1, 4, Duration::ZERO).await.unwrap().messages.len(), 4);
}

#[tokio::test]
async fn a_held_pull_waits_behind_what_the_filter_drops() {
    let dev = Dev::start();
    guests::push(&dev, &["json-filter"]);
    let (_client, producer, consumer, queue) = world(&dev, "g").await;
    bind(&dev, "g", &PAID);
    let began = Instant::now();
    let pull = consumer.pull(&queue, "*", 0, 32, Duration::from_secs(10));
    let send = async {
        for n in 0..20 {
            producer.send(order(n, "new")).await.unwrap();
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let sent = began.elapsed();
        producer.send(order(20, "paid")).await.unwrap();
        sent
    };
    let (pulled, sent) = tokio::join!(pull, send);
    let pulled = pulled.unwrap();
    assert!(began.elapsed() > sent && began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    assert_eq!((pulled.messages.len(), pulled.messages[0].offset.0, pulled.next_offset), (1, 20, 21));
    producer.send(order(21, "new")).await.unwrap();
    let nothing = consumer.pull(&queue, "*", 21, 32, Duration::from_millis(300)).await.unwrap();
    assert_eq!((nothing.messages.len(), nothing.next_offset), (0, 22), "{nothing:?}");
    // One request finds the one that is wanted among many.
    for _ in 0..50 {
        producer.send_batch((0..100).map(|n| order(n, "new")).collect()).await.unwrap();
    }
    producer.send(order(0, "paid")).await.unwrap();
    let pulled = consumer.pull(&queue, "*", 22, 32, Duration::from_secs(10)).await.unwrap();
    assert_eq!((pulled.messages.len(), pulled.next_offset), (1, 5_023));
}

#[tokio::test]
async fn what_a_member_failed_on_comes_again_unasked() {
    let dev = Dev::start();
    guests::push(&dev, &["json-filter"]);
    let (client, producer, _, _) = world(&dev, "g").await;
    bind(&dev, "g", &PAID);
    for n in 0..20 {
        producer.send(order(n, status(n))).await.unwrap();
    }
    let seen: Arc<Mutex<Vec<(String, i32)>>> = Arc::default();
    let its = seen.clone();
    let listen = move |messages: Vec<sluice_client::Received>| {
        let its = its.clone();
        async move {
            let first = messages.iter().any(|message| message.reconsume_times == 0);
            its.lock().unwrap().extend(messages.iter().map(|message| (text(message), message.reconsume_times)));
            if first { Outcome::RetryAt(1) } else { Outcome::Done }
        }
    };
    let consumer =
        client.push_consumer("g").subscribe("t", "*").start_from(Start::First).batch(1).start(listen).await.unwrap();
    // By now nothing passes the filter: what comes again is not asked about.
    let none = [PAID[0], PAID[1], PAID[2], r#"{"path":"/status","equals":"nothing"}"#];
    let began = Instant::now();
    let count = |times| seen.lock().unwrap().iter().filter(|(_, tried)| *tried == times).count();
    while count(0) < 4 {
        assert!(began.elapsed() < Duration::from_secs(20), "{:?}", seen.lock().unwrap());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    bind(&dev, "g", &none);
    while count(1) < 4 {
        assert!(began.elapsed() < Duration::from_secs(40), "{:?}", seen.lock().unwrap());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    consumer.stop().await;
    let expected: BTreeSet<String> = (0..20).step_by(5).map(|n| format!("{{\"n\":{n},\"status\":\"paid\"}}")).collect();
    assert_eq!(seen.lock().unwrap().iter().map(|(body, _)| body.clone()).collect::<BTreeSet<_>>(), expected);
    assert_eq!(seen.lock().unwrap().len(), 8);
}

#[tokio::test]
async fn a_filter_that_traps_or_never_ends_loses_nothing_and_holds_nobody_up() {
    let dev = Dev::start();
    guests::push_hostile(&dev);
    let (client, producer, consumer, queue) = world(&dev, "g").await;
    let strict = client.pull_consumer("strict").unwrap();
    strict.commit(&queue, QueueOffset(0)).await.unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "plugin: hostile\nlimits: { deadline: 20ms }\n").unwrap();
    bind(&dev, "g", &["-f", file.path().to_str().unwrap()]);
    std::fs::write(file.path(), "plugin: hostile\nlimits: { deadline: 20ms }\non_failure: skip\n").unwrap();
    bind(&dev, "strict", &["-f", file.path().to_str().unwrap()]);
    let body = |n: usize| match n % 16 {
        3 => "trap".to_owned(),
        7 => "loop".to_owned(),
        11 => "drop".to_owned(),
        _ => format!("m{n}"),
    };
    for n in 0..64 {
        producer.send(Message::new("t", body(n))).await.unwrap();
    }
    let all = |consumer: PullConsumer| async {
        let (queue, consumer) = (queue.clone(), consumer);
        let (mut at, mut found) = (0, Vec::new());
        while at < 64 {
            let pulled = consumer.pull(&queue, "*", at, 32, Duration::ZERO).await.unwrap();
            assert!(pulled.next_offset > at, "{pulled:?}");
            found.extend(pulled.messages.iter().map(text));
            at = pulled.next_offset;
        }
        (found, Instant::now())
    };
    let began = Instant::now();
    let calm = all(client.pull_consumer("calm").unwrap());
    let (lenient, strict, calm) = tokio::join!(all(consumer), all(strict), calm);
    assert!(calm.1 - began < Duration::from_secs(3), "a group beside them waited {:?}", calm.1 - began);
    assert!(calm.0.iter().map(String::as_str).eq((0..64).map(body).collect::<Vec<_>>().iter().map(String::as_str)));
    let kept: Vec<String> = (0..64).map(body).filter(|body| body != "drop").collect();
    assert!(lenient.0 == kept, "{:?}", lenient.0);
    let good: Vec<String> = kept.into_iter().filter(|body| body.starts_with('m')).collect();
    assert!(strict.0 == good, "{:?}", strict.0);
    let shown = stdout(&dev.run(&["group", "filter", "show", "strict", "t", "-o", "json"]));
    let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
    assert_eq!((&shown["failed"], &shown["rejected"]), (&8.into(), &12.into()), "{shown}");
    assert!(shown["traps"].as_u64().unwrap() >= 8, "{shown}");
}
