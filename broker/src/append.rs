//! Verb: send messages.

use std::borrow::Cow;

use sluice_model::{
    GroupName, Message, MessageId, QueueId, QueueOffset, Timestamp, TopicName, Transaction, key, limits,
};

use crate::{
    Error,
    broker::Broker,
    error::Result,
    schedule,
    system::{AUTO_CREATE_TOPIC, SYSTEM},
    timers,
    topics::{Durability, Permission, Topic},
};

/// Messages of one client for one queue; they stand or fall together.
#[derive(Debug)]
pub struct Send {
    /// All of one topic. Their `queue` is overwritten.
    pub messages: Vec<Message>,
    /// `None`: any queue.
    pub queue: Option<QueueId>,
    /// What a missing topic may be made from, and with how many queues at most.
    pub template: Option<(TopicName, u32)>,
    /// For messages to a retry topic: failures after which a message goes to the dead-letter topic instead.
    pub max_reconsume_times: Option<u32>,
}

/// Where messages went.
#[derive(Clone, Debug, PartialEq)]
pub struct Sent {
    pub queue: QueueId,
    /// Offset of the first; the others follow. For a half message its place in the half topic.
    pub queue_offset: QueueOffset,
    pub ids: Vec<MessageId>,
    /// The unique key of the first.
    pub unique_key: String,
    /// When to tell the sender.
    pub durability: Durability,
    /// When the message is due that was sent for a time; [`Broker::recall`] takes it back until then.
    pub due: Option<Timestamp>,
}

impl Broker {
    /// Stages messages. A missing topic is made when the broker allows it.
    ///
    /// Fails with `NotFound` when there is no such topic, `Denied` when it may not be written, `Invalid` when a queue,
    /// body or property is out of bounds, and `Full` when the disk is.
    pub fn send(&mut self, mut send: Send, now: Timestamp) -> Result<Sent> {
        let name = match send.messages.first() {
            Some(first) => first.topic.clone(),
            None => return Err(Error::invalid("body", "expected at least one message")),
        };
        if SYSTEM.is_closed(name.as_str()) {
            return Err(Error::Denied(format!("topic {name:?} belongs to the broker: nobody else may send to it")));
        }
        let topic = match self.topic(&name) {
            Some(topic) => topic,
            None => self.auto_create(&name, send.template.as_ref(), now)?,
        };
        if !topic.permission.writable() {
            return Err(Error::Denied(format!(
                "topic {name:?} may not be written: its permission lacks the write bit"
            )));
        }
        let queue = self.pick_queue(&topic, send.queue)?;
        let alone = send.messages.len() == 1;
        let mut unique_key = String::new();
        for message in &mut send.messages {
            message.queue = queue;
            self.check_body(message)?;
            drop_log_properties(message)?;
            let unique = self.ensure_unique_key(message, now)?;
            if unique_key.is_empty() {
                unique_key = unique;
            }
            self.redirect(message, alone, send.max_reconsume_times, now)?;
        }
        let durability = self.durability(&topic);
        let due = send.messages.first().filter(|message| message.topic == SYSTEM.timers);
        let due = due.and_then(|message| message.properties.get(key::TIMER_OUT_MS)?.parse().ok()).map(Timestamp);
        let places = self.stage(&send.messages, now)?;
        if durability == Durability::Async {
            let readable = self.reader.store().readable();
            let halves = places.iter().zip(send.messages).filter(|(_, message)| message.topic == SYSTEM.half);
            self.fresh_halves.keep(halves.map(|(place, message)| (place.log_offset, message)), readable);
        }
        let broker = self.config().advertised;
        Ok(Sent {
            queue,
            queue_offset: places.first().map(|place| place.queue_offset).unwrap_or_default(),
            ids: places.iter().map(|place| MessageId { broker, log_offset: place.log_offset }).collect(),
            unique_key,
            durability,
            due,
        })
    }

    fn pick_queue(&mut self, topic: &Topic, wanted: Option<QueueId>) -> Result<QueueId> {
        let queues = topic.write_queues.max(topic.read_queues);
        match wanted {
            Some(queue) if queue.0 < queues => Ok(queue),
            Some(queue) => Err(Error::invalid(
                "queueId",
                format!("expected 0 to {} for topic {:?}, got {queue}", queues - 1, topic.name),
            )),
            None => {
                self.next_queue = self.next_queue.wrapping_add(1);
                Ok(QueueId(self.next_queue % topic.write_queues))
            }
        }
    }

    fn check_body(&self, message: &Message) -> Result<()> {
        let (limit, got) = (self.config().max_body, message.body.len());
        if got > limit {
            return Err(Error::invalid("body", format!("expected at most {limit} bytes, got {got}")));
        }
        Ok(())
    }

    pub(crate) fn ensure_unique_key(&mut self, message: &mut Message, now: Timestamp) -> Result<String> {
        if let Some(unique) = message.properties.get(key::UNIQUE_KEY) {
            return Ok(unique.to_owned());
        }
        let unique = self.unique.next(now);
        message.properties = message.properties.with(key::UNIQUE_KEY, &unique)?;
        Ok(unique)
    }

