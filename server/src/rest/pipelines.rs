//! `/pipelines`: plugins between topics.

use std::time::Duration;

use axum::{
    Json,
    body::Body,
    extract::State,
    http::{HeaderMap, Method, StatusCode},
    response::{IntoResponse, Response},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sluice_broker::Reader;
use sluice_model::{QueueId, TopicName};
use sluice_runtime::Counters;

use super::{
    Rest, blocking,
    input::{self, BODY_LIMIT, Guard, Path, Query},
    logs::{self, LineCounts},
    page::{Page, PageQuery},
    problem::{Answer, Problem, named_field},
    rates::Rates,
    revisions::{Tried, pinned},
    routes::Routes,
    tagged,
    usage::{self, StepView},
};
use crate::{
    failure::{Failure, Result},
    pipelines::{Description, Pipelines, QueueStatus, Spec, Status},
};

/// A pipeline as it stands. Counts begin with the last start of its stages.
#[derive(Debug, Serialize, JsonSchema)]
pub struct PipelineView {
    name: String,
    /// `running`, `paused` or `stopped`
    state: &'static str,
    /// Why it is stopped.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// Changes with every replacement, pause and resumption, and when another version is tried; also the ETag, of it and of its candidate.
    version: u64,
    /// Number of the revision that runs; 0 when what is stored of it cannot be read.
    revision: u64,
    /// What exactly runs, by step: `name@sha256:…`.
    plugins: Vec<String>,
    /// What is tried: see `/pipelines/{name}/candidate`.
    #[serde(skip_serializing_if = "Option::is_none")]
    candidate: Option<Tried>,
    /// Null when what is stored of it cannot be read.
    spec: Option<Spec>,
    /// Messages of the source that were not read yet.
    lag: u64,
    /// Messages of the source that retention took before they were read.
    lost: u64,
    rates: Rates,
    #[serde(flatten)]
    sums: Counts,
    /// Processor time of its plugins for 1,000 records of the source, microseconds; null before the first.
    cpu_us_per_1000_records: Option<f64>,
    log_lines: LineCounts,
    /// In their order, over all queues.
    steps: Vec<StepView>,
    queues: Vec<QueueView>,
}

#[derive(Clone, Copy, Debug, Default, Serialize, JsonSchema)]
pub struct Counts {
    /// Records of the source that were done with.
    #[serde(rename = "in")]
    pub read: u64,
    /// Records that were sent to sinks.
    #[serde(rename = "out")]
    pub sent: u64,
    /// Records that became no output, and did not fail.
    pub dropped: u64,
    /// Records that failed for good: dead letters and skipped ones.
    pub failed: u64,
    pub dead_lettered: u64,
    pub skipped: u64,
    pub retries: u64,
    /// Calls that ended an instance.
    pub traps: u64,
    /// Time spent in plugins by the clock on the wall, ms.
    pub busy_ms: u64,
    /// Processor time of its plugins, microseconds.
    pub cpu_us: u64,
}

#[derive(Debug, Serialize, JsonSchema)]
struct QueueView {
    queue: u32,
    /// Number of the revision that runs there.
    revision: u64,
    /// Offset that is read next.
    position: u64,
    lag: u64,
    /// Messages that retention took before they were read, since the stage was started; those among them that `where` would not have taken.
    lost: u64,
    #[serde(flatten)]
    counts: Counts,
    /// Why this queue stands still; null when it does not.
    stopped: Option<String>,
}

impl Counts {
    pub fn of(counters: &Counters) -> Self {
        Self {
            read: counters.read,
            sent: counters.sent,
            dropped: counters.dropped,
            failed: counters.dead_lettered + counters.skipped,
            dead_lettered: counters.dead_lettered,
            skipped: counters.skipped,
            retries: counters.retries,
            traps: counters.traps,
            busy_ms: u64::try_from(counters.busy.as_millis()).unwrap_or(u64::MAX),
            cpu_us: u64::try_from(counters.cpu.as_micros()).unwrap_or(u64::MAX),
        }
    }

    pub fn sum(queues: &[QueueStatus]) -> Self {
        Self::of(&queues.iter().map(|queue| queue.counters).sum())
    }
}

/// Where a pipeline that is reset begins.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Anew {
    /// `earliest`, `latest` or `@` and a time; as its source says when left out.
    start: Option<String>,
}

/// Which revision is to run again.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Back {
    /// Its number; the last one that ran when left out.
    to: Option<u64>,
}

