use bytes::Bytes;

use crate::{Host, Properties, QueueId, SysFlag, TagCode, Timestamp, TopicName, key};

/// A message on its way into the log: everything but what the log itself decides (offsets, store time, checksums).
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    pub topic: TopicName,
    pub queue: QueueId,
    /// The client's own flag, opaque to the broker.
    pub flag: i32,
    pub sys_flag: SysFlag,
    pub born_at: Timestamp,
    pub born_host: Host,
    /// How often consumption of this message has failed before.
    pub reconsume_times: i32,
    /// Position of the half message that a committed message came from; 0 otherwise.
    pub prepared_at: u64,
    pub properties: Properties,
    pub body: Bytes,
}

impl Message {
    /// A message of the broker's own: born here and now, no flags.
    pub fn new(topic: TopicName, queue: QueueId, now: Timestamp, properties: Properties, body: Bytes) -> Self {
        Self {
            topic,
            queue,
            flag: 0,
            sys_flag: SysFlag::default(),
            born_at: now,
            born_host: Host::LOCAL,
            reconsume_times: 0,
            prepared_at: 0,
            properties,
            body,
        }
    }

    /// What the consume queue remembers of the message's tag.
    pub fn tag_code(&self) -> TagCode {
        TagCode::of(self.properties.get(key::TAGS))
    }
}
