//! A stored message as JSON.

use std::collections::BTreeMap;

use base64::{Engine, prelude::BASE64_STANDARD};
use schemars::JsonSchema;
use serde::Serialize;
use sluice_model::{Compression, LogOffset, MessageId, RecordView, key, limits};
use sluice_protocol::compress;

use super::input::time_text;
use crate::failure::Result;

/// A message with everything that is known of it. The body is `body` when it is UTF-8, else `body_base64`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct MessageView {
    /// Where the broker stored it (`offsetMsgId`).
    pub id: String,
    /// What its sender calls it (`UNIQ_KEY`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unique_key: Option<String>,
    pub topic: String,
    pub queue: u32,
    pub offset: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
    pub properties: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body_base64: Option<String>,
    /// Bytes of the body as it is stored.
    pub size: usize,
    pub born_at: String,
    pub born_host: String,
    pub stored_at: String,
    /// How often consumption of it failed before.
    pub reconsume_times: i32,
    /// Why a pipeline could not handle it; in dead letters only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<FailureView>,
}

/// What a pipeline wrote to a dead letter.
#[derive(Debug, Serialize, JsonSchema)]
pub struct FailureView {
    pub code: String,
    pub reason: String,
    pub plugin: String,
    pub plugin_digest: String,
    pub source_topic: String,
    pub source_queue: u32,
    pub source_offset: u64,
    pub tries: u32,
    /// The name of the timer that failed, if it was one: then the message has its key and no more, and is not replayed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timer: Option<String>,
}

/// Properties that have fields of their own.
const OWN_FIELDS: [&str; 3] = [key::KEYS, key::TAGS, key::UNIQUE_KEY];

/// Fails when the bytes are no record.
pub fn view(record: &[u8]) -> Result<MessageView> {
    let record = RecordView::parse(record)?;
    let own = |name| record.property(name).map(str::to_owned);
    let id = MessageId { broker: record.store_host(), log_offset: record.log_offset() };
    let (body, body_base64) = body(record.sys_flag().compression(), record.body());
    Ok(MessageView {
        id: id.to_string(),
        unique_key: own(key::UNIQUE_KEY),
        topic: record.topic().to_owned(),
        queue: record.queue().0,
        offset: record.queue_offset().0,
        key: own(key::KEYS),
        tag: own(key::TAGS),
        properties: properties(record.own_properties()),
        body,
        body_base64,
        size: record.body().len(),
        born_at: time_text(record.born_at()),
        born_host: record.born_host().to_string(),
        stored_at: time_text(record.stored_at()),
        reconsume_times: record.reconsume_times(),
        failure: failure(&record),
    })
}

pub fn properties<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)>) -> BTreeMap<String, String> {
    pairs.filter(|(key, _)| !OWN_FIELDS.contains(key)).map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

/// A body as text, or else in Base64. One that says it is compressed and is not stays as it is.
pub fn body(compression: Option<Compression>, stored: &[u8]) -> (Option<String>, Option<String>) {
    let plain = compression.and_then(|form| compress::decompress(stored, form, limits::SYSTEM_BODY_LEN).ok());
    text_or_base64(plain.as_deref().unwrap_or(stored))
}

pub fn text_or_base64(bytes: &[u8]) -> (Option<String>, Option<String>) {
    match std::str::from_utf8(bytes) {
        Ok(text) => (Some(text.to_owned()), None),
        Err(_) => (None, Some(BASE64_STANDARD.encode(bytes))),
    }
}

fn failure(record: &RecordView<'_>) -> Option<FailureView> {
    let text = |name| record.property(name).unwrap_or_default().to_owned();
    let number = |name| record.property(name).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
    record.property("SLUICE_ERROR_CODE")?;
    Some(FailureView {
        code: text("SLUICE_ERROR_CODE"),
        reason: text("SLUICE_ERROR"),
        plugin: text("SLUICE_PLUGIN"),
        plugin_digest: text("SLUICE_PLUGIN_DIGEST"),
        source_topic: text("SLUICE_SOURCE_TOPIC"),
        source_queue: u32::try_from(number("SLUICE_SOURCE_QUEUE")).unwrap_or(u32::MAX),
        source_offset: number("SLUICE_SOURCE_OFFSET"),
        tries: u32::try_from(number("SLUICE_TRIES")).unwrap_or(u32::MAX),
        timer: record.property("SLUICE_TIMER").map(str::to_owned),
    })
}

/// The records of a piece of the log: neighbours come as one piece. Stops at bytes that are no record.
pub fn records(piece: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = piece;
    std::iter::from_fn(move || {
        let record = RecordView::parse(rest).ok()?.bytes();
        rest = rest.get(record.len()..)?;
        Some(record)
    })
}

/// Where a record stands, if `text` is an id of the broker's.
pub fn place(text: &str) -> Option<LogOffset> {
    MessageId::parse(text).ok().map(|id| id.log_offset)
}
