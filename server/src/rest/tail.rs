//! `GET /topics/{topic}/tail`: messages as they come, as server-sent events.

use std::{convert::Infallible, time::Duration};

use axum::{
    extract::State,
    http::{HeaderMap, Method},
    response::{
        IntoResponse, Sse,
        sse::{Event, KeepAlive},
    },
};
use futures_util::stream;
use schemars::JsonSchema;
use serde::Deserialize;
use sluice_broker::{Boundary, Fetch, Filter, Reader};
use sluice_model::{QueueId, QueueOffset, TopicName};
use tokio::sync::{OwnedSemaphorePermit, watch};

use super::{
    Rest,
    browse::{positions, positions_text},
    input::{Path, Query, time},
    message::{self, MessageView},
    problem::{Answer, Problem},
    routes::Routes,
};
use crate::failure::{Failure, Result};

/// Time between two looks at queues that had nothing.
const LOOK: Duration = Duration::from_millis(50);
/// A comment goes out when nothing else did for this long, so that nobody in between hangs up.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Messages taken of one queue in one look.
const TURN: u32 = 32;
const TURN_BYTES: usize = 1024 * 1024;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct TailQuery {
    /// Only this queue.
    queue: Option<u32>,
    /// `latest` (usual), `earliest` or a time.
    from: Option<String>,
    /// Only messages with one of these tags: `a || b`.
    tag: Option<String>,
}

pub fn routes(routes: Routes) -> Routes {
    routes.serve(
        Method::GET,
        "/topics/{topic}/tail",
        "Follow a topic. Each event's `id` says how far it is; as `Last-Event-ID` it goes on from there.",
        |o| {
            o.query::<TailQuery>()
                .header("Last-Event-ID", "Go on behind this event.")
                .streams::<MessageView>("Messages as they come, each in an event `message`.")
        },
        tail,
    )
}

async fn tail(
    State(rest): State<Rest>,
    Path(name): Path<String>,
    Query(query): Query<TailQuery>,
    headers: HeaderMap,
) -> Answer {
    let name = TopicName::parse(&name)?;
    let last = headers.get("last-event-id").and_then(|id| id.to_str().ok());
    follow(&rest, name, query.queue, query.from.as_deref(), query.tag.as_deref(), last)
}

/// A stream of the messages of a topic. Fails as long as nothing was sent.
pub fn follow(
    rest: &Rest,
    topic: TopicName,
    queue: Option<u32>,
    from: Option<&str>,
    tag: Option<&str>,
    last: Option<&str>,
) -> Answer {
    let permit = rest.streams.clone().try_acquire_owned();
    let permit = permit.map_err(|_| Problem::busy("too many streams are open"))?;
    let reader = rest.parts.shell.reader.clone();
    let filter = Filter::parse(tag.unwrap_or("*")).map_err(|error| Failure::invalid("tag", format!("tag: {error}")))?;
    let queues = start(&reader, &topic, queue, from, last)?;
    let tail = Tail {
        reader,
        topic,
        filter,
        queues,
        ready: Vec::new().into_iter(),
        stopping: rest.stopping.clone(),
        _permit: permit,
    };
    let events = stream::unfold(tail, |mut tail| async move {
        let event = tail.next().await?;
        Some((Ok::<_, Infallible>(event), tail))
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response())
}

fn start(
    reader: &Reader,
    name: &TopicName,
    queue: Option<u32>,
    from: Option<&str>,
    last: Option<&str>,
) -> Result<Vec<(QueueId, QueueOffset)>> {
    let topic = reader.topic(name)?;
    let queues: Vec<QueueId> = match queue {
        Some(queue) => vec![QueueId(queue)],
        None => (0..topic.read_queues.max(topic.write_queues)).map(QueueId).collect(),
    };
    for queue in &queues {
        reader.check_queue(name, *queue).map_err(|error| {
            let failure = Failure::from(error);
            Failure { field: Some("queue".to_owned()), text: failure.text.replace("queueId", "queue"), ..failure }
        })?;
    }
    if let Some(last) = last {
        let positions = positions("Last-Event-ID", last, queues.len())?;
        return Ok(queues.into_iter().zip(positions).collect());
    }
    let first = |queue: &QueueId| match from {
        None | Some("latest") => Ok::<_, Failure>(reader.bounds(name, *queue).1),
        Some("earliest") => Ok(reader.bounds(name, *queue).0),
        Some(text) => Ok(reader.offset_at_time(name, *queue, time("from", text)?, Boundary::Lower)?),
    };
    queues.iter().map(|queue| Ok((*queue, first(queue)?))).collect()
}

/// One open stream.
struct Tail {
    reader: Reader,
    topic: TopicName,
    filter: Filter,
    queues: Vec<(QueueId, QueueOffset)>,
    ready: std::vec::IntoIter<Event>,
    stopping: watch::Receiver<bool>,
    _permit: OwnedSemaphorePermit,
}

impl Tail {
    /// The next event; `None` when the topic or the server is gone.
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.ready.next() {
                return Some(event);
            }
            if *self.stopping.borrow() {
                return None;
            }
            self.ready = self.look().ok()?.into_iter();
            if self.ready.len() == 0 {
                tokio::select! {
                    () = tokio::time::sleep(LOOK) => {}
                    _ = self.stopping.wait_for(|stop| *stop) => return None,
                }
            }
        }
    }

    fn look(&mut self) -> Result<Vec<Event>> {
        let mut events = Vec::new();
        for at in 0..self.queues.len() {
            let (queue, from) = self.queues[at];
            if self.reader.bounds(&self.topic, queue).1 == from {
                // Nothing new; a topic that is gone has no bounds, and is found out here.
                self.reader.topic(&self.topic)?;
                continue;
            }
            let fetch = Fetch {
                topic: self.topic.clone(),
                queue,
                from,
                max_messages: TURN,
                max_bytes: TURN_BYTES,
                filter: self.filter.clone(),
            };
            let fetched = self.reader.fetch(&fetch)?;
            for record in fetched.records.iter().flat_map(|piece| message::records(piece)) {
                let view = message::view(record)?;
                self.queues[at].1 = QueueOffset(view.offset).next();
                let id = positions_text(self.queues.iter().map(|(_, next)| *next));
                let event = Event::default().event("message").id(id);
                events.push(event.json_data(&view).map_err(|error| Failure::invalid("body", error.to_string()))?);
            }
            self.queues[at].1 = fetched.next;
        }
        Ok(events)
    }
}
