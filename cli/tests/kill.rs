//! kill -9 under load: what was acknowledged is there, once, where it was said to be, and no group is ahead of the log.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test ends where it fails")]

mod binary;

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use binary::{Dev, free_offset};
use sluice_client::{Client, ClientConfig, Message, Outcome, Pulled, QueueRef, Topic};

const KILLS: u64 = 20;
const PRODUCERS: usize = 4;
const QUEUES: u32 = 4;
/// Fewer acknowledged messages than this between two kills, and the run says nothing.
const LEAST: usize = 20;

/// What the broker said of a message: its queue and offset.
type Acknowledged = HashMap<String, (QueueRef, u64)>;

#[test]
fn nothing_acknowledged_is_lost_or_doubled_over_twenty_kills() {
    let data = tempfile::tempdir().unwrap();
    let offset = free_offset();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (mut acknowledged, next) = (Acknowledged::new(), Arc::new(AtomicU64::new(0)));
    for kill in 0..KILLS {
        let dev = Dev::start_in(data.path(), offset);
        let before = acknowledged.len();
        runtime.block_on(async {
            let client = client(&dev);
            if kill == 0 {
                client.admin().create_topic(&Topic::new("load", QUEUES)).await.unwrap();
            }
            let stop = Arc::new(AtomicBool::new(false));
            let producers: Vec<_> = (0..PRODUCERS)
                .map(|_| tokio::spawn(produce(client.producer("load-producer").unwrap(), next.clone(), stop.clone())))
                .collect();
            let consumer = client.push_consumer("load-consumer").subscribe("load", "*");
            let consumer = consumer.start(|_| async { Outcome::Done }).await.unwrap();
            // Another moment each time, so that the kills meet the log in different states.
            tokio::time::sleep(Duration::from_millis(250 + kill * 37 % 200)).await;
            dev.kill();
            stop.store(true, Ordering::Release);
            for producer in producers {
                acknowledged.extend(producer.await.unwrap());
            }
            drop(consumer);
        });
        assert!(acknowledged.len() - before >= LEAST, "kill {kill} met a broker that did nothing");
    }
    let dev = Dev::start_in(data.path(), offset);
    runtime.block_on(async { judge(&client(&dev), &acknowledged).await });
}

fn client(dev: &Dev) -> Client {
    // No second try: a message whose fate is unknown must not be sent again, or twice in the log would mean nothing.
    let config = ClientConfig {
        send_retries: 0,
        timeout: Duration::from_secs(5),
        commit: Duration::from_millis(50),
        ..ClientConfig::new([dev.name_server()])
    };
    Client::new(config).unwrap()
}

async fn produce(producer: sluice_client::Producer, next: Arc<AtomicU64>, stop: Arc<AtomicBool>) -> Acknowledged {
    let mut acknowledged = Acknowledged::new();
    while !stop.load(Ordering::Acquire) {
        let id = format!("m{}", next.fetch_add(1, Ordering::Relaxed));
        // An error leaves the message's fate unknown.
        if let Ok(sent) = producer.send(Message::new("load", id.clone()).key(&id)).await {
            acknowledged.insert(id, (sent.queue, sent.offset.0));
        }
    }
    acknowledged
}

async fn judge(client: &Client, acknowledged: &Acknowledged) {
    let (admin, reader) = (client.admin(), client.pull_consumer("load-judge").unwrap());
    let (mut stored, mut seen) = (HashMap::new(), HashSet::new());
    for queue in admin.queues("load").await.unwrap() {
        let end = admin.max_offset(&queue).await.unwrap();
        let mut at = 0;
        while at < end {
            let Pulled { messages, next_offset, .. } = reader.pull(&queue, "*", at, 32, Duration::ZERO).await.unwrap();
            for message in messages {
                assert_eq!(message.offset.0, at as u64, "offsets of {queue} are dense");
                at += 1;
                let id = String::from_utf8(message.body.to_vec()).unwrap();
                assert!(seen.insert(id.clone()), "{id} is in the log twice");
                stored.insert(id, (queue.clone(), message.offset.0));
            }
            assert_eq!(next_offset, at, "{queue} ends early");
        }
        if let Some(committed) = admin.committed("load-consumer", &queue).await.unwrap() {
            assert!(committed.0 as i64 <= end, "the group is at {committed} of {queue}, which ends at {end}");
        }
    }
    for (id, place) in acknowledged {
        assert_eq!(stored.get(id), Some(place), "{id} was acknowledged");
    }
}
