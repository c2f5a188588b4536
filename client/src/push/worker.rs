use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use sluice_model::{QueueOffset, TopicName};
use sluice_protocol::{
    body::{QueueRef, Subscription},
    request::SendBack,
};
use tokio::sync::{Notify, watch};
use tracing::{debug, warn};

use super::{Consumer, Outcome, Start};
use crate::{Error, Found, Received, pull::Pull};

/// How long consumption that is under way may take to end when the queue is given up.
const END: Duration = Duration::from_secs(10);

/// Consumes one queue.
pub(super) struct Worker {
    pub consumer: Arc<Consumer>,
    pub queue: QueueRef,
    pub subscription: Subscription,
    pub stopped: watch::Receiver<bool>,
    pub progress: Arc<Progress>,
    committed: Option<i64>,
    commit_at: Instant,
}

/// What of a queue was fetched and is not consumed.
#[derive(Default)]
pub(super) struct Progress {
    state: Mutex<State>,
    /// A message was consumed.
    consumed: Notify,
}

#[derive(Default)]
struct State {
    /// Bytes of bodies by offset.
    open: BTreeMap<u64, usize>,
    bytes: usize,
    /// Where to fetch next.
    next: i64,
}

impl Progress {
    pub fn add(&self, messages: &[Received], next: i64) {
        let mut state = self.state.lock();
        for message in messages {
            state.bytes += message.body.len();
            state.open.insert(message.offset.0, message.body.len());
        }
        state.next = next;
    }

    pub fn remove(&self, messages: &[QueueOffset]) {
        let mut state = self.state.lock();
        for offset in messages {
            let bytes = state.open.remove(&offset.0).unwrap_or(0);
            state.bytes = state.bytes.saturating_sub(bytes);
        }
        drop(state);
        self.consumed.notify_one();
    }

    /// Forgets what was fetched and begins at `next`.
    fn seek(&self, next: i64) {
        *self.state.lock() = State { next, ..State::default() };
    }

    fn next(&self) -> i64 {
        self.state.lock().next
    }

    /// Everything before this offset is consumed.
    fn done(&self) -> i64 {
        let state = self.state.lock();
        state.open.first_key_value().map_or(state.next, |(offset, _)| *offset as i64)
    }

    fn has_room(&self, messages: usize, bytes: usize) -> bool {
        let state = self.state.lock();
        state.open.len() < messages && state.bytes < bytes
    }

    fn is_empty(&self) -> bool {
        self.state.lock().open.is_empty()
    }
}

impl Worker {
    pub fn new(
        consumer: Arc<Consumer>,
        queue: QueueRef,
        subscription: Subscription,
        stopped: watch::Receiver<bool>,
    ) -> Self {
        let commit_at = Instant::now() + consumer.client.0.config.commit;
        Self { consumer, queue, subscription, stopped, progress: Arc::default(), committed: None, commit_at }
    }

    pub async fn run(mut self) {
        let mut stopped = self.stopped.clone();
        if self.consumer.ordered && self.consumer.clustering() {
            self.run_ordered(&mut stopped).await;
        } else {
            tokio::select! {
                _ = stopped.wait_for(|stop| *stop) => {}
                () = self.consume_concurrently() => {}
            }
            let _ = tokio::time::timeout(END, self.all_consumed()).await;
        }
        self.commit().await;
    }

    async fn consume_concurrently(&mut self) {
        self.begin().await;
        loop {
            self.room().await;
            let messages = self.fetch().await;
            for part in messages.chunks(self.consumer.options.batch) {
                let (consumer, progress, part) = (self.consumer.clone(), self.progress.clone(), part.to_vec());
                let queue = self.queue.clone();
                tokio::spawn(async move {
                    let offsets: Vec<_> = part.iter().map(|message| message.offset).collect();
                    consume(&consumer, &queue, part).await;
                    progress.remove(&offsets);
                });
            }
        }
    }

    /// Finds where to begin; tries until that is known.
    pub async fn begin(&mut self) {
        loop {
            match self.first_offset().await {
                Ok(offset) => {
                    debug!(queue = %self.queue, offset, "consuming");
                    return self.progress.seek(offset);
                }
                Err(problem) => {
                    warn!(queue = %self.queue, %problem, "cannot find where to begin");
                    self.pause().await;
                }
            }
        }
    }

