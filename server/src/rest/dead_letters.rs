//! `/pipelines/{name}/dlq`: what a pipeline could not handle, to be looked at, run again or given up.

use axum::{
    Json,
    body::Body,
    extract::State,
    http::{HeaderMap, Method},
    response::IntoResponse,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sluice_model::{Kind, QueueId, QueueOffset};

use super::{
    Rest, blocking,
    browse::{self, MessagesQuery, positions, positions_text},
    input::{self, Path, Query, time, time_text},
    message::MessageView,
    page::Page,
    problem::Answer,
    routes::Routes,
    tail,
};
use crate::{
    failure::{Failure, Result},
    pipelines::{DeadLetters, ErrorGroup, IDS_LIMIT, Purge, Replay, Which},
};

/// Dead letters are messages, so they are read in the same way.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct DeadLettersQuery {
    /// Only those with this key.
    key: Option<String>,
    /// Only the one with this id, replayed or not.
    id: Option<String>,
    /// Stored at this time or later, RFC 3339.
    from: Option<String>,
    /// Stored at this time or earlier, RFC 3339.
    to: Option<String>,
    limit: Option<usize>,
    cursor: Option<String>,
    /// Those as well that were replayed or purged.
    #[serde(default)]
    all: bool,
    /// `error`: counts of those that failed in the same way, instead of the letters. Of 20000 letters in one answer; `next` goes on, and
    /// says by being there that there are more.
    group_by: Option<String>,
    /// Server-sent events of new ones instead.
    #[serde(default)]
    follow: bool,
}

#[derive(Debug, Serialize, JsonSchema)]
struct DeadLetterView {
    #[serde(flatten)]
    message: MessageView,
    /// It was replayed or purged.
    dealt_with: bool,
}

/// Dead letters that failed in the same way: with this code, in this step, in this version of its plugin.
#[derive(Debug, Serialize, JsonSchema)]
struct ErrorGroupView {
    /// Empty, as `step` and `plugin_digest`, for messages that are there and no dead letters.
    code: String,
    step: String,
    plugin_digest: String,
    count: u64,
    /// When the first of them was stored.
    first: String,
    last: String,
    /// Id of the last of them.
    sample: String,
    /// Why that one failed.
    reason: String,
}

/// What is to be replayed: `ids`, or `all`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ReplayBody {
    /// These dead letters, 1 to 1000.
    ids: Option<Vec<String>>,
    /// Every one that was neither replayed nor purged, in order.
    #[serde(default)]
    all: bool,
    /// Of all of them only those that failed with this code.
    code: Option<String>,
    /// `name@version`: runs this in the place of the pipeline's own version of that plugin.
    plugin: Option<String>,
    /// Those of `ids` as well that were replayed or purged before.
    #[serde(default)]
    again: bool,
}

/// What a replay did.
#[derive(Debug, Serialize, JsonSchema)]
struct ReplayedView {
    /// Dead letters that were run.
    replayed: u64,
    /// Messages sent to sinks.
    sent: u64,
    /// Dead letters that failed again: each has a new one, with its tries added up.
    dead_lettered: u64,
    /// Dead letters that wait now.
    left: u64,
    /// Why it ended before everything was done that was asked for: a limit of one request, or a plugin that stops its pipeline.
    stopped: Option<String>,
}

/// What is to be given up: `ids`, `before`, or `all`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct PurgeBody {
    /// These dead letters, 1 to 1000.
    ids: Option<Vec<String>>,
    /// Those that were stored before this time, RFC 3339.
    before: Option<String>,
    #[serde(default)]
    all: bool,
    /// Of those before a time, or of all, only those that failed with this code; those of timers as well, which no replay runs.
    code: Option<String>,
}

/// What a purge did.
#[derive(Debug, Serialize, JsonSchema)]
struct PurgedView {
    purged: u64,
    /// Dead letters that wait now.
    left: u64,
    /// Why it ended before everything was done that was asked for: a limit of one request.
    #[serde(skip_serializing_if = "Option::is_none")]
    stopped: Option<String>,
}

