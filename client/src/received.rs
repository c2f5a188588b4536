use bytes::Bytes;
use sluice_model::{Host, LogOffset, MessageId, QueueOffset, RecordView, SysFlag, Timestamp, key};
use sluice_protocol::{body::QueueRef, messages};

use crate::Error;

/// A message as it came from a broker.
#[derive(Clone, Debug)]
pub struct Received {
    /// The topic to which it was sent, also when it came back for another try.
    pub topic: String,
    /// The queue from which it came.
    pub queue: QueueRef,
    pub offset: QueueOffset,
    /// Where it stands in the broker's log.
    pub log_offset: LogOffset,
    /// The unique id that the sender gave it, or else its place.
    pub message_id: String,
    pub store_host: Host,
    pub born_at: Timestamp,
    pub stored_at: Timestamp,
    pub sys_flag: SysFlag,
    pub flag: i32,
    /// How often its consumption has failed.
    pub reconsume_times: i32,
    pub properties: Vec<(String, String)>,
    /// Decompressed.
    pub body: Bytes,
}

impl Received {
    pub(crate) fn new(record: &RecordView<'_>, broker: &str) -> Result<Self, Error> {
        let stored = MessageId { broker: record.store_host(), log_offset: record.log_offset() };
        let topic = record.property(key::RETRY_TOPIC).unwrap_or(record.topic());
        Ok(Self {
            topic: topic.to_owned(),
            queue: QueueRef::new(record.topic(), broker, record.queue()),
            offset: record.queue_offset(),
            log_offset: record.log_offset(),
            message_id: record.property(key::UNIQUE_KEY).map_or_else(|| stored.to_string(), str::to_owned),
            store_host: record.store_host(),
            born_at: record.born_at(),
            stored_at: record.stored_at(),
            sys_flag: record.sys_flag(),
            flag: record.flag(),
            reconsume_times: record.reconsume_times(),
            properties: record.own_properties().map(|(key, value)| (key.to_owned(), value.to_owned())).collect(),
            body: messages::plain_body(record)?.into(),
        })
    }

    /// The messages in the body of an answer.
    pub(crate) fn all(body: &[u8], broker: &str) -> Result<Vec<Self>, Error> {
        messages::decode(body)?.iter().map(|record| Self::new(record, broker)).collect()
    }

    pub fn property(&self, key: &str) -> Option<&str> {
        self.properties.iter().find(|(k, _)| k == key).map(|(_, value)| value.as_str())
    }

    pub fn tag(&self) -> Option<&str> {
        self.property(key::TAGS)
    }

    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.property(key::KEYS).unwrap_or_default().split(' ').filter(|key| !key.is_empty())
    }

    /// Address and log position, by which the broker finds it.
    pub fn stored_id(&self) -> MessageId {
        MessageId { broker: self.store_host, log_offset: self.log_offset }
    }
}
