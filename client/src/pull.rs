use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use sluice_model::{GroupName, QueueOffset, Timestamp, TopicName};
use sluice_protocol::{
    ResponseCode,
    body::{QueueRef, Subscription},
    reply::{OffsetReply, PullReply},
    request::{MaxOffset, MinOffset, PullMessage, QueryConsumerOffset, SearchOffset, UpdateConsumerOffset},
};

use crate::{Client, Error, Filter, Received, client::refusal};

/// How long a broker that holds a pull may take beyond the time it was given.
const GRACE: Duration = Duration::from_secs(15);

/// A consumer that asks for what it wants, queue by queue. Made by [`Client::pull_consumer`].
pub struct PullConsumer {
    client: Client,
    group: GroupName,
    /// Queues that [`Self::poll`] reads, each with its position.
    assigned: Mutex<HashMap<QueueRef, i64>>,
    turn: Mutex<usize>,
}

/// Why a pull brought no messages, or that it did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    Messages,
    /// There is none yet.
    Nothing,
    /// There are messages, but none that was wanted.
    NoMatch,
    /// The queue does not reach to that offset, or no longer does; go on from [`Pulled::next_offset`].
    OffsetMoved,
}

/// What a pull brought.
#[derive(Clone, Debug)]
pub struct Pulled {
    pub found: Found,
    pub messages: Vec<Received>,
    pub next_offset: i64,
    pub min_offset: i64,
    pub max_offset: i64,
}

/// A pull, in full.
pub(crate) struct Pull<'a> {
    pub queue: &'a QueueRef,
    pub offset: i64,
    pub max_messages: usize,
    pub subscription: Option<&'a Subscription>,
    pub wait: Duration,
    pub commit: Option<i64>,
}

impl PullConsumer {
    pub(crate) fn new(client: Client, group: GroupName) -> Self {
        Self { client, group, assigned: Mutex::default(), turn: Mutex::default() }
    }

    /// A topic's queues.
    pub async fn queues(&self, topic: &str) -> Result<Vec<QueueRef>, Error> {
        self.client.read_queues(topic).await
    }

    /// At most `max` messages of a queue from `offset` on that `filter` wants. Waits up to `wait` for messages.
    pub async fn pull(
        &self,
        queue: &QueueRef,
        filter: impl Into<Filter>,
        offset: i64,
        max: usize,
        wait: Duration,
    ) -> Result<Pulled, Error> {
        let subscription = filter.into().subscription(&queue.topic, 0);
        let subscription = Some(&subscription);
        let pull = Pull { queue, offset, max_messages: max, subscription, wait, commit: None };
        self.client.pull(&self.group, pull).await
    }

    /// Sets the queues that [`Self::poll`] reads. Queues that are new begin where the group has committed, or else at their
    /// first message.
    pub async fn assign(&self, queues: impl IntoIterator<Item = QueueRef>) -> Result<(), Error> {
        let before = self.assigned.lock().clone();
        let mut after = HashMap::new();
        for queue in queues {
            let position = match before.get(&queue) {
                Some(position) => *position,
                None => match self.committed(&queue).await? {
                    Some(offset) => offset.0 as i64,
                    None => self.min_offset(&queue).await?,
                },
            };
            after.insert(queue, position);
        }
        *self.assigned.lock() = after;
        Ok(())
    }

    /// Moves an assigned queue's position. Fails when the queue is not assigned.
    pub fn seek(&self, queue: &QueueRef, offset: i64) -> Result<(), Error> {
        match self.assigned.lock().get_mut(queue) {
            Some(position) => *position = offset,
            None => return Err(Error::Invalid { field: "queue", problem: format!("{queue} is not assigned") }),
        }
        Ok(())
    }

    /// The next messages of the assigned queues, in turn; none when none come within `wait`.
    pub async fn poll(&self, max: usize, wait: Duration) -> Result<Vec<Received>, Error> {
        let until = Instant::now() + wait;
        loop {
            let mut queues: Vec<_> = self.assigned.lock().iter().map(|(queue, at)| (queue.clone(), *at)).collect();
            if queues.is_empty() {
                return Err(Error::Invalid { field: "queues", problem: "none is assigned".into() });
            }
            queues.sort();
            let turn = std::mem::replace(&mut *self.turn.lock(), 0);
            for at in 0..queues.len() {
                let (queue, offset) = &queues[(turn + at) % queues.len()];
                // One queue may be waited for at the broker; several are asked one after the other.
                let left = until.saturating_duration_since(Instant::now());
                let patience = if queues.len() == 1 { left } else { Duration::ZERO };
                let pulled = self.pull(queue, "*", *offset, max, patience).await?;
                self.advance(queue, *offset, pulled.next_offset);
                if !pulled.messages.is_empty() {
                    *self.turn.lock() = (turn + at + 1) % queues.len();
                    return Ok(pulled.messages);
                }
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(Vec::new());
            }
            tokio::time::sleep(left.min(Duration::from_millis(50))).await;
        }
    }

    /// Moves on unless someone sought another position meanwhile.
    fn advance(&self, queue: &QueueRef, from: i64, to: i64) {
        if let Some(position) = self.assigned.lock().get_mut(queue)
            && *position == from
        {
            *position = to;
        }
    }

    /// The position of an assigned queue.
    pub fn position(&self, queue: &QueueRef) -> Option<i64> {
        self.assigned.lock().get(queue).copied()
    }

    /// Locks a queue for this client, so that no other member of the group consumes it in order; renew it before 60 s are
    /// over. `false`: another client has it.
    pub async fn lock(&self, queue: &QueueRef) -> Result<bool, Error> {
        self.client.lock(&self.group, queue).await
    }

