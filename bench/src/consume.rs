//! Reading what is there as fast as the broker gives it.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use sluice_client::{Client, ClientConfig, PullConsumer, QueueRef};
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
        workers.spawn(read(consumer, quota.clone(), queue, from, until));
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

async fn read(
    consumer: Arc<PullConsumer>,
    quota: Arc<Quota>,
    queue: QueueRef,
    from: i64,
    until: Option<i64>,
) -> Result<Tally, Error> {
    let mut tally = Tally::default();
    let mut offset = from;
    while !quota.is_over() && until.is_none_or(|until| offset < until) {
        let began = Instant::now();
        let pulled = consumer.pull(&queue, "*", offset, BATCH, PATIENCE).await?;
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
    Ok(tally)
}
