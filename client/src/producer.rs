use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use bytes::Bytes;
use sluice_model::{GroupName, Properties, QueueOffset, SysFlag, TopicName, Transaction, key, limits};
use sluice_protocol::{Frame, ResponseCode, batch, body::QueueRef, compress, reply::SendReply, request::SendMessage};

use crate::{
    Client, Error, Message, Received,
    client::refusal,
    id,
    message::with,
    transaction::{Decision, TransactionProducer},
};

/// Queues that a topic made by sending to it is to have.
const NEW_TOPIC_QUEUES: i32 = 4;
const COMPRESSED: i32 = 1;

/// Sends messages. Cheap to share by reference; made by [`Client::producer`].
pub struct Producer {
    client: Client,
    group: GroupName,
    next: AtomicUsize,
}

/// Whether a stored message is as safe as was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    Ok,
    /// It was not on disk in time.
    FlushDiskTimeout,
    /// It was not on the replica's disk in time.
    FlushSlaveTimeout,
    /// There is no replica.
    SlaveNotAvailable,
}

/// Where a message was stored.
#[derive(Clone, Debug)]
pub struct Sent {
    pub status: Status,
    /// The unique id that this client gave it; of a batch, separated by commas.
    pub message_id: String,
    /// Address and log position; of a batch, separated by commas.
    pub stored_id: String,
    pub queue: QueueRef,
    /// Offset in the queue; of a batch, the first.
    pub offset: QueueOffset,
    pub transaction_id: Option<String>,
}

/// Everything of a message but where it goes.
struct Ready {
    topic: TopicName,
    message_id: String,
    properties: Properties,
    sys_flag: SysFlag,
    flag: i32,
    batch: bool,
    body: Bytes,
}

impl Producer {
    pub(crate) fn new(client: Client, group: GroupName) -> Self {
        client.join_producers(&group);
        Self { client, group, next: AtomicUsize::new(0) }
    }

    /// Sends a message to any queue, after a failure to another, and waits until it is stored.
    pub async fn send(&self, message: Message) -> Result<Sent, Error> {
        let ready = self.ready(&message, false)?;
        self.deliver(&ready).await
    }

    /// Sends a message to one queue. It is not tried again: the order of a queue may matter.
    pub async fn send_to(&self, queue: &QueueRef, message: Message) -> Result<Sent, Error> {
        let ready = self.ready(&message, false)?;
        self.store(&ready, queue).await
    }

    /// Sends a message to the queue that `key` decides: the same key, the same queue, in the order of sending.
    pub async fn send_ordered(&self, key: &str, message: Message) -> Result<Sent, Error> {
        let queues = self.client.write_queues(&message.topic).await?;
        let index = sluice_model::java_hash(key).unsigned_abs() as usize % queues.len();
        self.send_to(&queues[index], message).await
    }

    /// Sends messages of one topic as one.
    ///
    /// Fails when there are none or too many, they are of several topics, or one is to be delayed.
    pub async fn send_batch(&self, messages: Vec<Message>) -> Result<Sent, Error> {
        let ready = self.ready_batch(&messages)?;
        self.deliver(&ready).await
    }

    /// Sends messages of one topic as one, to one queue.
    ///
    /// Fails as [`Self::send_batch`].
    pub async fn send_batch_to(&self, queue: &QueueRef, messages: Vec<Message>) -> Result<Sent, Error> {
        let ready = self.ready_batch(&messages)?;
        self.store(&ready, queue).await
    }

    /// Sends a message and does not wait for anything; it may be lost.
    pub async fn send_oneway(&self, message: Message) -> Result<(), Error> {
        let ready = self.ready(&message, false)?;
        let queues = self.client.write_queues(&message.topic).await?;
        let queue = self.pick(&queues, None);
        let address = self.client.broker(ready.topic.as_str(), &queue.broker_name, true).await?;
        Ok(self.client.connection(&address).send_oneway(self.request(&ready, queue)).await?)
    }

    /// A producer of transactions in this group. `check` answers the broker's question about half messages whose decision
    /// did not reach it; it may block.
    pub fn transactional(self, check: impl Fn(&Received) -> Decision + Send + Sync + 'static) -> TransactionProducer {
        self.client.0.callbacks.checks.lock().insert(self.group.clone(), Arc::new(check));
        TransactionProducer::new(self)
    }

    /// Queues to which a topic's messages can be sent.
    pub async fn queues(&self, topic: &str) -> Result<Vec<QueueRef>, Error> {
        self.client.write_queues(topic).await
    }

    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    pub(crate) fn group(&self) -> &GroupName {
        &self.group
    }

    pub(crate) async fn send_half(&self, message: &Message) -> Result<Sent, Error> {
        let ready = self.ready(message, true)?;
        self.deliver(&ready).await
    }

