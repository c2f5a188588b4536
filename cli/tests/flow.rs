//! Flow control: who sends or receives more than may be is told so, and what to do.
#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

mod binary;

use std::time::{Duration, Instant};

use binary::Dev;
use sluice_client::{Client, ClientConfig, Error, Message, Topic};

/// Apache RocketMQ `ResponseCode`: `SYSTEM_BUSY`, `FLOW_CONTROL`.
const SYSTEM_BUSY: i32 = 2;
const FLOW_CONTROL: i32 = 215;

fn client(dev: &Dev) -> Client {
    Client::new(ClientConfig { send_retries: 0, ..ClientConfig::new([dev.name_server()]) }).unwrap()
}

#[track_caller]
fn check_refusal(error: Error, code: i32, words: &str) {
    let Error::Refused { code: got, remark, .. } = error else { panic!("{error}") };
    assert_eq!(i32::from(got), code, "{remark}");
    assert!(remark.starts_with("[OVERLOAD]") && remark.contains(words) && remark.contains("try again in"), "{remark}");
}

#[tokio::test]
async fn a_connection_that_sends_too_much_is_refused_and_others_are_not() {
    let dev = Dev::start_with("send_rate_per_connection = 50");
    let (hasty, calm) = (client(&dev), client(&dev));
    hasty.admin().create_topic(&Topic::new("limited", 1)).await.unwrap();
    let producer = hasty.producer("hasty").unwrap();
    let mut sent = 0;
    let began = Instant::now();
    let refused = loop {
        match producer.send(Message::new("limited", "m")).await {
            Ok(_) => sent += 1,
            Err(error) => break error,
        }
        assert!(began.elapsed() < Duration::from_secs(30), "{sent} were sent and none was refused");
    };
    check_refusal(refused, SYSTEM_BUSY, "more than 50 messages a second");
    assert!(sent >= 50, "{sent}");
    calm.producer("calm").unwrap().send(Message::new("limited", "m")).await.unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    producer.send(Message::new("limited", "m")).await.unwrap();
}

#[tokio::test]
async fn a_group_that_receives_too_much_is_refused_until_the_rate_is_kept_and_loses_nothing() {
    let dev = Dev::start_with("receive_rate_per_group = 100");
    let client = client(&dev);
    client.admin().create_topic(&Topic::new("limited", 1)).await.unwrap();
    let producer = client.producer("producer").unwrap();
    let messages = |count: usize| (0..count).map(|_| Message::new("limited", "m")).collect();
    producer.send_batch(messages(400)).await.unwrap();
    let consumer = client.pull_consumer("consumer").unwrap();
    let queue = consumer.queues("limited").await.unwrap().remove(0);
    let (mut at, mut refusals) = (0, 0);
    let began = Instant::now();
    while at < 400 {
        match consumer.pull(&queue, "*", at, 32, Duration::ZERO).await {
            Ok(pulled) => at = pulled.next_offset,
            Err(error) => {
                check_refusal(error, FLOW_CONTROL, "group consumer receives more than 100");
                refusals += 1;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
    // 100 may come at once, and the last 31 are not waited for.
    assert!(refusals > 0 && began.elapsed() >= Duration::from_millis(2_600), "{refusals}, {:?}", began.elapsed());
    let other = client.pull_consumer("other").unwrap();
    assert_eq!(other.pull(&queue, "*", 0, 32, Duration::ZERO).await.unwrap().messages.len(), 32);
}
