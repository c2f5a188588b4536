//! How long messages take at a steady rate: to their acknowledgement, and to a consumer, of another topic where a pipeline is between.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use serde::Serialize;
use sluice_client::{Client, ClientConfig, Filter, Message, Producer, PullConsumer, QueueRef};
use tokio::{
    sync::{Semaphore, mpsc},
    task::JoinSet,
};

use crate::{Error, Latency, histogram::Histogram};

/// Sends that may wait for their answer; beyond it the rate is not held, and the latencies say so.
const IN_FLIGHT: usize = 1_024;
/// Most messages asked for at a time.
const BATCH: usize = 160;
/// How long the broker may hold a pull.
const PATIENCE: Duration = Duration::from_millis(200);
/// How long messages are sent that do not count: the first find no connection, and code that is not in memory yet.
const WARM_UP: Duration = Duration::from_millis(500);
/// How long the last messages are waited for.
const STRAGGLERS: Duration = Duration::from_secs(20);

/// A plan to send messages at a steady rate and to wait for each on the other side.
#[derive(Clone, Debug)]
pub struct Relay {
    pub name_servers: Vec<String>,
    pub topic: String,
    /// Where they come out.
    pub sink: String,
    /// Messages a second.
    pub rate: u32,
    /// Bytes of a body, which is JSON with a `status` of `paid`.
    pub size: usize,
    /// How long, behind half a second of messages that do not count.
    pub duration: Duration,
}

/// What came of it, once it was under way.
#[derive(Clone, Debug, Serialize)]
pub struct RelayReport {
    pub sent: u64,
    pub received: u64,
    pub failed: u64,
    /// From a message's turn to its acknowledgement.
    pub send: Latency,
    /// From a message's turn until a consumer has it.
    pub end_to_end: Latency,
}

/// Carries the plan out.
pub async fn relay(plan: Relay) -> Result<RelayReport, Error> {
    if plan.rate == 0 || plan.duration.is_zero() {
        let problem = "expected at least one message a second, and a duration".to_owned();
        return Err(Error::Invalid { field: "rate", problem });
    }
    let client = |side: &str| {
        let mut config = ClientConfig::new(plan.name_servers.clone());
        config.instance_name = format!("bench-{}-{side}", std::process::id());
        Client::new(config)
    };
    let producer = Arc::new(client("out")?.producer("sluice-bench")?);
    let consumer = Arc::new(client("in")?.pull_consumer("sluice-bench")?);
    let queues = Arc::new(producer.queues(&plan.topic).await?);
    let mut ends = Vec::new();
    for queue in consumer.queues(&plan.sink).await? {
        let end = consumer.max_offset(&queue).await?;
        ends.push((queue, end));
    }
    let clock = Instant::now();
    let mut readers = JoinSet::new();
    let until = clock + WARM_UP + plan.duration + STRAGGLERS;
    let total = (WARM_UP + plan.duration).as_millis() as u64 * u64::from(plan.rate) / 1_000;
    let left = Arc::new(Semaphore::new(usize::try_from(total).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS)));
    for (queue, from) in ends {
        readers.spawn(read(consumer.clone(), queue, from, clock, until, left.clone()));
    }
    let (sends, failed) = send(&plan, &producer, &queues, clock, total).await;
    let lost = usize::try_from(failed).unwrap_or(usize::MAX);
    left.forget_permits(lost);
    let mut ends = Histogram::default();
    while let Some(read) = readers.join_next().await {
        ends.merge(&read??);
    }
    Ok(RelayReport {
        sent: sends.total(),
        received: ends.total(),
        failed,
        send: sends.latency(),
        end_to_end: ends.latency(),
    })
}

