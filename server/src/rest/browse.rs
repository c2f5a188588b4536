//! `GET /topics/{topic}/messages`: by place, by time, by key or by id.

use axum::{Json, extract::State, http::Method, response::IntoResponse};
use schemars::JsonSchema;
use serde::Deserialize;
use sluice_broker::{Boundary, Fetch, Filter, Reader, Topic};
use sluice_model::{QueueId, QueueOffset, RecordView, Timestamp, TopicName, limits};

use super::{
    Rest, blocking,
    input::{Path, Query, time},
    message::{self, MessageView},
    page::{self, Page},
    problem::Answer,
    routes::Routes,
};
use crate::failure::{Failure, Result};

const LIMIT: usize = 32;
const LIMIT_MOST: usize = 256;
/// Most bytes read for one page.
const PAGE_BYTES: usize = 16 * 1024 * 1024;

/// Which messages are wanted. Without `key` and `id` all are, in the order in which they were stored.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MessagesQuery {
    /// Only this queue.
    pub queue: Option<u32>,
    /// From this offset; with `queue` only.
    pub offset: Option<u64>,
    /// Only messages with this key, the newest first, 64 at most.
    pub key: Option<String>,
    /// Only the message with this `id` or `unique_key`.
    pub id: Option<String>,
    /// Stored at this time or later, RFC 3339.
    pub from: Option<String>,
    /// Stored at this time or earlier, RFC 3339.
    pub to: Option<String>,
    /// 1 to 256; 32 when left out.
    pub limit: Option<usize>,
    /// `next` of the page before.
    pub cursor: Option<String>,
}

pub fn routes(routes: Routes) -> Routes {
    routes.serve(
        Method::GET,
        "/topics/{topic}/messages",
        "Read messages without consuming them.",
        |o| o.query::<MessagesQuery>().lists::<MessageView>("Messages."),
        list,
    )
}

async fn list(State(rest): State<Rest>, Path(name): Path<String>, Query(query): Query<MessagesQuery>) -> Answer {
    let (reader, name) = (rest.parts.shell.reader.clone(), TopicName::parse(&name)?);
    let page = blocking(move || find(&reader, &name, &query)).await?;
    Ok(Json(page).into_response())
}

/// Finds messages. Fails with `NotFound` for an unknown topic and with the parameter that makes no sense.
pub fn find(reader: &Reader, name: &TopicName, query: &MessagesQuery) -> Result<Page<MessageView>> {
    find_open(reader, name, query, &|_, from| from)
}

/// [`find`] without the messages that `open` passes over: it gives the first offset of a queue, from another on, that is wanted. A
/// message that is asked for by its id is found in any case.
pub fn find_open(
    reader: &Reader,
    name: &TopicName,
    query: &MessagesQuery,
    open: &dyn Fn(QueueId, QueueOffset) -> QueueOffset,
) -> Result<Page<MessageView>> {
    let topic = reader.topic(name)?;
    let limit = page::limit(query.limit, LIMIT, LIMIT_MOST)?;
    let times = (optional_time("from", &query.from)?, optional_time("to", &query.to)?);
    let ever = (times.0.unwrap_or(Timestamp(0)), times.1.unwrap_or(Timestamp(i64::MAX)));
    match (&query.id, &query.key) {
        (Some(_), Some(_)) => Err(Failure::invalid("id", "id: expected id or key, got both")),
        (Some(id), None) => views(&by_id(reader, name, id)?),
        (None, Some(key)) => {
            let mut page = views(&reader.by_key(name, key, ever, limit)?)?;
            page.items.retain(|message| {
                let offset = QueueOffset(message.offset);
                open(QueueId(message.queue), offset) == offset
            });
            Ok(page)
        }
        (None, None) => Walk::start(reader, &topic, query, times)?.page(limit, open),
    }
}

fn optional_time(field: &str, text: &Option<String>) -> Result<Option<Timestamp>> {
    text.as_deref().map(|text| time(field, text)).transpose()
}

fn views(records: &[bytes::Bytes]) -> Result<Page<MessageView>> {
    Ok(Page::whole(records.iter().map(|record| message::view(record)).collect::<Result<_>>()?))
}

/// The record with this `id` or `unique_key`, if the topic has it.
pub fn by_id(reader: &Reader, topic: &TopicName, id: &str) -> Result<Vec<bytes::Bytes>> {
    if let Some(record) = message::place(id).and_then(|at| reader.record_at(at).ok())
        && RecordView::parse(&record).is_ok_and(|view| view.topic() == topic.as_str())
    {
        return Ok(vec![record]);
    }
    Ok(reader.by_key(topic, id, (Timestamp(0), Timestamp(i64::MAX)), 1)?)
}

