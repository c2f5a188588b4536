//! Messages as plugins see them, and back.

use bytes::Bytes;
use sluice_model::{Compression, Message, Properties, Timestamp, key};
use sluice_protocol::compress;
use sluice_runtime::{Columns, Record};

use super::lanes::Given;
use crate::{
    failure::Result,
    record::{plain, unsigned},
};

/// Properties that say how a message is to be stored and delivered, not what it is. They stay the sender's.
const DELIVERY_KEYS: [&str; 18] = [
    key::WAIT,
    key::DELAY,
    key::RETRY_TOPIC,
    key::REAL_TOPIC,
    key::REAL_QUEUE,
    key::TRANSACTION_PREPARED,
    key::PRODUCER_GROUP,
    key::UNIQUE_KEY,
    key::TRANSACTION_ID,
    key::CHECK_IMMUNITY_SECONDS,
    key::ORIGIN_MESSAGE_ID,
    key::MAX_RECONSUME_TIMES,
    key::CLUSTER,
    key::REPLY_TO_CLIENT,
    key::TIMER_DELAY_SECONDS,
    key::TIMER_DELAY_MS,
    key::TIMER_DELIVER_MS,
    key::TIMER_OUT_MS,
];

/// A message that is not stored yet: it is seen as stored at `offset` and `now`.
pub fn of_message(message: &Message, offset: u64, needs: Columns, now: Timestamp) -> Given {
    let text = |name| message.properties.get(name).map(|text| Bytes::copy_from_slice(text.as_bytes()));
    Ok(Record {
        offset,
        key: text(key::KEYS),
        tag: text(key::TAGS).unwrap_or_default(),
        headers: Bytes::copy_from_slice(message.properties.as_bytes()),
        value: plain(&message.body, message.sys_flag, needs)?,
        born_at: unsigned(message.born_at),
        stored_at: unsigned(now),
        packed: 0,
        unreadable: None,
    })
}

/// The message with what the plugins changed, where `before` is how they saw it at first. What they left alone stays byte for
/// byte; a new body is compressed when the old one was.
pub fn with_changes(mut message: Message, before: &Record, after: Record) -> Result<Message> {
    if (&after.key, &after.tag, &after.headers) != (&before.key, &before.tag, &before.headers) {
        message.properties = properties(&message.properties, &after)?;
    }
    if after.value != before.value {
        message.body = after.value;
        if message.sys_flag.compression().is_some() {
            message.body = compress::zlib(&message.body);
            message.sys_flag = message.sys_flag.with_compression(Compression::Zlib);
        }
    }
    Ok(message)
}

/// The plugins' properties with their key and tag, and the sender's own of those that belong to the delivery.
fn properties(sent: &Properties, after: &Record) -> Result<Properties> {
    let headers = Properties::parse(after.headers.clone())?;
    let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
    let (key_text, tag) = (after.key.as_ref().map(text), text(&after.tag));
    let of_delivery = |name: &str| DELIVERY_KEYS.contains(&name);
    let kept = headers.iter().filter(|(name, _)| !of_delivery(name) && *name != key::KEYS && *name != key::TAGS);
    let delivery = sent.iter().filter(|(name, _)| of_delivery(name));
    let own = key_text.as_deref().map(|text| (key::KEYS, text));
    let tag = (!tag.is_empty()).then_some((key::TAGS, tag.as_str()));
    Ok(Properties::from_pairs(kept.chain(own).chain(tag).chain(delivery))?)
}
