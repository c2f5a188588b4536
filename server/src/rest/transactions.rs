//! `/transactions`: half messages that wait for a decision, and the decisions made.

use std::collections::BTreeMap;

use axum::{Json, extract::State, http::Method, response::IntoResponse};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sluice_broker::{Half, Reader};
use sluice_model::{QueueOffset, RecordView, key};

use super::{
    Rest, blocking,
    input::{Query, time_text},
    message,
    page::{Page, PageQuery, limit},
    problem::Answer,
    routes::Routes,
};
use crate::failure::{Failure, Result};

const LIMIT: usize = 100;
const LIMIT_MOST: usize = 1_000;
/// Most half messages that one request looks through, and how many at once.
const SCAN_LIMIT: usize = 100_000;
const SCAN_AT_ONCE: usize = 1_000;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct HalvesQuery {
    /// Only those of this producer group. A page of them looks through at most 100000 half messages, and may be empty though `next` goes on.
    producer_group: Option<String>,
    limit: Option<usize>,
    cursor: Option<String>,
}

/// A prepared message that nobody decided yet.
#[derive(Debug, Serialize, JsonSchema)]
struct HalfView {
    transaction_id: String,
    /// Its place among the half messages.
    offset: u64,
    producer_group: String,
    /// Where it goes when it is committed.
    topic: String,
    key: Option<String>,
    tag: Option<String>,
    properties: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body_base64: Option<String>,
    stored_at: String,
    /// How often its producer or checker was really asked.
    checks: u32,
    /// How often it will be asked at the most.
    checks_limit: u32,
    /// From when on one of them is to be asked again. It is in the past while nobody can be asked: no producer is connected, and no checker
    /// is bound, or it is behind or rests. After 72 hours of that the half message expires.
    due_at: String,
    /// Whether a checker plugin is bound to its producer group.
    checker: bool,
}

/// What became of a half message.
#[derive(Debug, Serialize, JsonSchema)]
struct DecisionView {
    transaction_id: String,
    /// Its place among the half messages.
    offset: u64,
    producer_group: String,
    topic: String,
    /// `commit`, `rollback`, or `expired`: nobody decided it in time.
    decision: String,
    /// `producer`, `checker`, or `broker` for an expired one.
    decided_by: String,
    /// Why a checker rolled back; null where it did not say, or somebody else decided.
    reason: Option<String>,
    decided_at: String,
}

pub fn routes(routes: Routes) -> Routes {
    let routes = routes.serve(
        Method::GET,
        "/transactions/decisions",
        "List the decisions made about half messages, the newest first, as far back as the log goes.",
        |o| o.query::<PageQuery>().lists::<DecisionView>("Decisions."),
        decisions,
    );
    routes.serve(
        Method::GET,
        "/transactions",
        "List half messages that are not decided yet, the oldest first.",
        |o| o.query::<HalvesQuery>().lists::<HalfView>("Half messages."),
        list,
    )
}

async fn decisions(State(rest): State<Rest>, Query(query): Query<PageQuery>) -> Answer {
    let limit = limit(query.limit, LIMIT, LIMIT_MOST)?;
    let before = query.cursor.as_deref().map(place).transpose()?;
    let work = move || {
        let (found, next) = rest.parts.shell.reader.decisions(before, limit)?;
        let items = found.into_iter().map(|of| DecisionView {
            transaction_id: of.unique_key,
            offset: of.half.0,
            producer_group: of.group,
            topic: of.topic,
            decision: of.verdict,
            decided_by: of.by,
            reason: of.reason,
            decided_at: time_text(of.decided_at),
        });
        Ok(Page { items: items.collect(), next: next.map(|next| next.to_string()) })
    };
    Ok(Json(blocking(work).await?).into_response())
}

fn place(cursor: &str) -> Result<QueueOffset> {
    let place = cursor.parse().map(QueueOffset);
    place.map_err(|_| {
        Failure::invalid("cursor", format!("cursor: expected what an earlier answer said, got {cursor:?}"))
    })
}

