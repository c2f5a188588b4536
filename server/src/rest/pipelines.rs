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
use sluice_model::{GroupName, QueueId, TopicName};

use super::{
    Rest, blocking,
    input::{self, BODY_LIMIT, Guard, Path, Query},
    logs::{self, LineCounts},
    page::{Page, PageQuery},
    problem::{Answer, Problem, named_field},
    rates::Rates,
    routes::Routes,
    tagged,
    usage::{self, StepView},
};
use crate::{
    failure::{Failure, Result},
    pipelines::{Description, QueueStatus, Spec, Status},
};

/// A pipeline as it stands. Counts begin with the last start of its stages.
#[derive(Debug, Serialize, JsonSchema)]
struct PipelineView {
    name: String,
    /// `running`, `paused` or `stopped`
    state: &'static str,
    /// Why it is stopped.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// Changes with every replacement, pause and resumption; also the ETag.
    version: u64,
    spec: Spec,
    /// Messages of the source that were not read yet.
    lag: u64,
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
    /// Offset that is read next.
    position: u64,
    lag: u64,
    #[serde(flatten)]
    counts: Counts,
    /// Why this queue stands still; null when it does not.
    stopped: Option<String>,
}

impl Counts {
    fn of(queue: &QueueStatus) -> Self {
        let counters = &queue.counters;
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
            cpu_us: u64::try_from(cpu(queue).as_micros()).unwrap_or(u64::MAX),
        }
    }

    fn add(&mut self, other: &Self) {
        self.read += other.read;
        self.sent += other.sent;
        self.dropped += other.dropped;
        self.failed += other.failed;
        self.dead_lettered += other.dead_lettered;
        self.skipped += other.skipped;
        self.retries += other.retries;
        self.traps += other.traps;
        self.busy_ms += other.busy_ms;
        self.cpu_us += other.cpu_us;
    }

    pub fn sum(queues: &[QueueStatus]) -> Self {
        queues.iter().map(Self::of).fold(Self::default(), |mut sum, of| {
            sum.add(&of);
            sum
        })
    }
}

/// Processor time of a queue's plugins.
fn cpu(queue: &QueueStatus) -> Duration {
    queue.steps.iter().map(|step| step.counters.cpu).sum()
}

/// Where a pipeline that is reset begins.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Anew {
    /// `earliest`, `latest` or `@` and a time; as its source says when left out.
    start: Option<String>,
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
            |o| o.empties("It is gone."),
            delete,
        )
        .describe(Method::POST, "/pipelines/{name}:pause", "Stop a pipeline for now, over restarts.", |o| {
            o.answers::<PipelineView>(200, paused)
        })
        .describe(Method::POST, "/pipelines/{name}:resume", "Let a paused or stopped pipeline go on.", |o| {
            o.answers::<PipelineView>(200, "The pipeline, which runs.")
        })
        .describe(
            Method::POST,
            "/pipelines/{name}:reset",
            "Let a pipeline begin anew: what its processors kept is gone, what it wrote stays.",
            |o| o.takes::<Anew>().answers::<PipelineView>(200, "The pipeline, which begins anew."),
        )
        .verbs("/pipelines/{name}", verb)
}

async fn list(State(rest): State<Rest>, Query(query): Query<PageQuery>) -> Answer {
    let mut pipelines = rest.parts.pipelines.list();
    let (names, next) = query.pick(pipelines.iter().map(|of| of.spec.name.clone()).collect())?;
    pipelines.retain(|of| names.contains(&of.spec.name));
    let items = pipelines.into_iter().map(|of| view(&rest, of)).collect();
    Ok(Json(Page { items, next }).into_response())
}

async fn one(State(rest): State<Rest>, Path(name): Path<String>) -> Answer {
    let description = rest.parts.pipelines.describe(&name)?;
    Ok(answer(&rest, false, description))
}

fn answer(rest: &Rest, created: bool, description: Description) -> Response {
    tagged(created, &description.version.to_string(), &view(rest, description))
}