pub fn routes(routes: Routes) -> Routes {
    let paused = "The pipeline, which stands behind a whole unit.";
    routes
        .serve(
            Method::GET,
            "/pipelines",
            "List pipelines.",
            |o| o.query::<PageQuery>().lists::<PipelineView>("Pipelines."),
            list,
        )
        .serve(
            Method::GET,
            "/pipelines/{name}",
            "Describe a pipeline: state, lag, rates, and counts per queue.",
            |o| o.answers::<PipelineView>(200, "The pipeline."),
            one,
        )
        .serve(
            Method::PUT,
            "/pipelines/{name}",
            "Make a pipeline or replace it. A replaced one goes on from exactly where it stood.",
            |o| {
                let takes = o.guarded().takes::<Spec>().takes_bytes("application/yaml");
                takes.answers::<PipelineView>(200, "It was replaced.").answers::<PipelineView>(201, "It was made.")
            },
            put,
        )
        .serve(
            Method::DELETE,
            "/pipelines/{name}",
            "Delete a pipeline and its positions; what it wrote stays.",
            |o| o.guarded().empties("It is gone."),
            delete,
        )
        .describe(Method::POST, "/pipelines/{name}:pause", "Stop a pipeline for now, over restarts.", |o| {
            o.guarded().answers::<PipelineView>(200, paused)
        })
        .describe(Method::POST, "/pipelines/{name}:resume", "Let a paused or stopped pipeline go on.", |o| {
            o.guarded().answers::<PipelineView>(200, "The pipeline, which runs.")
        })
        .describe(
            Method::POST,
            "/pipelines/{name}:reset",
            "Let a pipeline begin anew: what its processors kept is gone, what it wrote stays.",
            |o| o.guarded().takes::<Anew>().answers::<PipelineView>(200, "The pipeline, which begins anew."),
        )
        .describe(
            Method::POST,
            "/pipelines/{name}:promote",
            "Let the version that is tried take over in all queues, each at the offset where it stands. With the ETag of the candidate as \
             `If-Match`, only that candidate and none that came after it.",
            |o| o.guarded().answers::<PipelineView>(200, "The pipeline, which runs what was tried."),
        )
        .describe(
            Method::POST,
            "/pipelines/{name}:rollback",
            "Let an earlier revision take over, with exactly the plugins that it had.",
            |o| {
                let takes = o.guarded().takes::<Back>();
                takes.answers::<PipelineView>(200, "The pipeline, which runs the earlier text and plugins.")
            },
        )
        .verbs("/pipelines/{name}", verb)
}

async fn list(State(rest): State<Rest>, Query(query): Query<PageQuery>) -> Answer {
    let mut pipelines = rest.parts.pipelines.list();
    let (names, next) = query.pick(pipelines.iter().map(|of| of.name.clone()).collect())?;
    pipelines.retain(|of| names.contains(&of.name));
    let items = pipelines.into_iter().map(|of| view(&rest, of)).collect();
    Ok(Json(Page { items, next }).into_response())
}

async fn one(State(rest): State<Rest>, Path(name): Path<String>) -> Answer {
    let description = rest.parts.pipelines.describe(&name)?;
    Ok(answer(&rest, false, description))
}

pub fn answer(rest: &Rest, created: bool, description: Description) -> Response {
    tagged(created, &description.version.to_string(), &view(rest, description))
}

async fn put(State(rest): State<Rest>, Path(name): Path<String>, headers: HeaderMap, body: Body) -> Answer {
    let guard = Guard::of(&headers)?;
    let spec = spec_of(&name, &headers, body).await?;
    let pipelines = rest.parts.pipelines.clone();
    let work = move || {
        let known = pipelines.describe(&name).ok();
        let at = known.as_ref().map(|known| known.version.to_string());
        guard.check(&name, at.as_deref())?;
        // The same text again is applied as well: `plugin: name` may mean a newer version by now.
        let expected = (guard != Guard::None).then(|| known.as_ref().map_or(0, |known| known.version));
        Ok((known.is_none(), pipelines.apply(spec, expected)?))
    };
    let (created, description) = blocking(work).await?;
    Ok(answer(&rest, created, description))
}

/// Reads a pipeline that is to have this name.
pub async fn spec_of(name: &str, headers: &HeaderMap, body: Body) -> std::result::Result<Spec, Problem> {
    let bytes = input::body(body, headers, BODY_LIMIT).await?;
    let spec = Spec::parse(&bytes).map_err(named)?;
    if spec.name != name {
        let text = format!("name: expected {name:?} as in the path, got {:?}", spec.name);
        return Err(Failure::invalid("name", text).into());
    }
    Ok(spec)
}

/// A document that does not parse names its body as the field; serde's words name more.
fn named(failure: Failure) -> Failure {
    match named_field(failure.text.trim_start_matches("pipeline: ")) {
        Some(field) if failure.field.as_deref() == Some("body") => Failure { field: Some(field), ..failure },
        _ => failure,
    }
}