async fn list(State(rest): State<Rest>, Query(query): Query<HalvesQuery>) -> Answer {
    let limit = limit(query.limit, LIMIT, LIMIT_MOST)?;
    let from = query.cursor.as_deref().map(place).transpose()?.unwrap_or_default();
    let work = move || {
        let reader = &rest.parts.shell.reader;
        let wanted = |half: &Half| query.producer_group.as_deref().is_none_or(|group| group == half.group.as_str());
        let (halves, next) = page(from, limit, SCAN_LIMIT, wanted, |from, max| reader.halves(from, max));
        // One that is decided meanwhile and deleted with its segment is left out.
        let items = halves.iter().filter_map(|half| {
            let checker = rest.parts.checkers.describe(&half.group).is_ok_and(|of| of.spec.is_some());
            view(reader, half, checker).ok()
        });
        Ok(Page { items: items.collect(), next: next.map(|next| next.to_string()) })
    };
    Ok(Json(blocking(work).await?).into_response())
}

/// Up to `limit` wanted half messages from a place on, among the `scan` that stand there, and the place to go on from when there are more.
/// `read` gives so many from a place on, by place.
fn page(
    mut from: QueueOffset,
    limit: usize,
    scan: usize,
    wanted: impl Fn(&Half) -> bool,
    read: impl Fn(QueueOffset, usize) -> Vec<Half>,
) -> (Vec<Half>, Option<QueueOffset>) {
    let (mut found, mut seen) = (Vec::new(), 0);
    loop {
        let halves = read(from, SCAN_AT_ONCE);
        let whole = halves.len() < SCAN_AT_ONCE;
        for half in halves {
            if seen == scan || found.len() == limit {
                return (found, Some(half.queue_offset));
            }
            seen += 1;
            from = half.queue_offset.plus(1);
            if wanted(&half) {
                found.push(half);
            }
        }
        if whole {
            return (found, None);
        }
    }
}

fn view(reader: &Reader, half: &Half, checker: bool) -> Result<HalfView> {
    let record = reader.record_at(half.at)?;
    let record = RecordView::parse(&record)?;
    let own = |name| record.property(name).map(str::to_owned);
    let (body, body_base64) = message::body(record.sys_flag().compression(), record.body());
    Ok(HalfView {
        transaction_id: own(key::TRANSACTION_ID).or_else(|| own(key::UNIQUE_KEY)).unwrap_or_default(),
        offset: half.queue_offset.0,
        producer_group: half.group.to_string(),
        topic: own(key::REAL_TOPIC).unwrap_or_default(),
        key: own(key::KEYS),
        tag: own(key::TAGS),
        properties: message::properties(record.own_properties()),
        body,
        body_base64,
        stored_at: time_text(half.stored_at),
        checks: half.checks,
        checks_limit: reader.config().transaction_checks,
        due_at: time_text(half.due),
        checker,
    })
}

#[cfg(test)]
mod tests {
    use sluice_model::{GroupName, LogOffset, Timestamp};

    use super::*;

    fn half(offset: u64) -> Half {
        Half {
            queue_offset: QueueOffset(offset),
            at: LogOffset(offset),
            group: GroupName::parse(if offset.is_multiple_of(1_000) { "rare" } else { "usual" }).unwrap(),
            stored_at: Timestamp(0),
            checks: 0,
            due: Timestamp(0),
        }
    }

    /// All pages of half messages of a group; at most so many are looked through for one.
    fn pages(count: u64, limit: usize, scan: usize, group: &str) -> (Vec<u64>, usize) {
        let read = |from: QueueOffset, max| (from.0..count).map(half).take(max).collect::<Vec<Half>>();
        let (mut all, mut from, mut pages) = (Vec::new(), QueueOffset(0), 0);
        loop {
            let (found, next) = page(from, limit, scan, |half| half.group.as_str() == group, read);
            all.extend(found.iter().map(|half| half.queue_offset.0));
            pages += 1;
            match next {
                Some(next) => from = next,
                None => return (all, pages),
            }
        }
    }

    #[test]
    fn pages_go_on_behind_what_was_looked_through() {
        let rare: Vec<u64> = (0..5_500).step_by(1_000).collect();
        assert_eq!(pages(5_500, 100, usize::MAX, "rare"), (rare.clone(), 1));
        assert_eq!(pages(5_500, 100, 1_500, "rare"), (rare.clone(), 4));
        assert_eq!(pages(5_500, 1, usize::MAX, "rare"), (rare, 7));
        assert_eq!(pages(5_500, 100, 1_500, "nobody"), (Vec::new(), 4));
        let (usual, _) = pages(2_000, 7, 100, "usual");
        assert_eq!(usual.len(), 1_998);
        assert_eq!(pages(0, 7, 100, "usual"), (Vec::new(), 1));
    }
}