async fn put(State(rest): State<Rest>, Path(name): Path<String>, headers: HeaderMap, body: Body) -> Answer {
    let guard = Guard::of(&headers)?;
    let bytes = input::body(body, &headers, BODY_LIMIT).await?;
    let spec = Spec::parse(&bytes).map_err(named)?;
    if spec.name != name {
        let text = format!("name: expected {name:?} as in the path, got {:?}", spec.name);
        return Err(Failure::invalid("name", text).into());
    }
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

/// A document that does not parse names its body as the field; serde's words name more.
fn named(failure: Failure) -> Failure {
    match named_field(failure.text.trim_start_matches("pipeline: ")) {
        Some(field) if failure.field.as_deref() == Some("body") => Failure { field: Some(field), ..failure },
        _ => failure,
    }
}

async fn delete(State(rest): State<Rest>, Path(name): Path<String>) -> Answer {
    let pipelines = rest.parts.pipelines.clone();
    blocking(move || pipelines.delete(&name)).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

async fn verb(State(rest): State<Rest>, Path(segment): Path<String>, headers: HeaderMap, body: Body) -> Answer {
    let pipelines = rest.parts.pipelines.clone();
    let description = match input::verb(&segment) {
        Some((name, "pause")) => {
            let name = name.to_owned();
            blocking(move || pipelines.pause(&name)).await?
        }
        Some((name, "resume")) => {
            let name = name.to_owned();
            blocking(move || pipelines.resume(&name)).await?
        }
        Some((name, "reset")) => {
            let name = name.to_owned();
            let bytes = input::body(body, &headers, BODY_LIMIT).await?;
            let anew: Anew = if bytes.is_empty() { Anew::default() } else { input::json(&bytes)? };
            blocking(move || pipelines.reset(&name, anew.start.as_deref())).await?
        }
        _ => return Err(Problem::no_route("POST", &format!("/api/v1/pipelines/{segment}"))),
    };
    Ok(answer(&rest, false, description))
}

fn view(rest: &Rest, of: Description) -> PipelineView {
    let sums = Counts::sum(&of.queues);
    let steps = usage::of(&of.queues).iter().map(usage::view).collect();
    let running = of.queues.iter().map(|queue| QueueView {
        queue: queue.queue.0,
        position: queue.position,
        lag: queue.lag,
        counts: Counts::of(queue),
        stopped: queue.stopped.clone(),
    });
    let mut queues: Vec<QueueView> = running.collect();
    if queues.is_empty() {
        queues = standing(rest, &of.spec).unwrap_or_default();
    }
    let (state, reason) = match of.status {
        Status::Running => ("running", None),
        Status::Paused => ("paused", None),
        Status::Stopped(reason) => ("stopped", Some(reason)),
    };
    PipelineView {
        name: of.spec.name.clone(),
        state,
        reason,
        version: of.version,
        lag: queues.iter().map(|queue| queue.lag).sum(),
        rates: rest.rates.of(&of.spec.name),
        cpu_us_per_1000_records: usage::per_1000(Duration::from_micros(sums.cpu_us), sums.read),
        log_lines: logs::line_counts(&of.logs),
        sums,
        steps,
        spec: of.spec,
        queues,
    }
}

/// Where a pipeline stands that does not run, from its recorded positions.
fn standing(rest: &Rest, spec: &Spec) -> Result<Vec<QueueView>> {
    let reader = &rest.parts.shell.reader;
    let group = GroupName::parse(&format!("pipeline-{}", spec.name))?;
    let name = TopicName::parse(&spec.source.topic)?;
    let topic = reader.topic(&name)?;
    let queues = (0..topic.read_queues).map(QueueId).filter_map(|queue| {
        let position = reader.offset(&group, &name, queue)?;
        let lag = reader.bounds(&name, queue).1.0.saturating_sub(position.0);
        Some(QueueView { queue: queue.0, position: position.0, lag, counts: Counts::default(), stopped: None })
    });
    Ok(queues.collect())
}
