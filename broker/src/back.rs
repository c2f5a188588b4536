//! Verb: hand a message back that could not be consumed.

use std::borrow::Cow;

use sluice_model::{GroupName, LogOffset, Message, MessageId, QueueId, RecordView, Timestamp, TopicName, key};

use crate::{
    broker::Broker,
    error::Result,
    groups::Group,
    schedule,
    topics::{Durability, Permission, Topic},
};

/// A message that a consumer could not consume.
#[derive(Clone, Debug)]
pub struct Back {
    pub group: GroupName,
    /// Where the message stands in the log.
    pub at: LogOffset,
    /// Negative: to the dead letters at once. 0: the broker chooses by the number of failures. Else this level.
    pub delay_level: i32,
    /// The client's own limit; `None` takes the group's.
    pub max_reconsume_times: Option<u32>,
}

impl Broker {
    /// Stages the message again, for the group's retry topic after a delay, or for its dead-letter topic when it failed
    /// too often. Fails with `NotFound` when no message stands there.
    pub fn send_back(&mut self, back: Back, now: Timestamp) -> Result<Durability> {
        let record = self.reader.store().record_at(back.at)?;
        let mut message = RecordView::parse(&record)?.to_message()?;
        let group = self.ensure_group(&back.group, now)?;
        let failures = message.reconsume_times.max(0) as u32;
        let dead = back.delay_level < 0 || failures >= back.max_reconsume_times.unwrap_or(group.retries);
        let origin = MessageId { broker: self.config().advertised, log_offset: back.at };
        mark_failed(&mut message, origin, dead)?;
        if dead {
            message.topic = self.dead_letter_topic(&back.group, now)?;
            message.queue = QueueId(0);
        } else {
            message.topic = TopicName::retry_of(&back.group);
            message.queue = QueueId(self.next_queue % group.retry_queues.max(1));
            // Level 3 is the first of Apache's retry delays (10 s).
            let level = if back.delay_level == 0 { 3 + failures as usize } else { back.delay_level as usize };
            schedule::redirect(&mut message, level.clamp(1, schedule::LEVELS_MS.len()))?;
        }
        self.stage_one(message, now)?;
        Ok(self.config().durability)
    }

    /// The group's settings; an unknown group is made, and so is a missing retry topic: messages on their way to it
    /// would be lost.
    pub fn ensure_group(&mut self, name: &GroupName, now: Timestamp) -> Result<std::sync::Arc<Group>> {
        let known = self.shared.state.read().groups.get(name).cloned();
        if let Some(group) = known.filter(|_| self.topic(&TopicName::retry_of(name)).is_some()) {
            return Ok(group);
        }
        let group = self.reader.group(name);
        self.put_group(Group::clone(&group), now)?;
        Ok(group)
    }

    /// The topic of a group's dead letters; made if need be.
    pub fn dead_letter_topic(&mut self, group: &GroupName, now: Timestamp) -> Result<TopicName> {
        let name = TopicName::dead_letter_of(group);
        if self.topic(&name).is_none() {
            self.put_topic(Topic { permission: Permission::READ_WRITE, ..Topic::new(name.clone(), 1) }, now)?;
        }
        Ok(name)
    }
}

/// Counts a failure of a message that stands under `at`, and notes in its properties where it comes from.
pub(crate) fn mark_failed(message: &mut Message, at: MessageId, dead: bool) -> Result<()> {
    let first_topic = message.properties.get(key::RETRY_TOPIC).unwrap_or(message.topic.as_str()).to_owned();
    let origin = message.properties.get(key::ORIGIN_MESSAGE_ID).map_or_else(|| at.to_string(), str::to_owned);
    let mut changes: Vec<(&str, Option<Cow<'_, str>>)> = vec![
        (key::RETRY_TOPIC, Some(Cow::Borrowed(&first_topic))),
        (key::ORIGIN_MESSAGE_ID, Some(Cow::Borrowed(&origin))),
        (key::DELAY, None),
    ];
    if dead {
        changes.push((key::DEAD_LETTER_TOPIC, Some(Cow::Borrowed(&first_topic))));
        changes.push((key::DEAD_LETTER_MESSAGE_ID, Some(Cow::Borrowed(&origin))));
    }
    message.properties = message.properties.changed(&changes)?;
    message.reconsume_times += 1;
    Ok(())
}
