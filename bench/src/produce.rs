//! Sending messages as fast as the broker takes them.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use sluice_client::{Client, ClientConfig, Decision, Message, Producer, QueueRef, Topic, TransactionProducer};
use tokio::task::JoinSet;

use crate::{Error, Report, Stop, process::Watch, report::Tally, stop::Quota};

/// Failures in a row after which a worker gives up.
const FAILURES: u32 = 100;

/// What becomes of a message between its producer and its consumers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Consumers see it at once.
    Plain,
    /// Consumers see it after the time of a level of the broker's table, 1 to 18.
    Level(u8),
    /// Consumers see it after a time of its own.
    Delay(Duration),
    /// It is a half message, and is committed as soon as it is stored.
    Transaction,
}

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
    pub fate: Fate,
    /// Each producer keeps to one queue, so that its messages have an order.
    pub ordered: bool,
    /// A property that counts each worker's messages, modulo 100.
    pub counter: Option<String>,
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
        producers.push(Arc::new(Sender::connect(&plan, number)?));
    }
    let queues = Arc::new(open(&plan, &producers).await?);
    let body = body(plan.size);
    let watch = plan.pid.map(Watch::start).transpose()?;

    let (began, quota) = (Instant::now(), Arc::new(plan.stop.start()));
    let mut workers = JoinSet::new();
    for (number, producer) in producers.iter().enumerate() {
        for lane in 0..plan.in_flight {
            let first = number + lane * plan.producers;
            let load = Load {
                queues: queues.clone(),
                turn: if plan.ordered { number } else { first },
                step: usize::from(!plan.ordered),
                message: plan.message(body.clone()),
                counter: plan.counter.clone(),
            };
            workers.spawn(load.send(producer.clone(), quota.clone()));
        }
    }
    let mut all = Tally::default();
    while let Some(tally) = workers.join_next().await {
        all.merge(&tally??);
    }
    let took = began.elapsed();
    for (producer, queue) in producers.iter().zip(queues.iter().cycle()) {
        producer.settle(queue).await?;
    }
    Ok(all.report(took, watch.map(|watch| watch.end()).transpose()?))
}

impl Produce {
    fn message(&self, body: Bytes) -> Message {
        let message = Message::new(self.topic.clone(), body);
        match self.fate {
            Fate::Plain | Fate::Transaction => message,
            Fate::Level(level) => message.delay_level(level),
            Fate::Delay(delay) => message.delay_ms(i64::try_from(delay.as_millis()).unwrap_or(i64::MAX)),
        }
    }
}

/// A producer with a connection of its own.
struct Sender {
    client: Client,
    kind: Kind,
}

enum Kind {
    Plain(Producer),
    Transactions(TransactionProducer),
}

impl Sender {
    fn connect(plan: &Produce, number: usize) -> Result<Self, Error> {
        let mut config = ClientConfig::new(plan.name_servers.clone());
        config.instance_name = format!("bench-{}-{number}", std::process::id());
        // A load generator that repeats failed sends hides them.
        config.send_retries = 0;
        config.compress_above = usize::MAX;
        let client = Client::new(config)?;
        let producer = client.producer("sluice-bench")?;
        let kind = match plan.fate {
            // A decision that was lost on the way is a commit as well.
            Fate::Transaction => Kind::Transactions(producer.transactional(|_| Decision::Commit)),
            Fate::Plain | Fate::Level(_) | Fate::Delay(_) => Kind::Plain(producer),
        };
        Ok(Self { client, kind })
    }

    /// Waits until the broker has read everything that was sent: decisions are not answered.
    async fn settle(&self, queue: &QueueRef) -> Result<(), sluice_client::Error> {
        self.client.admin().max_offset(queue).await.map(drop)
    }

    /// The producer of a transaction cannot choose the queue.
    async fn send(&self, queue: &QueueRef, message: Message) -> Result<(), sluice_client::Error> {
        match &self.kind {
            Kind::Plain(producer) => producer.send_to(queue, message).await.map(drop),
            Kind::Transactions(producer) => producer.send(message, |_| async { Decision::Commit }).await.map(drop),
        }
    }

    fn plain(&self) -> &Producer {
        match &self.kind {
            Kind::Plain(producer) => producer,
            Kind::Transactions(producer) => producer.plain(),
        }
    }
}

/// Makes the topic, opens every connection with a plain message, and finds the queues, so that none of it is measured.
async fn open(plan: &Produce, producers: &[Arc<Sender>]) -> Result<Vec<QueueRef>, Error> {
    let none = || Error::Invalid { field: "producers", problem: "expected at least one".to_owned() };
    let first = producers.first().ok_or_else(none)?;
    if let Some(queues) = plan.queues {
        let client = Client::new(ClientConfig::new(plan.name_servers.clone()))?;
        client.admin().create_topic(&Topic::new(&plan.topic, queues)).await?;
    }
    for producer in producers {
        producer.plain().send(Message::new(plan.topic.clone(), body(plan.size))).await?;
    }
    Ok(first.plain().queues(&plan.topic).await?)
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

/// What one worker sends.
struct Load {
    queues: Arc<Vec<QueueRef>>,
    /// The queue of the next message, modulo their number.
    turn: usize,
    step: usize,
    message: Message,
    counter: Option<String>,
}

impl Load {
    async fn send(mut self, sender: Arc<Sender>, quota: Arc<Quota>) -> Result<Tally, Error> {
        let mut tally = Tally::default();
        let mut failures = 0;
        while quota.take_one() {
            let queue = &self.queues[self.turn % self.queues.len()];
            self.turn += self.step;
            let mut message = self.message.clone();
            if let Some(counter) = &self.counter {
                message = message.property(counter, &(tally.messages % 100).to_string());
            }
            let began = Instant::now();
            match sender.send(queue, message).await {
                Ok(()) => {
                    failures = 0;
                    tally.latencies.record(began.elapsed());
                    tally.messages += 1;
                    tally.bytes += self.message.body.len() as u64;
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
}
