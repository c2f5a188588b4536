//! Consuming a queue in order: only while the broker has locked it for this client.

use std::time::{Duration, Instant};

use tokio::sync::watch;
use tracing::warn;

use super::{
    Outcome,
    worker::{Worker, give_back},
};
use crate::Received;

/// How often the lock is renewed; the broker forgets it after 60 s. Source: Apache RocketMQ `RebalanceLockManager`.
const RENEW: Duration = Duration::from_secs(20);
/// How long a lock is trusted that could not be renewed.
const TRUST: Duration = Duration::from_secs(30);

impl Worker {
    /// Consumes until `stopped`; what is under way is ended first.
    pub async fn run_ordered(&mut self, stopped: &mut watch::Receiver<bool>) {
        let mut lock = Lock { asked: None, held: None, lost: true };
        loop {
            let messages = tokio::select! {
                _ = stopped.wait_for(|stop| *stop) => break,
                messages = self.fetch_locked(&mut lock) => messages,
            };
            for part in messages.chunks(self.consumer.options.batch) {
                if !self.consume_in_order(part, &mut lock, stopped).await {
                    break;
                }
            }
            if *stopped.borrow() {
                break;
            }
        }
        self.commit().await;
        if let Err(problem) = self.consumer.client.unlock(&self.consumer.group, &self.queue).await {
            warn!(queue = %self.queue, %problem, "the queue stays locked for a while");
        }
    }

    /// Tries until the messages are done or given back. `false`: the consumer stops, or had lost the lock, and they are
    /// left for who comes next.
    async fn consume_in_order(
        &mut self,
        messages: &[Received],
        lock: &mut Lock,
        stopped: &mut watch::Receiver<bool>,
    ) -> bool {
        let mut tries = 0;
        let offsets: Vec<_> = messages.iter().map(|message| message.offset).collect();
        loop {
            if *stopped.borrow() {
                return false;
            }
            tokio::select! {
                _ = stopped.wait_for(|stop| *stop) => return false,
                () = self.hold(lock) => {}
            }
            if lock.lost {
                return false;
            }
            let mut again = messages.to_vec();
            again.iter_mut().for_each(|message| message.reconsume_times += tries);
            if self.consumer.consume(again).await == Outcome::Done || self.given_up(messages, tries).await {
                self.progress.remove(&offsets);
                return true;
            }
            tries += 1;
            tokio::select! {
                _ = stopped.wait_for(|stop| *stop) => return false,
                () = self.pause() => {}
            }
        }
    }

    /// Gives messages back to the broker that failed too often.
    async fn given_up(&self, messages: &[Received], tries: i32) -> bool {
        let most = self.consumer.options.max_reconsume_times;
        if !messages.iter().all(|message| message.reconsume_times + tries >= most) {
            return false;
        }
        for message in messages {
            if let Err(problem) = give_back(&self.consumer, message, -1).await {
                warn!(queue = %self.queue, %problem, "a failed message cannot be given back");
                return false;
            }
        }
        true
    }

    /// Waits until the queue is locked for this client.
    async fn hold(&self, lock: &mut Lock) {
        loop {
            if lock.asked.is_none_or(|at| at.elapsed() >= RENEW) {
                lock.asked = Some(Instant::now());
                match self.consumer.client.lock(&self.consumer.group, &self.queue).await {
                    Ok(true) => lock.held = Some(Instant::now()),
                    Ok(false) => lock.held = None,
                    Err(problem) => warn!(queue = %self.queue, %problem, "cannot lock the queue"),
                }
            }
            if lock.held.is_some_and(|at| at.elapsed() < TRUST) {
                return;
            }
            lock.lost = true;
            self.pause().await;
            lock.asked = None;
        }
    }

    /// Fetches the next messages under the lock. Another member may have gone on while the lock was lost: then the queue's
    /// offset is asked for anew.
    async fn fetch_locked(&mut self, lock: &mut Lock) -> Vec<Received> {
        self.hold(lock).await;
        if lock.lost {
            self.begin().await;
            lock.lost = false;
        }
        self.fetch().await
    }
}

/// When the broker was last asked for the lock, and last gave it.
struct Lock {
    asked: Option<Instant>,
    held: Option<Instant>,
    /// It was not held all the time since the queue's offset was asked for.
    lost: bool,
}