pub fn routes(routes: Routes) -> Routes {
    routes
        .serve(
            Method::GET,
            "/pipelines/{name}/dlq",
            "Read a pipeline's dead letters that were neither replayed nor purged, or count them by error.",
            |o| {
                let lists = o.query::<DeadLettersQuery>().answers_either::<Page<DeadLetterView>, Page<ErrorGroupView>>(
                    200,
                    "Dead letters, each with its `failure`; with `group_by`: groups of them, the largest first.",
                );
                lists.streams::<MessageView>("With `follow`: dead letters as they come.")
            },
            list,
        )
        .serve(
            Method::POST,
            "/pipelines/{name}/dlq:replay",
            "Run dead letters again: through the pipeline's own plugins to its sinks, once. Nobody else who reads the source sees them. \
             What comes of a letter, what it changes of what is kept, and that it was replayed are one unit.",
            |o| o.takes::<ReplayBody>().answers::<ReplayedView>(200, "What was done."),
            replay,
        )
        .serve(
            Method::POST,
            "/pipelines/{name}/dlq:purge",
            "Give dead letters up: they count as dealt with and are not listed any more. They stay in their topic until its retention \
             takes them, since messages in a log cannot be deleted one by one.",
            |o| o.takes::<PurgeBody>().answers::<PurgedView>(200, "What was done."),
            purge,
        )
}

async fn list(
    State(rest): State<Rest>,
    Path(name): Path<String>,
    Query(query): Query<DeadLettersQuery>,
    headers: HeaderMap,
) -> Answer {
    let letters = rest.parts.pipelines.dead_letters(&name)?;
    if let Some(by) = &query.group_by {
        if by != "error" {
            return Err(Failure::invalid("group_by", format!("group_by: expected error, got {by:?}")).into());
        }
        query.check_alone("group_by", query.follow)?;
        let page = blocking(move || groups(&letters, &query)).await?;
        return Ok(Json(page).into_response());
    }
    if query.follow {
        let last = headers.get("last-event-id").and_then(|id| id.to_str().ok());
        return tail::follow(&rest, letters.topic, None, query.from.as_deref(), None, last);
    }
    let reader = rest.parts.shell.reader.clone();
    let page = blocking(move || {
        let marks = letters.marks()?;
        let wanted = MessagesQuery {
            key: query.key,
            id: query.id,
            from: query.from,
            to: query.to,
            limit: query.limit,
            cursor: query.cursor,
            ..MessagesQuery::default()
        };
        let open = |queue, from| if query.all { from } else { marks.next_open(queue, from) };
        let page = match browse::find_open(&reader, &letters.topic, &wanted, &open) {
            // The topic is made with the first dead letter.
            Err(failure) if failure.kind == Kind::NotFound => Page::whole(Vec::new()),
            found => found?,
        };
        let view = |message: MessageView| DeadLetterView {
            dealt_with: marks.holds(QueueId(message.queue), QueueOffset(message.offset)),
            message,
        };
        Ok(Page { items: page.items.into_iter().map(view).collect(), next: page.next })
    });
    Ok(Json(page.await?).into_response())
}

impl DeadLettersQuery {
    /// Fails when there are parameters that make no sense beside `field`.
    fn check_alone(&self, field: &str, follow: bool) -> Result<()> {
        let given = [
            ("key", self.key.is_some()),
            ("id", self.id.is_some()),
            ("limit", self.limit.is_some()),
            ("follow", follow),
        ];
        match given.into_iter().find(|(_, given)| *given) {
            Some((other, _)) => Err(Failure::invalid(other, format!("{other}: expected without {field}"))),
            None => Ok(()),
        }
    }
}

