//! What a topic's ingress does to producers, and what it must not do.
#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

mod binary;
mod guests;

use std::{
    future::Future,
    time::{Duration, Instant},
};

use binary::{Dev, stderr, stdout};
use futures_util::future::join_all;
use sluice_client::{Client, ClientConfig, Decision, Error, Message, Producer, PullConsumer, QueueRef, Sent, Topic};

/// Apache RocketMQ `ResponseCode.MESSAGE_ILLEGAL`: its clients do not send the message again.
const MESSAGE_ILLEGAL: i32 = 13;

/// Apache RocketMQ `ResponseCode.SYSTEM_BUSY`: its clients try again.
const SYSTEM_BUSY: i32 = 2;

const PAID: &str = "steps: [ { plugin: json-filter, config: { path: /status, equals: paid } } ]";

fn client(dev: &Dev) -> Client {
    // Plugins that never end have their deadlines, and on a slow machine hundreds of messages that wait behind them take a while.
    let timeout = Duration::from_secs(15);
    Client::new(ClientConfig { send_retries: 0, timeout, ..ClientConfig::new([dev.name_server()]) }).unwrap()
}

async fn topics(client: &Client, names: &[&str]) {
    for name in names {
        client.admin().create_topic(&Topic::new(*name, 2)).await.unwrap();
    }
}

fn bind(dev: &Dev, topic: &str, spec: &str) {
    let applied = dev.feed(&["topic", "ingress", "apply", topic, "-f", "-"], spec);
    assert!(applied.status.success(), "{}", stderr(&applied));
}

#[track_caller]
fn refused(error: Error) -> String {
    let Error::Refused { code, remark, .. } = error else { panic!("{error}") };
    assert_eq!(i32::from(code), MESSAGE_ILLEGAL, "{remark}");
    remark
}

/// Sends all at once, in order: a task that gives way in between would send the rest in another.
async fn in_order(sends: impl Iterator<Item = impl Future<Output = Result<Sent, Error>>>) -> Vec<Result<Sent, Error>> {
    tokio::task::unconstrained(join_all(sends)).await
}

async fn first_queue(producer: &Producer, topic: &str) -> QueueRef {
    producer.queues(topic).await.unwrap().into_iter().find(|queue| queue.queue_id == 0).unwrap()
}

/// All that a queue holds.
async fn all(consumer: &PullConsumer, queue: &QueueRef) -> Vec<sluice_client::Received> {
    let (mut all, end) = (Vec::new(), consumer.max_offset(queue).await.unwrap());
    while (all.len() as i64) < end {
        all.extend(consumer.pull(queue, "*", all.len() as i64, 32, Duration::ZERO).await.unwrap().messages);
    }
    all
}

fn bodies(received: &[sluice_client::Received]) -> Vec<String> {
    received.iter().map(|message| String::from_utf8_lossy(&message.body).into_owned()).collect()
}

