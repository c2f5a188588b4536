//! What plugins logged, wherever they sit: `/pipelines/{name}/logs` and its like.

use std::{collections::BTreeMap, sync::Arc};

use axum::{Json, extract::State, http::Method, response::IntoResponse};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sluice_model::Timestamp;

use super::{
    Rest, follow,
    input::{Path, Query, time_text},
    page::{Page, limit},
    problem::Answer,
    routes::{Operation, Routes},
};
use crate::{
    failure::Result,
    observer::{Line, Logs},
};

const LIMIT: usize = 100;
const LIMIT_MOST: usize = 1_000;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LogsQuery {
    /// The newest so many lines, 1 to 1000; 100 when left out.
    limit: Option<usize>,
    /// Server-sent events: these lines, then new ones.
    #[serde(default)]
    follow: bool,
}

/// A line that a plugin wrote.
#[derive(Debug, Serialize, JsonSchema)]
pub struct LineView {
    at: String,
    /// `trace`, `debug`, `info`, `warn` or `error`
    level: &'static str,
    step: String,
    queue: u32,
    plugin_digest: String,
    message: String,
    fields: BTreeMap<String, String>,
}

/// What became of the lines of a pipeline's plugins: written ever, sent and lost since it was last started.
#[derive(Clone, Copy, Debug, Serialize, JsonSchema)]
pub struct LineCounts {
    /// Lines that were kept, the newest of them for reading.
    pub written: u64,
    /// Lines that are in the topic of its logs.
    pub sent: u64,
    /// Lines that came too fast for that topic, or that it did not take.
    pub lost: u64,
}

pub fn line_counts(logs: &Logs) -> LineCounts {
    let (sent, lost) = logs.outbox.as_ref().map_or((0, 0), |outbox| (outbox.sent(), outbox.lost()));
    LineCounts { written: logs.lines.count(), sent, lost }
}

pub fn line_view(line: Line) -> LineView {
    LineView {
        at: time_text(Timestamp(line.at)),
        level: line.level,
        step: line.step,
        queue: line.queue,
        plugin_digest: format!("sha256:{}", line.plugin),
        message: line.message,
        fields: line.fields.into_iter().collect(),
    }
}

pub fn routes(routes: Routes) -> Routes {
    let about = "Read what a pipeline's plugins logged lately.";
    routes.serve(Method::GET, "/pipelines/{name}/logs", about, described, of_pipeline)
}

/// How logs are described, whosever they are.
pub fn described(o: Operation<'_>) -> Operation<'_> {
    let lists = o.query::<LogsQuery>().lists::<LineView>("The newest lines, the oldest first.");
    lists.streams::<LineView>("With `follow`: lines as they come, each in an event `line`.")
}

async fn of_pipeline(State(rest): State<Rest>, Path(name): Path<String>, Query(query): Query<LogsQuery>) -> Answer {
    let pipelines = rest.parts.pipelines.clone();
    answer(&rest, query, move || pipelines.logs(&name))
}

/// The lines of the logs that `find` finds, now and whenever it is asked again.
pub fn answer(rest: &Rest, query: LogsQuery, find: impl Fn() -> Result<Arc<Logs>> + Send + Sync + 'static) -> Answer {
    let logs = find()?;
    let most = limit(query.limit, LIMIT, LIMIT_MOST)?;
    if !query.follow {
        let items = logs.lines.newest(most).into_iter().map(line_view).collect();
        return Ok(Json(Page { items, next: None }).into_response());
    }
    let mut lines = logs.lines.clone();
    let (mut seen, kept) = lines.after(0);
    let skipped = kept.len().saturating_sub(most);
    let ready = kept.into_iter().skip(skipped).map(line_view).collect();
    let more = move || {
        // What was deleted and made again has new lines.
        let current = find().ok()?.lines.clone();
        if !Arc::ptr_eq(&current, &lines) {
            (lines, seen) = (current, 0);
        }
        let (count, fresh) = lines.after(seen);
        seen = count;
        Some(fresh.into_iter().map(line_view).collect())
    };
    follow::answer(rest, "line", ready, Box::new(more))
}
