use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use sluice_protocol::{
    ResponseCode,
    body::{QueueRef, Subscription},
};
use tokio::{
    sync::{Notify, watch},
    task::JoinHandle,
};
use tracing::{debug, warn};

use super::{Consumer, allocate::averagely, worker::Worker};
use crate::Error;

/// How soon a topic is looked for again that does not exist: the broker makes the retry topic at the first heartbeat.
const MISSING: Duration = Duration::from_secs(1);

/// Gives the consumer the queues that are its share, and takes away those that no longer are.
pub(crate) struct Rebalance {
    consumer: Arc<Consumer>,
    wake: Arc<Notify>,
    stopped: watch::Receiver<bool>,
    workers: HashMap<QueueRef, Running>,
}

struct Running {
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Rebalance {
    pub fn new(consumer: Arc<Consumer>, wake: Arc<Notify>, stopped: watch::Receiver<bool>) -> Self {
        Self { consumer, wake, stopped, workers: HashMap::new() }
    }

    pub async fn run(mut self) {
        let consumer = self.consumer.clone();
        let every = consumer.client.0.config.rebalance;
        loop {
            let mut missing = false;
            for subscription in &consumer.subscriptions {
                match self.share(subscription).await {
                    Ok(Some(share)) => self.apply(subscription, share).await,
                    Ok(None) => missing = true,
                    Err(problem) => warn!(topic = subscription.topic, %problem, "the queues stay as they are"),
                }
            }
            tokio::select! {
                _ = self.stopped.wait_for(|stop| *stop) => break,
                () = self.wake.notified() => {}
                () = tokio::time::sleep(if missing { every.min(MISSING) } else { every }) => {}
            }
        }
        let workers = std::mem::take(&mut self.workers);
        for running in workers.values() {
            running.stop.send_replace(true);
        }
        for running in workers.into_values() {
            end(running).await;
        }
    }

    /// The queues of a topic that are this member's share; `None` while the topic or the member is not known.
    async fn share(&self, subscription: &Subscription) -> Result<Option<BTreeSet<QueueRef>>, Error> {
        let Consumer { client, group, .. } = &*self.consumer;
        let queues = match client.read_queues(&subscription.topic).await {
            Ok(queues) => queues,
            Err(Error::Refused { code: ResponseCode::TopicNotExist, .. }) => return Ok(None),
            Err(problem) => return Err(problem),
        };
        if !self.consumer.clustering() {
            return Ok(Some(queues.into_iter().collect()));
        }
        let mut members = client.members(group, &subscription.topic).await?;
        members.sort_unstable();
        let Some(me) = members.iter().position(|member| *member == client.0.id) else {
            // The broker has not heard of us, or forgot.
            client.0.callbacks.heartbeat.notify_one();
            return Ok(None);
        };
        let share = averagely(queues.len(), members.len(), me);
        Ok(Some(queues.into_iter().skip(share.start).take(share.len()).collect()))
    }

    async fn apply(&mut self, subscription: &Subscription, share: BTreeSet<QueueRef>) {
        let of_topic = |queue: &&QueueRef| queue.topic == subscription.topic && !share.contains(queue);
        let lost: Vec<_> = self.workers.keys().filter(of_topic).cloned().collect();
        for queue in lost {
            if let Some(running) = self.workers.remove(&queue) {
                debug!(%queue, "another member's queue now");
                running.stop.send_replace(true);
                end(running).await;
            }
        }
        for queue in share {
            let consumer = &self.consumer;
            self.workers.entry(queue).or_insert_with_key(|queue| {
                let (stop, stopped) = watch::channel(false);
                let worker = Worker::new(consumer.clone(), queue.clone(), subscription.clone(), stopped);
                Running { stop, task: tokio::spawn(worker.run()) }
            });
        }
    }
}

async fn end(running: Running) {
    // A panic of the task has been reported by tokio.
    let _ = running.task.await;
}
