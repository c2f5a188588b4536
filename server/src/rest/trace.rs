//! `/pipelines/{name}/trace`: one message of the source, and what became of it.

use std::collections::BTreeSet;

use axum::{Json, extract::State, http::Method, response::IntoResponse};
use bytes::Bytes;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sluice_broker::Reader;
use sluice_model::{Kind, QueueId, QueueOffset, RecordView, Timestamp, TopicName, key, limits};
use sluice_runtime::Record;

use super::{
    Rest, blocking, browse,
    explanation::{self, StepTrace},
    input::{Path, Query},
    message::{self, MessageView},
    problem::Answer,
    routes::Routes,
};
use crate::{
    failure::{Failure, Result},
    pipelines::{Versions, later_id},
    record::readable_or_not,
    shell::Shell,
    steps,
};

/// Most outputs behind the first that are looked for.
const LATER_LIMIT: u32 = 100;

/// Which message: `queue` and `offset`, or `id`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct TraceQuery {
    /// A queue of the source.
    queue: Option<u32>,
    /// The message's offset there.
    offset: Option<u64>,
    /// The message's `id` or `unique_key`.
    id: Option<String>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct TraceView {
    pipeline: String,
    source: MessageView,
    /// Whether the source's `where` lets it in.
    wanted: bool,
    /// Offset that the pipeline reads next in the message's queue; null when it has not begun there.
    position: Option<u64>,
    /// The pipeline reads behind it: it is done with it, or began behind it.
    passed: bool,
    /// Why its body cannot be read, and it becomes a dead letter before it comes to a plugin; null when it can.
    unreadable: Option<String>,
    /// Messages of the sinks with its `unique_key`, and those of a record that became several with the one made of it: `KEY-PIPELINE-1` and
    /// so on. At most 100 of these.
    sinks: Vec<MessageView>,
    /// Dead letters of it.
    dead_letters: Vec<MessageView>,
    /// What the steps that run now in its queue make of it, tried just now in instances of their own; empty when it is not wanted or cannot be
    /// read.
    explanation: Vec<StepTrace>,
}

pub fn routes(routes: Routes) -> Routes {
    routes.serve(
        Method::GET,
        "/pipelines/{name}/trace",
        "Follow one message of the source: what the log has of it in the sinks and among the dead letters, and what each step makes of it \
         when it is run again. Nothing is written.",
        |o| o.query::<TraceQuery>().answers::<TraceView>(200, "What became of the message, and why."),
        trace,
    )
}

async fn trace(State(rest): State<Rest>, Path(name): Path<String>, Query(query): Query<TraceQuery>) -> Answer {
    let parts = rest.parts.clone();
    let (mut view, wanted) = blocking(move || {
        let (versions, _) = parts.pipelines.pinned(&name, None).map_err(of_pipeline)?;
        let letters = parts.pipelines.dead_letters(&name)?.topic;
        let (view, record) = view(&parts.shell, &versions, &letters, &query)?;
        let queue = QueueId(view.source.queue);
        let explained = view.wanted && view.unreadable.is_none();
        let wanted = if explained { Some((versions.of(queue)?.clone(), record)) } else { None };
        Ok((view, wanted))
    })
    .await?;
    if let Some((checked, record)) = wanted {
        let queue = view.source.queue;
        view.explanation = rest.run_guest(move || explanation::explain(&checked, queue, record)).await?;
    }
    Ok(Json(view).into_response())
}

/// What is wrong with a pipeline that was applied is no field of this request.
fn of_pipeline(failure: Failure) -> Failure {
    match failure.kind {
        Kind::Invalid => Failure::new(Kind::Conflict, failure.text),
        _ => failure,
    }
}

