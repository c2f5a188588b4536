//! A consumer that is given messages as they come.

mod allocate;
mod ordered;
mod rebalance;
mod worker;

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use sluice_model::{GroupName, Timestamp, TopicName};
use sluice_protocol::body::{ConsumeFromWhere, ConsumeType, HeartbeatConsumer, MessageModel, Subscription};
use tokio::{
    sync::{Notify, Semaphore, watch},
    task::JoinHandle,
};

use crate::{Client, Error, Filter, Received, id, push::rebalance::Rebalance};

/// What became of messages that a listener was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// They are consumed.
    Done,
    /// They are to come again, after a time that the broker decides; in order: the queue waits.
    Retry,
    /// They are to come again after the time of this delay level; negative: to the dead letters at once.
    RetryAt(i32),
}

/// Where a group begins with a queue of which it has no offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    First,
    Last,
    At(Timestamp),
}

type Listening = Pin<Box<dyn Future<Output = Outcome> + Send>>;
pub(crate) type Listener = Arc<dyn Fn(Vec<Received>) -> Listening + Send + Sync>;

/// How a push consumer is to run.
#[derive(Clone)]
pub(crate) struct Options {
    group: String,
    subscriptions: Vec<(String, Filter)>,
    model: MessageModel,
    start: Start,
    concurrency: usize,
    batch: usize,
    pull_batch: usize,
    cached_messages: usize,
    cached_bytes: usize,
    max_reconsume_times: i32,
    pause: Duration,
}

impl Options {
    pub fn new(group: &str) -> Self {
        Self {
            group: group.to_owned(),
            subscriptions: Vec::new(),
            model: MessageModel::Clustering,
            start: Start::Last,
            concurrency: 20,
            batch: 1,
            pull_batch: 32,
            cached_messages: 1000,
            cached_bytes: 100 * 1024 * 1024,
            max_reconsume_times: 16,
            pause: Duration::from_secs(1),
        }
    }
}

/// Sets up a push consumer. Made by [`Client::push_consumer`].
#[derive(Clone)]
pub struct PushConsumerBuilder {
    client: Client,
    options: Options,
}

impl PushConsumerBuilder {
    pub(crate) fn new(client: Client, options: Options) -> Self {
        Self { client, options }
    }

    /// Wants the messages of a topic that `filter` wants. All members of a group must subscribe alike.
    pub fn subscribe(mut self, topic: &str, filter: impl Into<Filter>) -> Self {
        self.options.subscriptions.push((topic.to_owned(), filter.into()));
        self
    }

    /// Every member gets every message. Failed messages do not come again, and offsets are not kept: a consumer begins where
    /// [`Self::start_from`] says.
    pub fn broadcasting(mut self) -> Self {
        self.options.model = MessageModel::Broadcasting;
        self
    }

    /// Where to begin without an offset; the end of the queue if this is not called.
    pub fn start_from(mut self, start: Start) -> Self {
        self.options.start = start;
        self
    }

    /// Most calls of the listener at a time (20). In order, queues are consumed side by side.
    pub fn concurrency(mut self, calls: usize) -> Self {
        self.options.concurrency = calls.max(1);
        self
    }

    /// Most messages that a listener is given at once (1).
    pub fn batch(mut self, messages: usize) -> Self {
        self.options.batch = messages.max(1);
        self
    }

    /// Most messages, and most bytes of bodies, of one queue that are here and not consumed (1000, 100 MiB).
    pub fn cache(mut self, messages: usize, bytes: usize) -> Self {
        (self.options.cached_messages, self.options.cached_bytes) = (messages.max(1), bytes.max(1));
        self
    }

    /// How often a message may fail before it goes to the dead letters (16).
    pub fn max_reconsume_times(mut self, times: i32) -> Self {
        self.options.max_reconsume_times = times;
        self
    }

    /// How long a queue rests after a failure (1 s).
    pub fn pause(mut self, pause: Duration) -> Self {
        self.options.pause = pause;
        self
    }

