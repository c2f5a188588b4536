//! Reading what is there as fast as the broker gives it.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use sluice_client::{Client, ClientConfig, Filter, PullConsumer, QueueRef, Received};
use tokio::task::JoinSet;

use crate::{Error, Report, Stop, process::Watch, report::Tally, stop::Quota};

/// Most messages asked for at a time.
const BATCH: usize = 160;
/// How long the broker may hold a pull.
const PATIENCE: Duration = Duration::from_millis(500);

/// A plan to read messages, from the first that is there.
#[derive(Clone, Debug)]
pub struct Consume {
    pub name_servers: Vec<String>,
    pub topic: String,
    /// Each has a connection of its own and a share of the queues.
    pub consumers: usize,
    pub filter: Filter,
    /// Each queue is locked before it is read, and its messages must come in their order, each once.
    pub ordered: bool,
    /// Without one it ends with the messages that were there at the start.
    pub stop: Stop,
    /// A process to watch, usually the broker.
    pub pid: Option<u32>,
}

/// Carries the plan out.
pub async fn consume(plan: Consume) -> Result<Report, Error> {
    let mut consumers = Vec::with_capacity(plan.consumers);
    for number in 0..plan.consumers {
        consumers.push(Arc::new(connect(&plan, number)?));
    }
    let none = || Error::Invalid { field: "consumers", problem: "expected at least one".to_owned() };
    let first = consumers.first().ok_or_else(none)?;
    let mut parts = Vec::new();
    for queue in first.queues(&plan.topic).await? {
        let (from, until) = (first.min_offset(&queue).await?, first.max_offset(&queue).await?);
        // Told when to stop, it waits for more.
        let until = plan.stop.check().is_err().then_some(until);
        parts.push((queue, from, until));
    }
    let watch = plan.pid.map(Watch::start).transpose()?;

    let (began, quota) = (Instant::now(), Arc::new(plan.stop.start()));
    let mut workers = JoinSet::new();
    for (at, (queue, from, until)) in parts.into_iter().enumerate() {
        let consumer = consumers[at % consumers.len()].clone();
        let part = Part { queue, from, until, filter: plan.filter.clone(), ordered: plan.ordered, locked: None };
        workers.spawn(part.read(consumer, quota.clone()));
    }
    let mut all = Tally::default();
    while let Some(tally) = workers.join_next().await {
        all.merge(&tally??);
    }
    let took = began.elapsed();
    Ok(all.report(took, watch.map(|watch| watch.end()).transpose()?))
}

fn connect(plan: &Consume, number: usize) -> Result<PullConsumer, Error> {
    let mut config = ClientConfig::new(plan.name_servers.clone());
    config.instance_name = format!("bench-{}-{number}", std::process::id());
    Ok(Client::new(config)?.pull_consumer("sluice-bench")?)
}

/// How often the lock of a queue is renewed; a broker forgets it after 60 s.
const RENEW: Duration = Duration::from_secs(20);

/// A queue to read.
struct Part {
    queue: QueueRef,
    from: i64,
    /// Where to end; `None`: wait for more.
    until: Option<i64>,
    filter: Filter,
    ordered: bool,
    /// When the queue was last locked.
    locked: Option<Instant>,
}

impl Part {
    async fn read(mut self, consumer: Arc<PullConsumer>, quota: Arc<Quota>) -> Result<Tally, Error> {
        let mut tally = Tally::default();
        let mut offset = self.from;
        while !quota.is_over() && self.until.is_none_or(|until| offset < until) {
            if self.ordered {
                self.hold_lock(&consumer).await?;
            }
            let began = Instant::now();
            // What is read to an end is all there: a broker that waits for more would only wait.
            let patience = if self.until.is_some() { Duration::ZERO } else { PATIENCE };
            let pulled = consumer.pull(&self.queue, self.filter.clone(), offset, BATCH, patience).await?;
            if self.ordered {
                self.check_order(offset, &pulled.messages)?;
            }
            offset = pulled.next_offset;
            if pulled.messages.is_empty() {
                continue;
            }
            tally.latencies.record(began.elapsed());
            let taken = quota.take(pulled.messages.len() as u64);
            tally.messages += taken;
            tally.bytes +=
                pulled.messages.iter().take(taken as usize).map(|message| message.body.len() as u64).sum::<u64>();
        }
        if self.ordered {
            consumer.unlock(&self.queue).await?;
        }
        Ok(tally)
    }

    async fn hold_lock(&mut self, consumer: &PullConsumer) -> Result<(), Error> {
        if self.locked.is_none_or(|at| at.elapsed() >= RENEW) {
            if !consumer.lock(&self.queue).await? {
                return Err(Error::Locked { queue: self.queue.clone() });
            }
            self.locked = Some(Instant::now());
        }
        Ok(())
    }

    fn check_order(&self, mut least: i64, messages: &[Received]) -> Result<(), Error> {
        for message in messages {
            let got = message.offset.0 as i64;
            if got < least {
                return Err(Error::Order { queue: self.queue.clone(), least, got });
            }
            least = got + 1;
        }
        Ok(())
    }
}
