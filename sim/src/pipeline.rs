//! A pipeline in Rust: keeps the messages with an even number and marks them.

use bytes::Bytes;
use sluice_model::{GroupName, Message, TopicName};

use crate::world::Seen;

/// Messages that the stage reads in one turn.
pub const TURN: u32 = 3;

pub fn group() -> GroupName {
    GroupName::parse("rmq_sys_PIPELINE_even").unwrap()
}

/// What the stage makes of a body; `None` drops it.
pub fn stage(id: u64, body: &[u8]) -> Option<Bytes> {
    id.is_multiple_of(2).then(|| [b"even:", body].concat().into())
}

pub fn output(source: &Seen, sink: &TopicName, like: impl Fn(&TopicName, Bytes) -> Message) -> Option<Message> {
    stage(source.id, &source.body).map(|body| like(sink, body))
}