    /// Lets another client lock a queue.
    pub async fn unlock(&self, queue: &QueueRef) -> Result<(), Error> {
        self.client.unlock(&self.group, queue).await
    }

    /// Stores that the group has consumed a queue up to `offset`.
    pub async fn commit(&self, queue: &QueueRef, offset: QueueOffset) -> Result<(), Error> {
        self.client.commit(&self.group, queue, offset).await
    }

    /// How far the group has consumed a queue.
    pub async fn committed(&self, queue: &QueueRef) -> Result<Option<QueueOffset>, Error> {
        self.client.committed(&self.group, queue).await
    }

    /// The offset of a queue's first message.
    pub async fn min_offset(&self, queue: &QueueRef) -> Result<i64, Error> {
        self.client.min_offset(queue).await
    }

    /// The offset behind a queue's last message.
    pub async fn max_offset(&self, queue: &QueueRef) -> Result<i64, Error> {
        self.client.max_offset(queue).await
    }

    /// The offset at a time.
    pub async fn offset_at(&self, queue: &QueueRef, time: Timestamp) -> Result<i64, Error> {
        self.client.offset_at(queue, time).await
    }
}

impl Client {
    pub(crate) async fn pull(&self, group: &GroupName, pull: Pull<'_>) -> Result<Pulled, Error> {
        let queue = pull.queue;
        let address = self.broker(&queue.topic, &queue.broker_name, false).await?;
        let request = PullMessage {
            group: group.clone(),
            topic: TopicName::parse(&queue.topic)?,
            queue: queue.queue(),
            offset: pull.offset,
            max_messages: i32::try_from(pull.max_messages).unwrap_or(i32::MAX),
            max_bytes: None,
            commit: pull.commit,
            suspend_ms: (!pull.wait.is_zero()).then_some(pull.wait.as_millis() as i64),
            subscription: pull.subscription.map(|subscription| subscription.sub_string.clone()),
            expression_type: pull.subscription.map(|subscription| subscription.expression_type.clone()),
            sub_version: pull.subscription.map_or(0, |subscription| subscription.sub_version),
            class_filter: false,
            lite: false,
        };
        let timeout = pull.wait + GRACE;
        let answer = self.connection(&address).invoke(request.encode(), timeout).await?;
        let found = match ResponseCode::from(answer.header.code) {
            ResponseCode::Success => Found::Messages,
            ResponseCode::PullNotFound => Found::Nothing,
            ResponseCode::PullRetryImmediately => Found::NoMatch,
            ResponseCode::PullOffsetMoved => Found::OffsetMoved,
            code => return Err(refusal(&address, code, answer)),
        };
        let reply = PullReply::decode(&answer.header.ext)?;
        let mut messages =
            if found == Found::Messages { Received::all(&answer.body, &queue.broker_name)? } else { Vec::new() };
        // The broker compares hashes of tags; two tags may have the same.
        if let Some(subscription) = pull.subscription.filter(|subscription| !subscription.tags_set.is_empty()) {
            messages.retain(|message| message.tag().is_some_and(|tag| subscription.tags_set.iter().any(|t| t == tag)));
        }
        Ok(Pulled {
            found,
            messages,
            next_offset: reply.next_offset,
            min_offset: reply.min_offset,
            max_offset: reply.max_offset,
        })
    }

    pub(crate) async fn commit(&self, group: &GroupName, queue: &QueueRef, offset: QueueOffset) -> Result<(), Error> {
        let topic = TopicName::parse(&queue.topic)?;
        let request = UpdateConsumerOffset { group: group.clone(), topic, queue: queue.queue(), offset };
        self.call_queue(queue, request.encode()).await.map(drop)
    }

    pub(crate) async fn committed(&self, group: &GroupName, queue: &QueueRef) -> Result<Option<QueueOffset>, Error> {
        let topic = TopicName::parse(&queue.topic)?;
        let request =
            QueryConsumerOffset { group: group.clone(), topic, queue: queue.queue(), zero_if_unknown: Some(false) };
        match self.call_queue(queue, request.encode()).await {
            Ok(answer) => Ok(u64::try_from(OffsetReply::decode(&answer.header.ext)?.offset).ok().map(QueueOffset)),
            Err(Error::Refused { code: ResponseCode::QueryNotFound, .. }) => Ok(None),
            Err(problem) => Err(problem),
        }
    }

    pub(crate) async fn min_offset(&self, queue: &QueueRef) -> Result<i64, Error> {
        let topic = TopicName::parse(&queue.topic)?;
        self.offset(queue, MinOffset { topic, queue: queue.queue() }.encode()).await
    }

    pub(crate) async fn max_offset(&self, queue: &QueueRef) -> Result<i64, Error> {
        let topic = TopicName::parse(&queue.topic)?;
        self.offset(queue, MaxOffset { topic, queue: queue.queue() }.encode()).await
    }

    pub(crate) async fn offset_at(&self, queue: &QueueRef, time: Timestamp) -> Result<i64, Error> {
        let topic = TopicName::parse(&queue.topic)?;
        self.offset(queue, SearchOffset { topic, queue: queue.queue(), time, boundary: None }.encode()).await
    }

    async fn offset(&self, queue: &QueueRef, request: sluice_protocol::Frame) -> Result<i64, Error> {
        let answer = self.call_queue(queue, request).await?;
        Ok(OffsetReply::decode(&answer.header.ext)?.offset)
    }

    pub(crate) async fn call_queue(
        &self,
        queue: &QueueRef,
        request: sluice_protocol::Frame,
    ) -> Result<sluice_protocol::Frame, Error> {
        let address = self.broker(&queue.topic, &queue.broker_name, false).await?;
        self.call(&address, request).await
    }
}
