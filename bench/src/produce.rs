//! Sending messages as fast as the broker takes them.

use std::{sync::Arc, time::Instant};

use bytes::Bytes;
use sluice_client::{Client, ClientConfig, Message, Producer, QueueRef, Topic};
use tokio::task::JoinSet;

use crate::{Error, Report, Stop, process::Watch, report::Tally, stop::Quota};

/// Failures in a row after which a worker gives up.
const FAILURES: u32 = 100;

/// A plan to send messages.
#[derive(Clone, Debug)]
pub struct Produce {
    pub name_servers: Vec<String>,
    pub topic: String,
    /// Each has a connection of its own.
    pub producers: usize,
    /// Sends of one producer that wait for their answer at a time.
    pub in_flight: usize,
    /// Bytes of a body.
    pub size: usize,
    /// Makes the topic with so many queues.
    pub queues: Option<u32>,
    pub stop: Stop,
    /// A process to watch, usually the broker.
    pub pid: Option<u32>,
}

/// Carries the plan out.
pub async fn produce(plan: Produce) -> Result<Report, Error> {
    plan.stop.check()?;
    let mut producers = Vec::with_capacity(plan.producers);
    for number in 0..plan.producers {
        producers.push(Arc::new(connect(&plan, number)?));
    }
    let queues = Arc::new(open(&plan, &producers).await?);
    let body = body(plan.size);
    let watch = plan.pid.map(Watch::start).transpose()?;

    let (began, quota) = (Instant::now(), Arc::new(plan.stop.start()));
    let mut workers = JoinSet::new();
    for (number, producer) in producers.iter().enumerate() {
        for lane in 0..plan.in_flight {
            let first = number + lane * plan.producers;
            let message = Message::new(plan.topic.clone(), body.clone());
            workers.spawn(send(producer.clone(), quota.clone(), queues.clone(), first, message));
        }
    }
    let mut all = Tally::default();
    while let Some(tally) = workers.join_next().await {
        all.merge(&tally??);
    }
    let took = began.elapsed();
    Ok(all.report(took, watch.map(|watch| watch.end()).transpose()?))
}

fn connect(plan: &Produce, number: usize) -> Result<Producer, Error> {
    let mut config = ClientConfig::new(plan.name_servers.clone());
    config.instance_name = format!("bench-{}-{number}", std::process::id());
    // A load generator that repeats failed sends hides them.
    config.send_retries = 0;
    config.compress_above = usize::MAX;
    Ok(Client::new(config)?.producer("sluice-bench")?)
}

/// Makes the topic, opens every connection, and finds the queues, so that none of it is measured.
async fn open(plan: &Produce, producers: &[Arc<Producer>]) -> Result<Vec<QueueRef>, Error> {
    let none = || Error::Invalid { field: "producers", problem: "expected at least one".to_owned() };
    let first = producers.first().ok_or_else(none)?;
    if let Some(queues) = plan.queues {
        let client = Client::new(ClientConfig::new(plan.name_servers.clone()))?;
        client.admin().create_topic(&Topic::new(&plan.topic, queues)).await?;
    }
    for producer in producers {
        producer.send(Message::new(plan.topic.clone(), body(plan.size))).await?;
    }
    Ok(first.queues(&plan.topic).await?)
}

/// Bytes that do not compress to nothing.
fn body(size: usize) -> Bytes {
    let mut state = 0x9E37_79B9_7F4A_7C15u64;
    let next = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    (0..size).map(next).collect()
}

async fn send(
    producer: Arc<Producer>,
    quota: Arc<Quota>,
    queues: Arc<Vec<QueueRef>>,
    first: usize,
    message: Message,
) -> Result<Tally, Error> {
    let mut tally = Tally::default();
    let mut failures = 0;
    let mut turn = first;
    while quota.take_one() {
        let queue = &queues[turn % queues.len()];
        turn += 1;
        let began = Instant::now();
        match producer.send_to(queue, message.clone()).await {
            Ok(_) => {
                failures = 0;
                tally.latencies.record(began.elapsed());
                tally.messages += 1;
                tally.bytes += message.body.len() as u64;
            }
            Err(last) => {
                failures += 1;
                tally.failed += 1;
                tracing::debug!(%last, "a send failed");
                if failures == FAILURES {
                    return Err(Error::Failing { failures, last });
                }
            }
        }
    }
    Ok(tally)
}