/// Sends a message at each turn; gives the latencies, and how many sends failed.
async fn send(
    plan: &Relay,
    producer: &Arc<Producer>,
    queues: &Arc<Vec<QueueRef>>,
    clock: Instant,
    total: u64,
) -> (Histogram, u64) {
    let mut turns = pace(clock, Duration::from_secs(1) / plan.rate, total);
    let room = Arc::new(Semaphore::new(IN_FLIGHT));
    let mut waiting = JoinSet::new();
    for turn in 0..total {
        let Some(due) = turns.recv().await else { break };
        let Ok(permit) = room.clone().acquire_owned().await else { break };
        let (producer, queues) = (producer.clone(), queues.clone());
        let since = due.duration_since(clock);
        let message = Message::new(plan.topic.clone(), body(since, plan.size));
        waiting.spawn(async move {
            let _permit = permit;
            let queue = &queues[turn as usize % queues.len()];
            producer.send_to(queue, message).await.map(|_| (counts(since), due.elapsed()))
        });
    }
    let (mut latencies, mut failed) = (Histogram::default(), 0);
    while let Some(sent) = waiting.join_next().await {
        match sent {
            Ok(Ok((true, took))) => latencies.record(took),
            Ok(Ok((false, _))) => {}
            _ => failed += 1,
        }
    }
    (latencies, failed)
}

/// The times at which messages are due. A thread of its own sleeps until each: the runtime's timers are good to a millisecond or two, which
/// is as much as what is measured.
fn pace(mut turn: Instant, period: Duration, total: u64) -> mpsc::Receiver<Instant> {
    let (turns, due) = mpsc::channel(IN_FLIGHT);
    std::thread::spawn(move || {
        for _ in 0..total {
            std::thread::sleep(turn.saturating_duration_since(Instant::now()));
            if turns.blocking_send(turn).is_err() {
                return;
            }
            turn += period;
        }
    });
    due
}

/// Reads one queue until all messages came, or for as long as stragglers are waited for.
async fn read(
    consumer: Arc<PullConsumer>,
    queue: QueueRef,
    mut offset: i64,
    clock: Instant,
    until: Instant,
    left: Arc<Semaphore>,
) -> Result<Histogram, Error> {
    let mut latencies = Histogram::default();
    while left.available_permits() > 0 && Instant::now() < until {
        let pulled = consumer.pull(&queue, Filter::from("*"), offset, BATCH, PATIENCE).await?;
        offset = pulled.next_offset;
        for message in &pulled.messages {
            if let Some(sent) = sent_at(&message.body) {
                if counts(sent) {
                    latencies.record(clock.elapsed().saturating_sub(sent));
                }
                left.forget_permits(1);
            }
        }
    }
    Ok(latencies)
}

/// Whether a message counts that was due so long after the start.
fn counts(due: Duration) -> bool {
    due >= WARM_UP
}

/// The time since the start at which it was due, and what fills it up.
fn body(due: Duration, size: usize) -> String {
    let head = format!(r#"{{"sent":{},"status":"paid","note":""#, due.as_nanos());
    format!(r#"{head}{}"}}"#, "x".repeat(size.saturating_sub(head.len() + 2)))
}

fn sent_at(body: &[u8]) -> Option<Duration> {
    let rest = std::str::from_utf8(body).ok()?.strip_prefix(r#"{"sent":"#)?;
    rest.split(',').next()?.parse().ok().map(Duration::from_nanos)
}

impl fmt::Display for RelayReport {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(out, "messages    {} sent, {} received, {} failed", self.sent, self.received, self.failed)?;
        let line = |of: &Latency| format!("p50 {:.0} us, p99 {:.0} us, max {:.0} us", of.p50_us, of.p99_us, of.max_us);
        writeln!(out, "send        {}", line(&self.send))?;
        write!(out, "end to end  {}", line(&self.end_to_end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_says_when_it_was_sent() {
        let text = body(Duration::from_nanos(4711), 200);
        assert_eq!((text.len(), sent_at(text.as_bytes())), (200, Some(Duration::from_nanos(4711))));
        assert_eq!(sent_at(b"{}"), None);
    }
}
