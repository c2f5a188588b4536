//! Verb: commit what a pipeline's stage made of its source, together with how far it came.

use bytes::Bytes;
use sluice_model::{GroupName, LogOffset, Message, Properties, QueueId, QueueOffset, Timestamp, TopicName, limits};

use crate::{
    Error, admin::record, append::drop_log_properties, broker::Broker, documents, error::Result, offsets::Position,
    system::SYSTEM, topics::Topic,
};

/// What a stage read, and what came of it.
#[derive(Debug)]
pub struct StageUnit {
    /// The group under which the stage's position is kept.
    pub group: GroupName,
    pub topic: TopicName,
    pub queue: QueueId,
    /// Where the stage had read from.
    pub from: QueueOffset,
    /// Where it will read next.
    pub next: QueueOffset,
    /// Messages for the sinks, with topic and queue.
    pub outputs: Vec<Message>,
    /// The next change of the stage's state, and where its changes are held.
    pub state: Option<(TopicName, QueueId, Bytes)>,
    /// A document that is put with it: kind, name and body.
    pub document: Option<(&'static str, String, Bytes)>,
}

impl Broker {
    /// Makes the topic that holds the changes of a pipeline's state, or gives it more queues.
    pub fn put_state_topic(&mut self, name: &TopicName, queues: u32, now: Timestamp) -> Result<()> {
        if self.topic(name).is_some_and(|known| known.write_queues >= queues) {
            return Ok(());
        }
        let topic = Topic::new(name.clone(), queues);
        topic.check()?;
        self.stage_one(record(&SYSTEM.topics, topic.to_properties()?, Bytes::new(), now), now)?;
        Ok(())
    }

    /// Deletes the topic that holds the changes of a pipeline's state, if it is there.
    pub fn delete_state_topic(&mut self, name: &TopicName, now: Timestamp) -> Result<()> {
        if self.topic(name).is_some() { self.drop_topic(name, now) } else { Ok(()) }
    }

    /// Stores a document and sets positions of a group, both or neither.
    pub fn put_document_at(
        &mut self,
        (kind, name): (&str, &str),
        body: Bytes,
        positions: &[Position],
        now: Timestamp,
    ) -> Result<LogOffset> {
        let document = record(&SYSTEM.documents, documents::properties(kind, name, Some(""))?, body, now);
        let placed = self.stage(&[document, self.positions_message(positions, now)], now)?;
        let mut state = self.shared.state.write();
        positions.iter().for_each(|position| state.offsets.recorded(position.clone()));
        Ok(placed.first().map_or(LogOffset(0), |placed| placed.log_offset))
    }

    /// Deletes a document and drops every position of a group, both or neither.
    ///
    /// Fails with `NotFound` when there is no such document.
    pub fn delete_document_and_positions(
        &mut self,
        (kind, name): (&'static str, &str),
        group: &GroupName,
        now: Timestamp,
    ) -> Result<()> {
        if self.shared.state.read().documents.get(kind, name).is_none() {
            return Err(Error::not_found(kind, name));
        }
        let document = record(&SYSTEM.documents, documents::properties(kind, name, None)?, Bytes::new(), now);
        let deleted = Properties::from_pairs([("deleted", group.as_str())])?;
        self.stage(&[document, record(&SYSTEM.groups, deleted, Bytes::new(), now)], now)?;
        Ok(())
    }

    /// Stages outputs, position, change of the state and document as one unit: all are there after a crash, or none is.
    ///
    /// Fails with `Conflict` when the position is not at `from` any more (another stage came first, or the topic was deleted
    /// and with it every position in it), `NotFound` when a sink does not exist, and `Invalid` when the unit is too large.
    pub fn commit_stage(&mut self, unit: StageUnit, now: Timestamp) -> Result<()> {
        let known = self.shared.state.read().offsets.get(&unit.group, &unit.topic, unit.queue);
        if known != Some(unit.from) {
            let stands = known.map_or_else(|| "has no position".to_owned(), |known| format!("stands at {known}"));
            let text = format!("{} {stands} in {} {}, not at {}", unit.group, unit.topic, unit.queue, unit.from);
            return Err(Error::Conflict(text));
        }
        if unit.outputs.len() >= limits::UNIT_RECORDS {
            let text = format!("expected fewer than {} messages in one unit", limits::UNIT_RECORDS);
            return Err(Error::invalid("outputs", text));
        }
        let mut messages = unit.outputs;
        for message in &mut messages {
            if SYSTEM.is_closed(message.topic.as_str()) {
                return Err(Error::Denied(format!("topic {:?} belongs to the broker", message.topic)));
            }
            drop_log_properties(message)?;
            self.ensure_unique_key(message, now)?;
            let topic = self.topic(&message.topic).ok_or_else(|| Error::not_found("topic", &message.topic))?;
            message.queue = QueueId(message.queue.0 % topic.write_queues);
            if message.body.len() > limits::BODY_LEN {
                return Err(Error::invalid("body", format!("expected at most {} bytes", limits::BODY_LEN)));
            }
        }
        let position = Position { group: unit.group, topic: unit.topic, queue: unit.queue, offset: unit.next };
        if let Some((topic, queue, body)) = unit.state {
            let known = self.topic(&topic).is_some_and(|known| queue.0 < known.write_queues);
            if !known {
                return Err(Error::not_found("topic", &topic));
            }
            messages.push(Message::new(topic, queue, now, Properties::default(), body));
        }
        if let Some((kind, name, body)) = unit.document {
            messages.push(record(&SYSTEM.documents, documents::properties(kind, &name, Some(""))?, body, now));
        }
        if messages.is_empty() {
            // Nothing came of it: reading the same records again would come to nothing again.
            self.shared.state.write().offsets.commit(position);
            return Ok(());
        }
        messages.push(self.positions_message(std::slice::from_ref(&position), now));
        self.stage(&messages, now)?;
        self.shared.state.write().offsets.recorded(position);
        Ok(())
    }
}