fn groups(letters: &DeadLetters, query: &DeadLettersQuery) -> Result<Page<ErrorGroupView>> {
    let at = |field: &str, text: &Option<String>| text.as_deref().map(|text| time(field, text)).transpose();
    let times = (at("from", &query.from)?, at("to", &query.to)?);
    let starts =
        query.cursor.as_deref().map(|cursor| positions("cursor", cursor, letters.queue_count())).transpose()?;
    let marks = if query.all { None } else { Some(letters.marks()?) };
    let found = letters.groups(marks.as_ref(), starts, times)?;
    let view = |group: ErrorGroup| ErrorGroupView {
        code: group.code,
        step: group.step,
        plugin_digest: group.digest,
        count: group.count,
        first: time_text(group.first),
        last: time_text(group.last),
        sample: group.sample.to_string(),
        reason: group.reason,
    };
    let next = found.next.map(|next| positions_text(next.into_iter()));
    Ok(Page { items: found.groups.into_iter().map(view).collect(), next })
}

async fn replay(State(rest): State<Rest>, Path(name): Path<String>, headers: HeaderMap, body: Body) -> Answer {
    let asked = input::json_body::<ReplayBody>(body, &headers).await?.check()?;
    let (pipelines, stopping) = (rest.parts.pipelines.clone(), rest.stopping.clone());
    let done = rest.run_guest(move || pipelines.replay(&name, &asked, || !*stopping.borrow())).await?;
    let view = ReplayedView {
        replayed: done.replayed,
        sent: done.sent,
        dead_lettered: done.dead_lettered,
        left: done.left,
        stopped: done.stopped,
    };
    Ok(Json(view).into_response())
}

impl ReplayBody {
    fn check(self) -> Result<Replay> {
        let bad = |field: &str, text: String| Err(Failure::invalid(field, format!("{field}: {text}")));
        let which = match (self.ids, self.all) {
            (Some(_), true) => return bad("ids", "expected ids or all, got both".to_owned()),
            (None, false) => return bad("ids", "expected the ids of dead letters, or \"all\": true".to_owned()),
            (Some(_), false) if self.code.is_some() => return bad("code", "expected with all only".to_owned()),
            (Some(ids), false) if !(1..=IDS_LIMIT).contains(&ids.len()) => {
                return bad("ids", format!("expected 1 to {IDS_LIMIT}, got {}", ids.len()));
            }
            (Some(ids), false) => Which::Ids { ids, again: self.again },
            (None, true) if self.again => return bad("again", "expected with ids only".to_owned()),
            (None, true) => Which::All { code: self.code },
        };
        Ok(Replay { which, plugin: self.plugin })
    }
}

async fn purge(State(rest): State<Rest>, Path(name): Path<String>, headers: HeaderMap, body: Body) -> Answer {
    let asked = input::json_body::<PurgeBody>(body, &headers).await?.check()?;
    let pipelines = rest.parts.pipelines.clone();
    let done = blocking(move || pipelines.purge(&name, &asked)).await?;
    Ok(Json(PurgedView { purged: done.purged, left: done.left, stopped: done.stopped }).into_response())
}

impl PurgeBody {
    fn check(self) -> Result<Purge> {
        let bad = |field: &str, text: String| Err(Failure::invalid(field, format!("{field}: {text}")));
        match (self.ids, self.before, self.all) {
            (Some(_), None, false) if self.code.is_some() => bad("code", "expected with before or all only".to_owned()),
            (Some(ids), None, false) if !(1..=IDS_LIMIT).contains(&ids.len()) => {
                bad("ids", format!("expected 1 to {IDS_LIMIT}, got {}", ids.len()))
            }
            (Some(ids), None, false) => Ok(Purge::Ids(ids)),
            (None, Some(text), false) => Ok(Purge::All { before: Some(time("before", &text)?), code: self.code }),
            (None, None, true) => Ok(Purge::All { before: None, code: self.code }),
            (None, None, false) => {
                bad("before", "expected a time as 2026-01-31T12:00:00Z, ids, or \"all\": true, got none".to_owned())
            }
            _ => bad("before", "expected one of before, ids and all, got several".to_owned()),
        }
    }
}