    /// Sends a message elsewhere first that is not for its topic yet: prepared, delayed, or failed too often.
    fn redirect(&mut self, message: &mut Message, alone: bool, most: Option<u32>, now: Timestamp) -> Result<()> {
        let prepared = message.sys_flag.transaction() == Transaction::Prepared;
        let delayed = is_delayed(message, now)?;
        if !alone && (prepared || delayed || message.topic.is_retry()) {
            let text = "expected no transaction, delay or retry topic in a batch of messages";
            return Err(Error::invalid("properties", text));
        }
        if message.topic.is_retry() {
            self.redirect_to_dead_letters(message, most, now)?;
        }
        if prepared { redirect_to_half(message) } else { delay(message, now) }
    }

    /// A client that could not hand a message back sends it to the retry topic itself.
    fn redirect_to_dead_letters(&mut self, message: &mut Message, most: Option<u32>, now: Timestamp) -> Result<()> {
        let Some(group) = message.topic.as_str().strip_prefix("%RETRY%") else { return Ok(()) };
        let group = GroupName::parse(group)?;
        let most = most.unwrap_or_else(|| self.reader.group(&group).retries);
        if u32::try_from(message.reconsume_times).unwrap_or(0) < most {
            return Ok(());
        }
        let topic = self.dead_letter_topic(&group, now)?;
        let changes = [(key::DELAY, None)];
        message.properties = message.properties.changed(&changes)?;
        message.topic = topic;
        message.queue = QueueId(0);
        Ok(())
    }

    fn auto_create(
        &mut self,
        name: &TopicName,
        template: Option<&(TopicName, u32)>,
        now: Timestamp,
    ) -> Result<std::sync::Arc<Topic>> {
        let missing = || Error::not_found("topic", name);
        let (from, wanted) = template.ok_or_else(missing)?;
        if !self.config().auto_create_topics || from.as_str() != AUTO_CREATE_TOPIC || name.is_dead_letter() {
            return Err(missing());
        }
        let most = self.config().default_queues.max(8);
        let queues = if *wanted == 0 { self.config().default_queues } else { (*wanted).min(most) };
        self.put_topic(Topic { permission: Permission::READ_WRITE, ..Topic::new(name.clone(), queues) }, now)?;
        self.topic(name).ok_or_else(missing)
    }
}

/// Takes out what the log writes itself: a place in a unit that a client made up would be believed at the next start.
pub(crate) fn drop_log_properties(message: &mut Message) -> Result<()> {
    let own = [key::UNIT, key::RECORD_CRC];
    if message.properties.iter().any(|(key, _)| own.contains(&key)) {
        message.properties = message.properties.changed(&own.map(|key| (key, None)))?;
    }
    Ok(())
}

fn is_delayed(message: &Message, now: Timestamp) -> Result<bool> {
    Ok(schedule::level(&message.properties)?.is_some() || timers::due(&message.properties, now)?.is_some())
}

/// Turns a message to where it waits, if it asks for a delay. A level counts before a time.
pub(crate) fn delay(message: &mut Message, now: Timestamp) -> Result<()> {
    if let Some(level) = schedule::level(&message.properties)? {
        schedule::redirect(message, level)
    } else if let Some(due) = timers::due(&message.properties, now)? {
        timers::redirect(message, due)
    } else {
        Ok(())
    }
}

fn redirect_to_half(message: &mut Message) -> Result<()> {
    let Some(group) = message.properties.get(key::PRODUCER_GROUP) else {
        return Err(Error::invalid("PGROUP", "expected the producer group in the properties of a half message"));
    };
    // A record that the state cannot take would stop every later start.
    GroupName::parse(group).map_err(|error| Error::invalid("PGROUP", format!("expected a group name: {error}")))?;
    message.sys_flag = message.sys_flag.with_transaction(Transaction::None);
    hold(message, &SYSTEM.half, QueueId(0))
}

/// Turns a message to another topic, remembering where it belongs.
pub(crate) fn hold(message: &mut Message, topic: &TopicName, queue: QueueId) -> Result<()> {
    let (real_topic, real_queue) = (message.topic.as_str().to_owned(), message.queue.to_string());
    message.properties = message
        .properties
        .changed(&[(key::REAL_TOPIC, Some(Cow::Owned(real_topic))), (key::REAL_QUEUE, Some(Cow::Owned(real_queue)))])?;
    message.topic = topic.clone();
    message.queue = queue;
    Ok(())
}

/// Turns a held message back to where it belongs, dropping `also` from its properties.
pub(crate) fn release(message: &mut Message, also: &[&str]) -> Result<()> {
    let real = |key: &'static str| {
        message.properties.get(key).ok_or_else(|| Error::invalid(key, "expected in the properties of a held message"))
    };
    let topic = TopicName::parse(real(key::REAL_TOPIC)?)?;
    let queue = real(key::REAL_QUEUE)?.parse().map_err(|_| Error::invalid(key::REAL_QUEUE, "expected a number"))?;
    let mut changes: Vec<(&str, Option<Cow<'_, str>>)> = vec![(key::REAL_TOPIC, None), (key::REAL_QUEUE, None)];
    changes.extend(also.iter().map(|key| (*key, None)));
    message.properties = message.properties.changed(&changes)?;
    message.topic = topic;
    message.queue = QueueId(queue);
    Ok(())
}

/// Checks the count of a client's batch.
pub fn check_batch(count: usize) -> Result<()> {
    if count == 0 || count > limits::BATCH_MESSAGES {
        let text = format!("expected 1 to {} messages in a batch, got {count}", limits::BATCH_MESSAGES);
        return Err(Error::invalid("body", text));
    }
    Ok(())
}
