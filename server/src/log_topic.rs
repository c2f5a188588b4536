//! The lines of a pipeline's plugins on their way to a topic: a bounded queue, and a thread that empties it.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::sync_channel,
    },
    thread::JoinHandle,
    time::Duration,
};

use parking_lot::{Condvar, Mutex};
use serde::Serialize;
use sluice_broker::Send;
use sluice_model::{Kind, Message, Properties, QueueId, Timestamp, TopicName, key};

use crate::{
    failure::{Failure, Result},
    observer::Line,
    shell::Shell,
    units::time_text,
};

/// Lines that may wait: with the longest ones, 4 MiB.
const WAITING_LIMIT: usize = 1_024;
/// Lines of one send, one in each [`PACE`]: a plugin that writes without end gets 1,280 lines a second into the log.
const BATCH: usize = 128;
const PACE: Duration = Duration::from_millis(100);

/// Lines that wait. A stage puts them in and is never held up: what does not fit is counted.
#[derive(Default)]
pub struct Outbox {
    waiting: Mutex<Waiting>,
    rung: Condvar,
    sent: AtomicU64,
    lost: AtomicU64,
}

#[derive(Default)]
struct Waiting {
    lines: VecDeque<Line>,
    /// No more are taken.
    closed: bool,
}

impl Outbox {
    pub fn push(&self, line: Line) {
        let mut waiting = self.waiting.lock();
        if waiting.closed || waiting.lines.len() == WAITING_LIMIT {
            self.lost.fetch_add(1, Ordering::Relaxed);
            return;
        }
        waiting.lines.push_back(line);
        if waiting.lines.len() == 1 {
            self.rung.notify_one();
        }
    }

    /// Lines that are in the topic.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Lines that did not fit, or that the topic did not take.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// The first lines, as soon as there are some; `None` when no more will come.
    fn take(&self) -> Option<Vec<Line>> {
        let mut waiting = self.waiting.lock();
        while waiting.lines.is_empty() {
            if waiting.closed {
                return None;
            }
            self.rung.wait(&mut waiting);
        }
        let count = waiting.lines.len().min(BATCH);
        Some(waiting.lines.drain(..count).collect())
    }

    /// Lets time pass, but not once it is closed.
    fn pace(&self) {
        let mut waiting = self.waiting.lock();
        self.rung.wait_while_for(&mut waiting, |waiting| !waiting.closed, PACE);
    }

    fn close(&self) {
        self.waiting.lock().closed = true;
        self.rung.notify_one();
    }
}

/// A handle on the thread that sends a pipeline's lines. Dropping it sends what waits and ends the thread.
pub struct LogTopic {
    outbox: Arc<Outbox>,
    thread: Option<JoinHandle<()>>,
}

impl LogTopic {
    pub fn start(shell: Shell, pipeline: &str, topic: TopicName, outbox: Arc<Outbox>) -> Result<Self> {
        // Who sends for a plugin is no other that pipelines would give way to.
        let shell = shell.standing_back();
        let sender = Sender { shell, pipeline: pipeline.to_owned(), topic, outbox: outbox.clone(), told: false };
        let thread = std::thread::Builder::new()
            .name(format!("logs {pipeline}"))
            .spawn(move || sender.run())
            .map_err(|error| Failure::new(Kind::Busy, format!("no thread for logs: {error}")))?;
        Ok(Self { outbox, thread: Some(thread) })
    }
}

impl Drop for LogTopic {
    fn drop(&mut self) {
        self.outbox.close();
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread of a pipeline's logs panicked");
        }
    }
}

struct Sender {
    shell: Shell,
    pipeline: String,
    topic: TopicName,
    outbox: Arc<Outbox>,
    /// A failure was told, and nothing went through since.
    told: bool,
}

/// A line as the body of a message.
#[derive(Serialize)]
struct Body<'a> {
    time: String,
    level: &'a str,
    pipeline: &'a str,
    step: &'a str,
    queue: u32,
    plugin: String,
    message: &'a str,
    fields: BTreeMap<&'a str, &'a str>,
}

impl Sender {
    fn run(mut self) {
        while let Some(lines) = self.outbox.take() {
            match self.send(&lines) {
                Ok(()) => {
                    self.outbox.sent.fetch_add(lines.len() as u64, Ordering::Relaxed);
                    self.told = false;
                }
                Err(failure) => {
                    self.outbox.lost.fetch_add(lines.len() as u64, Ordering::Relaxed);
                    if !std::mem::replace(&mut self.told, true) {
                        let (pipeline, topic) = (&self.pipeline, &self.topic);
                        tracing::warn!(pipeline, %topic, %failure, "lines of plugins do not get into their topic");
                    }
                }
            }
            self.outbox.pace();
        }
    }

    /// Sends the lines, in their order to one queue, and waits until the topic has them.
    fn send(&self, lines: &[Line]) -> Result<()> {
        let messages = lines.iter().map(|line| self.message(line)).collect::<Result<_>>()?;
        let send = Send { messages, queue: None, template: None, max_reconsume_times: None };
        let (answer, receive) = sync_channel(1);
        self.shell.send(send, move |result, _| drop(answer.try_send(result.map(drop))));
        self.shell.work();
        receive.recv().unwrap_or_else(|_| Err(Failure::new(Kind::Unavailable, "the broker is shutting down")))
    }

    fn message(&self, line: &Line) -> Result<Message> {
        let time = Timestamp(line.at);
        let body = Body {
            time: time_text(time),
            level: line.level,
            pipeline: &self.pipeline,
            step: &line.step,
            queue: line.queue,
            plugin: format!("sha256:{}", line.plugin),
            message: &line.message,
            fields: line.fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect(),
        };
        let body = serde_json::to_vec(&body).map_err(|error| Failure::new(Kind::Internal, error.to_string()))?;
        let properties = Properties::from_pairs([(key::KEYS, self.pipeline.as_str()), (key::TAGS, line.level)])?;
        Ok(Message::new(self.topic.clone(), QueueId(0), time, properties, body.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(number: usize) -> Line {
        Line {
            at: 0,
            level: "info",
            step: "s".to_owned(),
            queue: 0,
            plugin: String::new(),
            message: number.to_string(),
            fields: Vec::new(),
        }
    }

    #[test]
    fn what_does_not_fit_is_counted_and_what_waits_is_taken_after_the_end() {
        let outbox = Outbox::default();
        (0..WAITING_LIMIT + 3).for_each(|number| outbox.push(line(number)));
        assert_eq!(outbox.lost(), 3);
        outbox.close();
        outbox.push(line(0));
        assert_eq!(outbox.lost(), 4);
        let (mut taken, mut expected) = (0, 0);
        while let Some(lines) = outbox.take() {
            taken += lines.len();
            for line in lines {
                assert_eq!(line.message, expected.to_string());
                expected += 1;
            }
        }
        assert_eq!(taken, WAITING_LIMIT);
    }
}
