//! Verbs: make and delete topics, groups and documents, and record what consumers committed.

use bytes::Bytes;
use sluice_model::{GroupName, LogOffset, Message, Properties, QueueId, RecordView, Timestamp, TopicName, limits};

use crate::{
    Error,
    broker::{Broker, Effect},
    documents,
    error::Result,
    groups::Group,
    system::{SYSTEM, is_system},
    topics::Topic,
};

/// Most positions in one record.
const POSITIONS_LIMIT: usize = 1_024;

impl Broker {
    /// Makes a topic or replaces its settings. Fewer queues than before hide the others, their messages stay.
    pub fn put_topic(&mut self, topic: Topic, now: Timestamp) -> Result<()> {
        topic.check()?;
        if SYSTEM.is_closed(topic.name.as_str()) {
            return Err(Error::Denied(format!("topic {:?} belongs to the broker", topic.name)));
        }
        let properties = topic.to_properties()?;
        self.stage_one(record(&SYSTEM.topics, properties, Bytes::new(), now), now)?;
        self.effects.push(Effect::TopicsChanged);
        Ok(())
    }

    /// Deletes a topic with its messages and every group's position in it, and what came again of them after a pop.
    pub fn delete_topic(&mut self, name: &TopicName, now: Timestamp) -> Result<()> {
        if is_system(name.as_str()) {
            return Err(Error::Denied(format!("topic {name:?} belongs to the broker")));
        }
        if self.topic(name).is_none() {
            return Err(Error::not_found("topic", name));
        }
        for retry in self.pop_retry_topics(|position| position.topic == *name) {
            self.drop_topic(&retry, now)?;
        }
        self.drop_topic(name, now)
    }

    pub(crate) fn drop_topic(&mut self, name: &TopicName, now: Timestamp) -> Result<()> {
        let properties = Properties::from_pairs([("deleted", name.as_str())])?;
        self.stage_one(record(&SYSTEM.topics, properties, Bytes::new(), now), now)?;
        self.appender.forget(name);
        self.shared.state.write().topics.settle_deletions(self.reader.store().readable());
        self.effects.push(Effect::TopicsChanged);
        Ok(())
    }

    /// Makes a group, with its retry topic, or replaces its settings.
    pub fn put_group(&mut self, group: Group, now: Timestamp) -> Result<()> {
        if !(1..=limits::TOPIC_QUEUES).contains(&group.retry_queues) {
            let (most, got) = (limits::TOPIC_QUEUES, group.retry_queues);
            return Err(Error::invalid("retryQueueNums", format!("expected 1 to {most}, got {got}")));
        }
        let retry = TopicName::retry_of(&group.name);
        if self.topic(&retry).is_none() {
            self.put_topic(Topic::new(retry, group.retry_queues), now)?;
        }
        self.stage_one(record(&SYSTEM.groups, group.to_properties()?, Bytes::new(), now), now)?;
        Ok(())
    }

    /// Deletes a group with its positions and its retry topics. Its dead letters stay.
    pub fn delete_group(&mut self, name: &GroupName, now: Timestamp) -> Result<()> {
        if self.shared.state.read().groups.get(name).is_none() {
            return Err(Error::not_found("group", name));
        }
        let popped = self.pop_retry_topics(|position| position.group == *name);
        self.forget_positions(name, now)?;
        for retry in popped {
            self.drop_topic(&retry, now)?;
        }
        let retry = TopicName::retry_of(name);
        if self.topic(&retry).is_some() {
            self.delete_topic(&retry, now)?;
        }
        Ok(())
    }

    /// Drops every position of a group that has no settings of its own, such as a pipeline's.
    pub fn forget_positions(&mut self, name: &GroupName, now: Timestamp) -> Result<()> {
        let properties = Properties::from_pairs([("deleted", name.as_str())])?;
        self.stage_one(record(&SYSTEM.groups, properties, Bytes::new(), now), now)?;
        Ok(())
    }

    /// Stores a document and answers with its position, which is its version.
    ///
    /// Fails with `Invalid` when the body is over [`limits::SYSTEM_BODY_LEN`] bytes.
    pub fn put_document(
        &mut self,
        kind: &str,
        name: &str,
        label: &str,
        body: Bytes,
        now: Timestamp,
    ) -> Result<LogOffset> {
        if body.len() > limits::SYSTEM_BODY_LEN {
            let (most, got) = (limits::SYSTEM_BODY_LEN, body.len());
            return Err(Error::invalid("body", format!("expected at most {most} bytes, got {got}")));
        }
        self.stage_one(record(&SYSTEM.documents, documents::properties(kind, name, Some(label))?, body, now), now)
    }

    pub fn delete_document(&mut self, kind: &str, name: &str, now: Timestamp) -> Result<()> {
        if self.shared.state.read().documents.get(kind, name).is_none() {
            return Err(Error::NotFound { what: "document", name: format!("{kind}/{name}") });
        }
        let properties = documents::properties(kind, name, None)?;
        self.stage_one(record(&SYSTEM.documents, properties, Bytes::new(), now), now)?;
        Ok(())
    }

    /// Writes the documents that live in the oldest segment once more, so that it may be deleted.
    pub fn carry_documents(&mut self, now: Timestamp) -> Result<usize> {
        let end = self.reader.store().start().plus(self.shared.segment_len);
        if self.reader.store().appended() < end {
            return Ok(0);
        }
        let old = self.shared.state.read().documents.below(end);
        for (kind, name) in &old {
            let Some((document, body)) = self.reader.document(kind, name)? else { continue };
            self.put_document(kind, name, &document.label, body, now)?;
        }
        Ok(old.len())
    }

    /// Records what consumers committed since the last call.
    pub fn record_offsets(&mut self, now: Timestamp) -> Result<()> {
        loop {
            let positions = self.shared.state.write().offsets.take_unrecorded(POSITIONS_LIMIT);
            if positions.is_empty() {
                return Ok(());
            }
            let message = self.positions_message(&positions, now);
            if let Err(error) = self.stage_one(message, now) {
                // Not recorded after all: they stay to be recorded, as when they were committed.
                self.shared.state.write().offsets.put_back(positions);
                return Err(error);
            }
        }
    }
}

pub(crate) fn record(topic: &TopicName, properties: Properties, body: Bytes, now: Timestamp) -> Message {
    Message::new(topic.clone(), QueueId(0), now, properties, body)
}

/// The document that a stored record holds.
pub(crate) fn document_body(record: Bytes) -> Result<Bytes> {
    let range = RecordView::parse(&record)?.body_range();
    Ok(record.slice(range))
}