async fn delete(State(rest): State<Rest>, Path(name): Path<String>, headers: HeaderMap) -> Answer {
    let (pipelines, guard) = (rest.parts.pipelines.clone(), Guard::of(&headers)?);
    blocking(move || pipelines.delete(&name, expected(&pipelines, &name, &guard)?)).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// The version in place that a change has to find, if it is to find any: one that meets the guard.
pub fn expected(pipelines: &Pipelines, name: &str, guard: &Guard) -> Result<Option<u64>> {
    if *guard == Guard::None {
        return Ok(None);
    }
    let version = pipelines.describe(name)?.version;
    guard.check(name, Some(&version.to_string()))?;
    Ok(Some(version))
}

async fn verb(State(rest): State<Rest>, Path(segment): Path<String>, headers: HeaderMap, body: Body) -> Answer {
    let no_route = || Problem::no_route("POST", &format!("/api/v1/pipelines/{segment}"));
    let (name, verb) = input::verb(&segment).ok_or_else(no_route)?;
    let change = match verb {
        "pause" => Change::Pause,
        "resume" => Change::Resume,
        "promote" => Change::Promote,
        "rollback" => Change::Back(input::json_body(body, &headers).await?),
        "reset" => Change::Anew(input::json_body(body, &headers).await?),
        _ => return Err(no_route()),
    };
    let (pipelines, name, guard) = (rest.parts.pipelines.clone(), name.to_owned(), Guard::of(&headers)?);
    let work = move || {
        let expected = expected(&pipelines, &name, &guard)?;
        match change {
            Change::Pause => pipelines.pause(&name, expected),
            Change::Resume => pipelines.resume(&name, expected),
            Change::Promote => pipelines.promote(&name, expected),
            Change::Back(Back { to }) => pipelines.roll_back(&name, to, expected),
            Change::Anew(Anew { start }) => pipelines.reset(&name, start.as_deref(), expected),
        }
    };
    Ok(answer(&rest, false, blocking(work).await?))
}

/// What a verb asks for.
enum Change {
    Pause,
    Resume,
    Promote,
    Back(Back),
    Anew(Anew),
}

fn view(rest: &Rest, of: Description) -> PipelineView {
    let sums = Counts::sum(&of.queues);
    let steps = usage::of(&of.queues).iter().map(usage::view).collect();
    let queues = queues(&rest.parts.shell.reader, &of);
    let (state, reason) = match of.status {
        Status::Running => ("running", None),
        Status::Paused => ("paused", None),
        Status::Stopped(reason) => ("stopped", Some(reason)),
    };
    PipelineView {
        state,
        reason,
        version: of.version,
        revision: of.revision,
        plugins: of.spec.as_ref().map(|spec| pinned(spec, &of.plugins)).unwrap_or_default(),
        candidate: of.candidate.as_ref().map(Tried::of),
        lag: queues.iter().map(|queue| queue.lag).sum(),
        lost: queues.iter().map(|queue| queue.lost).sum(),
        rates: rest.rates.of(&of.name),
        cpu_us_per_1000_records: usage::per_1000(Duration::from_micros(sums.cpu_us), sums.read),
        log_lines: logs::line_counts(&of.logs),
        sums,
        steps,
        name: of.name,
        spec: of.spec,
        queues,
    }
}

/// How many messages each queue of a pipeline's source has that it has not read yet, whether it runs or not.
pub fn lags(reader: &Reader, of: &Description) -> Vec<(u32, u64)> {
    queues(reader, of).into_iter().map(|queue| (queue.queue, queue.lag)).collect()
}

fn queues(reader: &Reader, of: &Description) -> Vec<QueueView> {
    if of.queues.is_empty() {
        return of.spec.as_ref().and_then(|spec| standing(reader, spec, of.revision).ok()).unwrap_or_default();
    }
    let running = of.queues.iter().map(|queue| QueueView {
        queue: queue.queue.0,
        revision: queue.revision,
        position: queue.position,
        lag: queue.lag,
        lost: queue.lost,
        counts: Counts::of(&queue.counters),
        stopped: queue.stopped.clone(),
    });
    running.collect()
}

/// Where a pipeline stands that does not run, from its recorded positions.
fn standing(reader: &Reader, spec: &Spec, revision: u64) -> Result<Vec<QueueView>> {
    let group = spec.group()?;
    let name = TopicName::parse(&spec.source.topic)?;
    let topic = reader.topic(&name)?;
    let queues = (0..topic.read_queues.max(topic.write_queues)).map(QueueId).filter_map(|queue| {
        let position = reader.offset(&group, &name, queue)?;
        let lag = reader.bounds(&name, queue).1.0.saturating_sub(position.0);
        let (queue, position) = (queue.0, position.0);
        Some(QueueView { queue, revision, position, lag, lost: 0, counts: Counts::default(), stopped: None })
    });
    Ok(queues.collect())
}