#[tokio::test]
async fn every_way_of_sending_passes_the_ingress() {
    let dev = Dev::start();
    guests::push(&dev, &["json-filter"]);
    let client = client(&dev);
    topics(&client, &["orders"]).await;
    bind(&dev, "orders", PAID);
    let producer = client.producer("shop").unwrap();
    let order = |status: &str| Message::new("orders", format!("{{\"status\":\"{status}\"}}"));
    let said = "ingress of topic \"orders\": plugin json-filter@1.0.0 rejects";

    producer.send(order("paid")).await.unwrap();
    assert_eq!(refused(producer.send(order("new")).await.unwrap_err()), format!("{said} the message: filtered"));
    let large = Message::new("orders", format!("{{\"status\":\"new\",\"note\":\"{}\"}}", "x".repeat(20_000)));
    assert_eq!(refused(producer.send(large).await.unwrap_err()), format!("{said} the message: filtered"));
    let batch = vec![order("paid"), order("paid"), order("new")];
    let whole = refused(producer.send_batch(batch).await.unwrap_err());
    assert_eq!(whole, format!("{said} message 2 of the batch: filtered"));
    producer.send_batch(vec![order("paid"), order("paid")]).await.unwrap();
    assert_eq!(
        refused(producer.send(order("new").delay_level(1)).await.unwrap_err()),
        format!("{said} the message: filtered")
    );
    assert_eq!(
        refused(producer.send(order("new").delay_ms(100)).await.unwrap_err()),
        format!("{said} the message: filtered")
    );
    producer.send(order("paid").delay_ms(100)).await.unwrap();
    producer.send_oneway(order("new")).await.unwrap();
    producer.send_oneway(order("paid")).await.unwrap();
    let half = client.producer("bank").unwrap().transactional(|_| Decision::Commit);
    let refusal = half.send(order("new"), |_| async { panic!("it is not stored") }).await;
    assert_eq!(refused(refusal.map(drop).unwrap_err()), format!("{said} the message: filtered"));
    half.send(order("paid"), |_| async { Decision::Commit }).await.unwrap();

    let consumer = client.pull_consumer("reader").unwrap();
    let began = Instant::now();
    loop {
        let mut found = Vec::new();
        for queue in consumer.queues("orders").await.unwrap() {
            found.extend(bodies(&all(&consumer, &queue).await));
        }
        assert!(found.iter().all(|body| body == "{\"status\":\"paid\"}"), "{found:?}");
        if found.len() == 6 {
            break;
        }
        assert!(began.elapsed() < Duration::from_secs(10), "{found:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let shown = stdout(&dev.run(&["topic", "ingress", "show", "orders", "-o", "json"]));
    let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
    assert_eq!((&shown["out"], &shown["rejected"]), (&6.into(), &9.into()), "{shown}");
}

#[tokio::test]
async fn messages_are_changed_and_routed_and_their_order_is_kept() {
    let dev = Dev::start();
    guests::push(&dev, &["json-map", "route"]);
    let client = client(&dev);
    topics(&client, &["in", "eu", "us"]).await;
    bind(
        &dev,
        "in",
        "steps:
  - { plugin: json-map, config: { set: { /seen: true }, remove: [ /note ] } }
  - { plugin: route, config: { field: /region, routes: { eu: eu, us: us } } }
sinks: [ eu, us ]",
    );
    let order = |n: usize, region: &str, note: &str| {
        Message::new("in", format!("{{\"n\":{n},\"note\":\"{note}\",\"region\":\"{region}\"}}")).key("k").tag("g")
    };
    let first = client.producer("first").unwrap();
    let queue = first_queue(&first, "in").await;
    // Every tenth is long enough for the client to compress it.
    let send = |n: usize| {
        let note = if n.is_multiple_of(10) { "x".repeat(5_000) } else { String::new() };
        first.send_to(&queue, order(n, if n.is_multiple_of(3) { "us" } else { "eu" }, &note))
    };
    in_order((0..900).map(send)).await.into_iter().for_each(|sent| drop(sent.unwrap()));

    let consumer = client.pull_consumer("reader").unwrap();
    let mut count = 0;
    for region in ["eu", "us"] {
        let queue = QueueRef { topic: region.to_owned(), ..queue.clone() };
        let found = all(&consumer, &queue).await;
        let mut last = None;
        for message in &found {
            let body: serde_json::Value = serde_json::from_slice(&message.body).unwrap();
            assert_eq!((&body["seen"], &body["note"], &body["region"]), (&true.into(), &().into(), &region.into()));
            assert_eq!((message.property("KEYS"), message.property("TAGS")), (Some("k"), Some("g")));
            let n = body["n"].as_u64();
            assert!(n > last, "{n:?} after {last:?}");
            last = n;
        }
        count += found.len();
    }
    assert_eq!(count, 900);
    let mixed = vec![order(0, "eu", ""), order(1, "us", "")];
    let text = refused(first.send_batch(mixed).await.unwrap_err());
    assert!(text.contains("messages of one batch would go to several topics"), "{text}");
    let sent = first.send_batch(vec![order(0, "eu", ""), order(1, "eu", "")]).await.unwrap();
    assert_eq!(sent.message_id.split(',').count(), 2);
}

#[tokio::test]
async fn a_plugin_that_traps_or_never_ends_hurts_its_own_message_only() {
    let dev = Dev::start();
    guests::push_hostile(&dev);
    let client = client(&dev);
    topics(&client, &["bad", "lenient", "calm"]).await;
    bind(&dev, "bad", "steps: [ { plugin: hostile } ]\nlimits: { deadline: 20ms }");
    bind(&dev, "lenient", "steps: [ { plugin: hostile } ]\nlimits: { deadline: 20ms }\non_failure: pass");
    let producer = client.producer("producer").unwrap();
    let (bad, lenient) = (first_queue(&producer, "bad").await, first_queue(&producer, "lenient").await);
    let body = |n: usize| match n % 20 {
        3 => "trap".to_owned(),
        7 => "loop".to_owned(),
        11 => "drop".to_owned(),
        13 => "dead".to_owned(),
        17 => "retry".to_owned(),
        _ => format!("m{n}"),
    };
    let began = Instant::now();
    let sends = in_order((0..400).map(|n| producer.send_to(&bad, Message::new("bad", body(n)))));
    let passes = in_order((0..400).map(|n| producer.send_to(&lenient, Message::new("lenient", body(n)))));
    let calm = async {
        for n in 0..50 {
            producer.send(Message::new("calm", n.to_string())).await.unwrap();
        }
        began.elapsed()
    };
    let (sent, passed, calm) = tokio::join!(sends, passes, calm);
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    assert!(calm < Duration::from_secs(5), "a topic beside it waited {calm:?}");
    let mut good = Vec::new();
    for (n, sent) in sent.into_iter().enumerate() {
        let Err(error) = sent else {
            good.push(body(n));
            continue;
        };
        let text = refused(error);
        let plugin = "ingress of topic \"bad\": plugin hostile@1.2.3";
        let said = match body(n).as_str() {
            "trap" => format!("{plugin} fails on the message: the plugin trapped"),
            "loop" => format!("{plugin} fails on the message: the plugin ran longer than its deadline of 20 ms"),
            "drop" => format!("{plugin} rejects the message: filtered"),
            "dead" => format!("{plugin} rejects the message: asked: attempt 0"),
            "retry" => format!("{plugin} fails on the message: asked: attempt 0"),
            other => panic!("{other} was refused: {text}"),
        };
        assert!(text.starts_with(&said), "{text}");
    }
    let consumer = client.pull_consumer("reader").unwrap();
    assert!(bodies(&all(&consumer, &bad).await) == good);
    assert_eq!(good.len(), 300);
    let kept: Vec<String> = (0..400).map(body).filter(|body| body != "drop" && body != "dead").collect();
    assert_eq!(passed.iter().filter(|sent| sent.is_ok()).count(), kept.len());
    assert!(bodies(&all(&consumer, &lenient).await) == kept);
    let logs = stdout(&dev.run(&["topic", "ingress", "logs", "bad"]));
    assert!(logs.contains("ingress of topic \"bad\": failed on"), "{logs}");
}

#[tokio::test]
async fn a_plugin_that_fails_on_everything_is_not_asked_for_a_while() {
    let dev = Dev::start();
    guests::push_hostile(&dev);
    guests::push(&dev, &["json-filter"]);
    let client = client(&dev);
    topics(&client, &["strict", "lenient"]).await;
    bind(&dev, "strict", "steps: [ { plugin: hostile, config: { mode: loop } } ]");
    bind(&dev, "lenient", "steps: [ { plugin: hostile, config: { mode: loop } } ]\non_failure: pass");
    let show = |topic: &str| -> serde_json::Value {
        serde_json::from_str(&stdout(&dev.run(&["topic", "ingress", "show", topic, "-o", "json"]))).unwrap()
    };
    let producer = client.producer("producer").unwrap();

    let queue = first_queue(&producer, "lenient").await;
    let sent = in_order((0..400).map(|n| producer.send_to(&queue, Message::new("lenient", n.to_string())))).await;
    assert!(sent.iter().all(Result::is_ok));
    let stored = bodies(&all(&client.pull_consumer("reader").unwrap(), &queue).await);
    assert!(stored.into_iter().eq((0..400).map(|n| n.to_string())));
    let shown = show("lenient");
    let (failed, unasked) = (shown["failed"].as_u64().unwrap(), shown["unasked"].as_u64().unwrap());
    assert_eq!((&shown["state"], failed + unasked), (&"resting".into(), 400), "{shown}");
    assert!(unasked > 300, "{shown}");

    let paid = || Message::new("strict", "{\"status\":\"paid\"}");
    let mut refusals = 0;
    let busy = loop {
        let Err(Error::Refused { code, remark, .. }) = producer.send(paid()).await else { panic!("it was stored") };
        if i32::from(code) == SYSTEM_BUSY {
            break remark;
        }
        assert!(remark.contains("fails on the message: the plugin ran longer than its deadline"), "{remark}");
        refusals += 1;
        assert!(refusals < 100, "{}", show("strict"));
    };
    let said = "plugin hostile@1.2.3 fails on most of what it is given from one side and is not asked about that for a while; the last failure: the plugin ran longer";
    assert!(busy.contains(said), "{busy}");
    bind(&dev, "strict", PAID);
    producer.send(paid()).await.unwrap();
    assert_eq!(show("strict")["state"], "running");
}

#[tokio::test]
async fn one_producers_poison_closes_the_ingress_for_no_other() {
    let dev = Dev::start();
    guests::push_hostile(&dev);
    let [bad, good] = [client(&dev), client(&dev)];
    topics(&good, &["t"]).await;
    bind(&dev, "t", "steps: [ { plugin: hostile } ]");
    let [bad, good] = [bad.producer("bad").unwrap(), good.producer("good").unwrap()];
    let mut refusals = 0;
    let busy = loop {
        let Err(Error::Refused { code, remark, .. }) = bad.send(Message::new("t", "trap")).await else {
            panic!("it was stored")
        };
        if i32::from(code) == SYSTEM_BUSY {
            break remark;
        }
        refusals += 1;
        assert!(refusals < 100, "it is asked all the time");
        good.send(Message::new("t", "m")).await.unwrap();
    };
    assert!(busy.contains("fails on most of what it is given from one side"), "{busy}");
    // However often it fails again.
    for _ in 0..20 {
        let Err(Error::Refused { .. }) = bad.send(Message::new("t", "trap")).await else { panic!("it was stored") };
        good.send(Message::new("t", "m")).await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let shown = stdout(&dev.run(&["topic", "ingress", "show", "t", "-o", "json"]));
    let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
    assert_eq!((&shown["state"], &shown["out"]), (&"resting".into(), &(refusals + 20).into()), "{shown}");
}

#[tokio::test]
async fn an_ingress_that_comes_and_goes_under_load_keeps_the_order() {
    let dev = Dev::start();
    guests::push(&dev, &["json-map"]);
    let client = client(&dev);
    topics(&client, &["busy"]).await;
    let producer = client.producer("producer").unwrap();
    let queue = first_queue(&producer, "busy").await;
    let send = |n: usize| producer.send_to(&queue, Message::new("busy", format!("{{\"n\":{n}}}")));
    let change = tokio::task::spawn_blocking(move || {
        for _ in 0..5 {
            bind(&dev, "busy", "steps: [ { plugin: json-map, config: { set: { /a: 1 } } } ]");
            bind(&dev, "busy", "steps: [ { plugin: json-map, config: { set: { /b: 2 } } } ]");
            assert!(dev.run(&["topic", "ingress", "delete", "busy"]).status.success());
        }
        dev
    });
    let mut n = 0;
    while !change.is_finished() {
        in_order((n..n + 100).map(send)).await.into_iter().for_each(|sent| drop(sent.unwrap()));
        n += 100;
    }
    let _dev = change.await.unwrap();
    let consumer = client.pull_consumer("reader").unwrap();
    let found = bodies(&all(&consumer, &queue).await);
    let number =
        |body: &String| serde_json::from_str::<serde_json::Value>(body).unwrap()["n"].as_u64().unwrap() as usize;
    assert!(found.iter().map(number).eq(0..n), "the order of {n} messages is not kept");
    assert!(found.iter().any(|body| body.contains("\"a\"")) && found.iter().any(|body| body.contains("\"b\"")));
}

#[tokio::test]
async fn a_slow_ingress_is_deleted_soon_and_the_server_stops() {
    let mut dev = Dev::start();
    guests::push_hostile(&dev);
    let client = client(&dev);
    topics(&client, &["slow", "slower"]).await;
    for topic in ["slow", "slower"] {
        bind(&dev, topic, "steps: [ { plugin: hostile } ]\nlimits: { deadline: 1s }");
    }
    let producer = client.producer("producer").unwrap();
    for topic in ["slow", "slower"] {
        for _ in 0..60 {
            producer.send_oneway(Message::new(topic, "loop")).await.unwrap();
        }
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    let began = Instant::now();
    let deleted = dev.run(&["topic", "ingress", "delete", "slow"]);
    assert!(deleted.status.success(), "{}", stderr(&deleted));
    assert!(began.elapsed() < Duration::from_secs(12), "{:?}", began.elapsed());
    producer.send(Message::new("slow", "loop")).await.unwrap();
    let began = Instant::now();
    dev.terminate();
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
}