    /// Starts; messages of a queue are consumed side by side.
    ///
    /// Fails when a name is malformed, nothing is subscribed to, or no name server answers.
    pub async fn start<F>(
        self,
        listener: impl Fn(Vec<Received>) -> F + Send + Sync + 'static,
    ) -> Result<PushConsumer, Error>
    where
        F: Future<Output = Outcome> + Send + 'static,
    {
        self.run(Arc::new(move |messages| Box::pin(listener(messages))), false).await
    }

    /// Starts; messages of a queue are consumed one after the other in their order, by one member of the group.
    ///
    /// Fails as [`Self::start`].
    pub async fn start_ordered<F>(
        self,
        listener: impl Fn(Vec<Received>) -> F + Send + Sync + 'static,
    ) -> Result<PushConsumer, Error>
    where
        F: Future<Output = Outcome> + Send + 'static,
    {
        self.run(Arc::new(move |messages| Box::pin(listener(messages))), true).await
    }

    async fn run(self, listener: Listener, ordered: bool) -> Result<PushConsumer, Error> {
        let Self { client, options } = self;
        let group = GroupName::parse(&options.group)?;
        if options.subscriptions.is_empty() {
            return Err(Error::Invalid { field: "subscriptions", problem: "expected a topic, got none".into() });
        }
        let version = id::now().0;
        let mut subscriptions = Vec::new();
        for (topic, filter) in &options.subscriptions {
            subscriptions.push(filter.subscription(TopicName::parse(topic)?.as_str(), version));
            match client.route(topic).await {
                // It may come to be.
                Ok(_) | Err(Error::Refused { .. }) => {}
                Err(problem) => return Err(problem),
            }
        }
        if options.model == MessageModel::Clustering {
            subscriptions.push(Subscription::by_tags(TopicName::retry_of(&group).as_str(), "*", version));
        }
        let wake = Arc::new(Notify::new());
        client.0.callbacks.rebalances.lock().insert(group.clone(), wake.clone());
        client.join_consumers(&group, heartbeat(&options, &subscriptions)).await;
        let (stop, stopped) = watch::channel(false);
        let consumer = Arc::new(Consumer {
            client,
            group,
            permits: Arc::new(Semaphore::new(options.concurrency)),
            options,
            subscriptions,
            listener,
            ordered,
        });
        let task = tokio::spawn(Rebalance::new(consumer.clone(), wake, stopped).run());
        Ok(PushConsumer { consumer, stop, task })
    }
}

fn heartbeat(options: &Options, subscriptions: &[Subscription]) -> HeartbeatConsumer {
    HeartbeatConsumer {
        consume_from_where: match options.start {
            Start::First => ConsumeFromWhere::First,
            Start::Last => ConsumeFromWhere::Last,
            Start::At(_) => ConsumeFromWhere::Time,
        },
        consume_type: ConsumeType::Passively,
        group_name: options.group.clone(),
        message_model: options.model,
        subscriptions: subscriptions.to_vec(),
        unit_mode: false,
    }
}

/// What all tasks of a consumer share.
pub(crate) struct Consumer {
    client: Client,
    group: GroupName,
    options: Options,
    subscriptions: Vec<Subscription>,
    listener: Listener,
    ordered: bool,
    /// Calls of the listener.
    permits: Arc<Semaphore>,
}

impl Consumer {
    fn clustering(&self) -> bool {
        self.options.model == MessageModel::Clustering
    }

    /// Gives messages to the listener. One that panics has failed.
    async fn consume(&self, messages: Vec<Received>) -> Outcome {
        let Ok(_permit) = self.permits.clone().acquire_owned().await else { return Outcome::Retry };
        let listening = (self.listener)(messages);
        tokio::spawn(listening).await.unwrap_or_else(|problem| {
            tracing::error!(group = %self.group, %problem, "the listener failed");
            Outcome::Retry
        })
    }
}

/// A running consumer. Dropping it stops it without waiting for anything.
pub struct PushConsumer {
    consumer: Arc<Consumer>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl PushConsumer {
    /// Fetches no more, waits for the listener to end with what it has, stores the offsets and leaves the group.
    pub async fn stop(self) {
        self.stop.send_replace(true);
        // A panic of the task has been reported by tokio.
        let _ = self.task.await;
        self.consumer.client.0.callbacks.rebalances.lock().remove(&self.consumer.group);
        self.consumer.client.leave_consumers(&self.consumer.group).await;
    }
}