    async fn first_offset(&mut self) -> Result<i64, Error> {
        let Consumer { client, group, options, .. } = &*self.consumer;
        if self.consumer.clustering()
            && let Some(offset) = client.committed(group, &self.queue).await?
        {
            self.committed = Some(offset.0 as i64);
            return Ok(offset.0 as i64);
        }
        // What failed before must not be passed over.
        let retry = TopicName::retry_of(group).as_str() == self.queue.topic;
        match options.start {
            _ if retry => Ok(0),
            Start::First => client.min_offset(&self.queue).await,
            Start::Last => client.max_offset(&self.queue).await,
            Start::At(time) => client.offset_at(&self.queue, time).await,
        }
    }

    /// The next messages; none when there were none for a time, or after a failure and a pause.
    pub async fn fetch(&mut self) -> Vec<Received> {
        if Instant::now() >= self.commit_at {
            self.commit().await;
        }
        let (next, done) = (self.progress.next(), self.progress.done());
        let Consumer { client, group, options, .. } = &*self.consumer;
        let pull = Pull {
            queue: &self.queue,
            offset: next,
            max_messages: options.pull_batch,
            subscription: Some(&self.subscription),
            wait: client.0.config.poll,
            commit: (self.consumer.clustering() && done > 0).then_some(done),
        };
        match client.pull(group, pull).await {
            Ok(pulled) => {
                if pulled.found == Found::OffsetMoved {
                    warn!(queue = %self.queue, from = next, to = pulled.next_offset, "the offset is not in the queue");
                }
                self.progress.add(&pulled.messages, pulled.next_offset);
                pulled.messages
            }
            Err(problem) => {
                warn!(queue = %self.queue, %problem, "cannot fetch");
                client.forget_route(&self.queue.topic);
                self.pause().await;
                Vec::new()
            }
        }
    }

    /// Waits until fewer messages than may be are fetched and not consumed.
    async fn room(&mut self) {
        let (messages, bytes) = (self.consumer.options.cached_messages, self.consumer.options.cached_bytes);
        while !self.progress.has_room(messages, bytes) {
            self.progress.consumed.notified().await;
        }
    }

    async fn all_consumed(&self) {
        while !self.progress.is_empty() {
            self.progress.consumed.notified().await;
        }
    }

    pub async fn pause(&self) {
        tokio::time::sleep(self.consumer.options.pause).await;
    }

    /// Stores how far the queue is consumed, if it is further than before.
    pub async fn commit(&mut self) {
        self.commit_at = Instant::now() + self.consumer.client.0.config.commit;
        let done = self.progress.done();
        if !self.consumer.clustering() || done <= 0 || self.committed == Some(done) {
            return;
        }
        let offset = QueueOffset(done as u64);
        match self.consumer.client.commit(&self.consumer.group, &self.queue, offset).await {
            Ok(()) => self.committed = Some(done),
            Err(problem) => warn!(queue = %self.queue, %problem, "the offset is not stored"),
        }
    }
}

/// Consumes messages until they are done or given back to the broker.
async fn consume(consumer: &Consumer, queue: &QueueRef, mut messages: Vec<Received>) {
    loop {
        let outcome = consumer.consume(messages.clone()).await;
        let level = match outcome {
            Outcome::Done => return,
            Outcome::Retry => 0,
            Outcome::RetryAt(level) => level,
        };
        if !consumer.clustering() {
            warn!(%queue, "broadcast messages failed; they do not come again");
            return;
        }
        let mut left = Vec::new();
        for message in messages {
            if let Err(problem) = give_back(consumer, &message, level).await {
                warn!(%queue, %problem, "a failed message cannot be given back; it is tried again here");
                left.push(message);
            }
        }
        if left.is_empty() {
            return;
        }
        messages = left;
        tokio::time::sleep(consumer.options.pause).await;
    }
}

/// Gives a failed message back to the broker, which delivers it again later or lays it with the dead letters.
pub(super) async fn give_back(consumer: &Consumer, message: &Received, level: i32) -> Result<(), Error> {
    let request = SendBack {
        offset: message.log_offset,
        group: consumer.group.clone(),
        delay_level: level,
        origin_message_id: Some(message.message_id.clone()),
        origin_topic: Some(message.topic.clone()),
        unit_mode: false,
        max_reconsume_times: Some(consumer.options.max_reconsume_times),
    };
    let address = consumer.client.broker(&message.queue.topic, &message.queue.broker_name, true).await?;
    consumer.client.call(&address, request.encode()).await.map(drop)
}