/// What the log says of the message, and the message as plugins see it.
fn view(shell: &Shell, versions: &Versions, letters: &TopicName, query: &TraceQuery) -> Result<(TraceView, Record)> {
    let reader = &shell.reader;
    let stored = find(reader, &versions.live.topic, query)?;
    let source = RecordView::parse(&stored)?;
    let (queue, offset) = (source.queue(), source.queue_offset());
    let checked = versions.of(queue)?;
    let record = readable_or_not(&source, &stored).map_err(|text| Failure::new(Kind::Corrupt, text))?;
    let position = reader.offset(&checked.group, &checked.topic, queue);
    // What came of records before the position is seen when it is on the disk.
    shell.ask_blocking(|_, _| Ok(()))?;
    let wanted = steps::takes(&checked.filter, &record);
    let (mut sinks, mut dead_letters) = (Vec::new(), Vec::new());
    if let Some(unique) = source.property(key::UNIQUE_KEY) {
        // Before a canary took over, the live version ran there.
        let topics: BTreeSet<&TopicName> = versions.all().flat_map(|of| &of.sinks).collect();
        for count in 0..=LATER_LIMIT {
            let id = if count == 0 { unique.to_owned() } else { later_id(&checked.group, unique, count) };
            let before = sinks.len();
            for topic in &topics {
                sinks.extend(with_id(reader, topic, &id)?);
            }
            // They are counted without a gap. The first may be there without its key, or have gone with its topic's retention.
            if count > 0 && sinks.len() == before {
                break;
            }
        }
        dead_letters = with_id(reader, letters, unique)?;
        dead_letters.retain(|letter| {
            let failure = letter.failure.as_ref();
            failure.is_some_and(|of| (of.source_queue, of.source_offset) == (queue.0, offset.0))
        });
    }
    let view = TraceView {
        pipeline: checked.spec.name.clone(),
        source: message::view(&stored)?,
        wanted,
        unreadable: record.unreadable.as_deref().map(str::to_owned),
        position: position.map(|position| position.0),
        passed: position.is_some_and(|position| position > offset),
        sinks,
        dead_letters,
        explanation: Vec::new(),
    };
    Ok((view, record))
}

/// The message that is asked for.
fn find(reader: &Reader, topic: &TopicName, query: &TraceQuery) -> Result<Bytes> {
    match (&query.id, query.queue, query.offset) {
        (Some(id), None, None) => {
            let found = browse::by_id(reader, topic, id)?.pop();
            found.ok_or_else(|| missing("id", &format!("topic {topic:?} has no message {id:?}")))
        }
        (None, Some(queue), Some(offset)) => {
            let width = reader.topic(topic)?;
            let all = width.read_queues.max(width.write_queues);
            if queue >= all {
                let text = format!("queue: expected 0 to {}, got {queue}", all.saturating_sub(1));
                return Err(Failure::invalid("queue", text));
            }
            let (first, end) = reader.bounds(topic, QueueId(queue));
            let place = reader.log_offset(topic, QueueId(queue), QueueOffset(offset));
            let there = place.filter(|_| (first..end).contains(&QueueOffset(offset)));
            let text = || format!("queue {queue} of topic {topic:?} holds offsets from {first} to before {end}");
            Ok(reader.record_at(there.ok_or_else(|| missing("offset", &text()))?)?)
        }
        (Some(_), ..) => Err(Failure::invalid("id", "id: expected id, or queue and offset, got both")),
        (None, None, _) => Err(Failure::invalid("queue", "queue: expected queue and offset, or id")),
        (None, Some(_), None) => Err(Failure::invalid("offset", "offset: expected the message's offset in its queue")),
    }
}

fn missing(field: &str, text: &str) -> Failure {
    Failure { field: Some(field.to_owned()), ..Failure::new(Kind::NotFound, format!("{field}: {text}")) }
}

/// Messages of a topic with this unique key, the oldest first. None when there is no such topic: that of dead letters is made with the first.
fn with_id(reader: &Reader, topic: &TopicName, unique: &str) -> Result<Vec<MessageView>> {
    let ever = (Timestamp(0), Timestamp(i64::MAX));
    let found = match reader.by_key(topic, unique, ever, limits::QUERY_MESSAGES).map_err(Failure::from) {
        Err(failure) if failure.kind == Kind::NotFound => Vec::new(),
        found => found?,
    };
    let mut views = found.iter().rev().map(|record| message::view(record)).collect::<Result<Vec<_>>>()?;
    // Another's key may be the same.
    views.retain(|view| view.unique_key.as_deref() == Some(unique));
    Ok(views)
}