    fn ready(&self, message: &Message, half: bool) -> Result<Ready, Error> {
        let properties = message.checked()?;
        let message_id = properties.get(key::UNIQUE_KEY).map_or_else(id::unique, str::to_owned);
        let mut more = vec![(key::UNIQUE_KEY, message_id.as_str()), (key::WAIT, "true")];
        let mut sys_flag = SysFlag::default();
        if half {
            more.extend([(key::TRANSACTION_PREPARED, "true"), (key::PRODUCER_GROUP, self.group.as_str())]);
            sys_flag = sys_flag.with_transaction(Transaction::Prepared);
        }
        let properties = with(&properties, &more)?;
        let mut body = message.body.clone();
        if body.len() > self.client.0.config.compress_above {
            // Without the bits that name the way: old clients take this for zlib, newer ones too.
            body = compress::zlib(&body);
            sys_flag.0 |= COMPRESSED;
        }
        let topic = TopicName::parse(&message.topic)?;
        Ok(Ready { topic, message_id, properties, sys_flag, flag: message.flag, batch: false, body })
    }

    fn ready_batch(&self, messages: &[Message]) -> Result<Ready, Error> {
        let invalid = |problem: String| Error::Invalid { field: "messages", problem };
        let first = messages.first().ok_or_else(|| invalid("expected messages, got none".into()))?;
        if messages.len() > limits::BATCH_MESSAGES {
            return Err(invalid(format!("expected at most {}, got {}", limits::BATCH_MESSAGES, messages.len())));
        }
        let mut ids = Vec::with_capacity(messages.len());
        let mut items = Vec::with_capacity(messages.len());
        for message in messages {
            if message.topic != first.topic {
                return Err(invalid(format!("expected one topic, got {} and {}", first.topic, message.topic)));
            }
            let properties = message.checked()?;
            if [key::DELAY, key::TIMER_DELIVER_MS].iter().any(|key| properties.get(key).is_some()) {
                return Err(invalid("expected no delay within a batch".into()));
            }
            let message_id = id::unique();
            let properties = with(&properties, &[(key::UNIQUE_KEY, &message_id), (key::WAIT, "true")])?;
            items.push(batch::Item { flag: message.flag, properties, body: message.body.clone() });
            ids.push(message_id);
        }
        let body = batch::encode(&items);
        if body.len() > limits::BODY_LEN {
            return Err(invalid(format!("expected at most {} bytes in all, got {}", limits::BODY_LEN, body.len())));
        }
        Ok(Ready {
            topic: TopicName::parse(&first.topic)?,
            message_id: ids.join(","),
            properties: Properties::default(),
            sys_flag: SysFlag::default(),
            flag: 0,
            batch: true,
            body,
        })
    }

    async fn deliver(&self, ready: &Ready) -> Result<Sent, Error> {
        let mut tries = 0;
        let mut failed = None;
        loop {
            let queues = self.client.write_queues(ready.topic.as_str()).await?;
            let queue = self.pick(&queues, failed.as_deref());
            match self.store(ready, queue).await {
                Err(problem) if problem.may_try_elsewhere() && tries < self.client.0.config.send_retries => {
                    tries += 1;
                    failed = Some(queue.broker_name.clone());
                    self.client.forget_route(ready.topic.as_str());
                }
                other => return other,
            }
        }
    }

    /// The next queue, on another broker than the one that just failed if there is one.
    fn pick<'a>(&self, queues: &'a [QueueRef], failed: Option<&str>) -> &'a QueueRef {
        let next = || &queues[self.next.fetch_add(1, Ordering::Relaxed) % queues.len()];
        let mut queue = next();
        for _ in 0..queues.len() {
            if failed != Some(queue.broker_name.as_str()) {
                break;
            }
            queue = next();
        }
        queue
    }

    async fn store(&self, ready: &Ready, queue: &QueueRef) -> Result<Sent, Error> {
        let address = self.client.broker(ready.topic.as_str(), &queue.broker_name, true).await?;
        let request = self.request(ready, queue);
        let answer = self.client.connection(&address).invoke(request, self.client.0.config.timeout).await?;
        let status = match ResponseCode::from(answer.header.code) {
            ResponseCode::Success => Status::Ok,
            ResponseCode::FlushDiskTimeout => Status::FlushDiskTimeout,
            ResponseCode::FlushSlaveTimeout => Status::FlushSlaveTimeout,
            ResponseCode::SlaveNotAvailable => Status::SlaveNotAvailable,
            code => return Err(refusal(&address, code, answer)),
        };
        let reply = SendReply::decode(&answer.header.ext)?;
        Ok(Sent {
            status,
            message_id: ready.message_id.clone(),
            stored_id: reply.message_id,
            queue: QueueRef::new(ready.topic.as_str(), &queue.broker_name, reply.queue),
            offset: reply.offset,
            transaction_id: reply.transaction_id,
        })
    }

    fn request(&self, ready: &Ready, queue: &QueueRef) -> Frame {
        let message = SendMessage {
            group: self.group.clone(),
            topic: ready.topic.clone(),
            default_topic: "TBW102".to_owned(),
            default_topic_queues: NEW_TOPIC_QUEUES,
            queue: queue.queue_id as i32,
            sys_flag: ready.sys_flag,
            born_at: id::now(),
            flag: ready.flag,
            properties: ready.properties.clone(),
            reconsume_times: 0,
            unit_mode: false,
            max_reconsume_times: None,
            batch: ready.batch,
            broker: Some(queue.broker_name.clone()),
            body: ready.body.clone(),
        };
        message.encode()
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        self.client.leave_producers(&self.group);
    }
}