/// A walk through queues side by side, in the order of storing.
struct Walk<'a> {
    reader: &'a Reader,
    topic: &'a TopicName,
    /// Next offset of each queue.
    queues: Vec<(QueueId, QueueOffset)>,
    to: Option<Timestamp>,
}

impl<'a> Walk<'a> {
    fn start(
        reader: &'a Reader,
        topic: &'a Topic,
        query: &MessagesQuery,
        (from, to): (Option<Timestamp>, Option<Timestamp>),
    ) -> Result<Self> {
        let all = topic.read_queues.max(topic.write_queues);
        let queues: Vec<QueueId> = match query.queue {
            Some(queue) => {
                if queue >= all {
                    let text = format!("queue: expected 0 to {}, got {queue}", all.saturating_sub(1));
                    return Err(Failure::invalid("queue", text));
                }
                vec![QueueId(queue)]
            }
            None => (0..all).map(QueueId).collect(),
        };
        if query.offset.is_some() && query.queue.is_none() {
            return Err(Failure::invalid("offset", "offset: expected queue as well: an offset is one of a queue"));
        }
        let starts = match &query.cursor {
            Some(cursor) => positions("cursor", cursor, queues.len())?,
            None => queues
                .iter()
                .map(|queue| match (query.offset, from) {
                    (Some(offset), _) => Ok(QueueOffset(offset)),
                    (None, Some(from)) => Ok(reader.offset_at_time(&topic.name, *queue, from, Boundary::Lower)?),
                    (None, None) => Ok(reader.bounds(&topic.name, *queue).0),
                })
                .collect::<Result<_>>()?,
        };
        Ok(Self { reader, topic: &topic.name, queues: queues.into_iter().zip(starts).collect(), to })
    }

    fn page(mut self, limit: usize, open: &dyn Fn(QueueId, QueueOffset) -> QueueOffset) -> Result<Page<MessageView>> {
        let share = (PAGE_BYTES / self.queues.len().max(1)).clamp(64 * 1024, limits::PULL_BYTES);
        let (mut found, mut more) = (Vec::new(), false);
        for (queue, from) in &mut self.queues {
            // What retention took is passed over.
            let (min, max) = self.reader.bounds(self.topic, *queue);
            *from = open(*queue, *from).clamp(min, max.max(min));
            let fetch = Fetch {
                topic: self.topic.clone(),
                queue: *queue,
                from: *from,
                max_messages: u32::try_from(limit).unwrap_or(u32::MAX),
                max_bytes: share,
                filter: Filter::All,
            };
            let fetched = self.reader.fetch(&fetch)?;
            more |= fetched.next < fetched.max;
            for record in fetched.records.iter().flat_map(|piece| message::records(piece)) {
                let record = RecordView::parse(record)?;
                if self.to.is_some_and(|to| record.stored_at() > to) {
                    break;
                }
                if open(*queue, record.queue_offset()) != record.queue_offset() {
                    continue;
                }
                found.push((record.stored_at(), record.queue(), record.queue_offset(), message::view(record.bytes())?));
            }
        }
        found.sort_by_key(|(at, queue, offset, _)| (*at, *queue, *offset));
        more |= found.len() > limit;
        found.truncate(limit);
        for (_, queue, offset, _) in &found {
            if let Some((_, next)) = self.queues.iter_mut().find(|(id, _)| id == queue) {
                *next = offset.next();
            }
        }
        let next = (more && !found.is_empty()).then(|| positions_text(self.queues.iter().map(|(_, next)| *next)));
        Ok(Page { items: found.into_iter().map(|(.., view)| view).collect(), next })
    }
}

/// Offsets of several queues as one word: `12.0.7`.
pub fn positions_text(positions: impl Iterator<Item = QueueOffset>) -> String {
    positions.map(|position| position.to_string()).collect::<Vec<_>>().join(".")
}

/// Reads [`positions_text`] of so many queues.
pub fn positions(field: &str, text: &str, queues: usize) -> Result<Vec<QueueOffset>> {
    let positions: Option<Vec<QueueOffset>> = text.split('.').map(|part| part.parse().ok().map(QueueOffset)).collect();
    positions.filter(|positions| positions.len() == queues).ok_or_else(|| {
        Failure::invalid(
            field,
            format!("{field}: expected what an earlier answer to the same question said, got {text:?}"),
        )
    })
}
