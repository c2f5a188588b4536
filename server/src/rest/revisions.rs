//! `/pipelines/{name}/revisions` and `/pipelines/{name}/candidate`: what ran, what runs, and what is tried before it does.

use axum::{
    Json,
    body::Body,
    extract::State,
    http::{HeaderMap, Method, StatusCode},
    response::IntoResponse,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sluice_model::Timestamp;
use sluice_runtime::Counters;

use super::{
    Rest, blocking,
    input::{Guard, Path, Query, time_text},
    logs::{LineView, line_view},
    page::Page,
    pipelines::{Counts, answer, expected, spec_of},
    problem::Answer,
    routes::Routes,
    tagged,
    trial::OutputMessage,
    usage,
};
use crate::{
    failure::{Failure, Result},
    pipelines::{
        Became, Candidate, Example, History, Kept, Mode, Offsets, QueueStatus, Reason, Report, Revision, Spec, Trial,
    },
    plugins::Wanted,
};

/// What is tried, in short.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Tried {
    revision: u64,
    /// `shadow` or `canary`
    mode: &'static str,
    /// The queues of a canary.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    queues: Vec<u32>,
}

/// A text with exactly the plugins that it ran with.
#[derive(Debug, Serialize, JsonSchema)]
struct RevisionView {
    revision: u64,
    /// `live`, `tried` or `past`
    state: &'static str,
    /// `applied`, `reset`, `tried`, `promoted` or `rolled-back`
    reason: &'static str,
    /// Number of the revision that it rolled back to.
    #[serde(skip_serializing_if = "Option::is_none")]
    rolled_back_to: Option<u64>,
    /// When it took over.
    since: String,
    /// By step: `name@sha256:…`.
    plugins: Vec<String>,
    /// By queue of the source: the first offset that it read.
    from: Offsets,
    /// By queue of the source: the first offset that it left to another revision.
    until: Offsets,
    spec: Spec,
}

/// How a version does that is tried.
#[derive(Debug, Serialize, JsonSchema)]
struct CandidateView {
    /// `shadow` or `canary`
    mode: &'static str,
    /// The queues of a canary.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    queues: Vec<u32>,
    #[serde(flatten)]
    revision: RevisionView,
    /// What the live revision did beside it, on the same records (shadow) or in the other queues (canary).
    live: SideView,
    candidate: SideView,
    /// Why it does not run; left out when it does. The queues of a canary stand then.
    #[serde(skip_serializing_if = "Option::is_none")]
    stopped: Option<String>,
    /// Of a shadow that runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    comparison: Option<ComparisonView>,
}

/// What one version did.
#[derive(Debug, Serialize, JsonSchema)]
struct SideView {
    #[serde(flatten)]
    counts: Counts,
    /// Processor time of its plugins for 1,000 records, microseconds; null before the first.
    cpu_us_per_1000_records: Option<f64>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct ComparisonView {
    since: String,
    /// What the processors of both versions began with: `copied`, what the live version keeps, or `empty`, nothing; left out when there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<&'static str>,
    /// Records that became the same in both versions.
    same: u64,
    /// Records that became something else, or failed in one of them only.
    different: u64,
    queues: Vec<ComparedQueue>,
    /// The first differences, at most 20.
    examples: Vec<ExampleView>,
    /// What the candidate's plugins logged lately.
    logs: Vec<LineView>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct ComparedQueue {
    queue: u32,
    /// Offset of the first record that was compared.
    from: u64,
    /// Offset that is compared next.
    position: u64,
    lag: u64,
    /// Why it goes no further; null when it does.
    stopped: Option<String>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct ExampleView {
    queue: u32,
    offset: u64,
    live: BecameView,
    candidate: BecameView,
}

/// What a record became; neither outputs nor a failure when it was dropped.
#[derive(Debug, Serialize, JsonSchema)]
struct BecameView {
    count: usize,
    /// The first of them; long values and headers are cut off.
    outputs: Vec<OutputMessage>,
    #[serde(skip_serializing_if = "Option::is_none")]
    failed: Option<FailedView>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct FailedView {
    step: String,
    code: String,
    reason: String,
}

/// How a version is to be tried.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct TryQuery {
    /// `shadow`: beside the live version on the same records, writing nothing. `canary`: in its place in some queues.
    mode: String,
    /// The queues of a canary: `0,3`.
    queues: Option<String>,
    /// Where a shadow begins: `earliest`, `latest` or `@` and a time; where the live version stands when left out.
    start: Option<String>,
}

pub fn routes(routes: Routes) -> Routes {
    routes
        .serve(
            Method::GET,
            "/pipelines/{name}/revisions",
            "List what ran under a pipeline's name and runs now, the newest first.",
            |o| o.lists::<RevisionView>("Revisions."),
            revisions,
        )
        .serve(
            Method::PUT,
            "/pipelines/{name}/candidate",
            "Have a version tried before it runs: as a shadow, which writes nothing, or as a canary in some queues.",
            |o| {
                let takes = o.guarded().query::<TryQuery>().takes::<Spec>().takes_bytes("application/yaml");
                takes.answers::<super::pipelines::PipelineView>(201, "The pipeline, which tries it.")
            },
            put,
        )
        .serve(
            Method::GET,
            "/pipelines/{name}/candidate",
            "Say how the version does that is tried, beside the live one.",
            |o| {
                o.answers::<CandidateView>(
                    200,
                    "The candidate. Its ETag is the pipeline's, and changes when another version is tried.",
                )
            },
            get,
        )
        .serve(
            Method::DELETE,
            "/pipelines/{name}/candidate",
            "Give up the version that is tried; where it was a canary, the live one goes on from exactly there.",
            |o| o.guarded().empties("It is gone."),
            delete,
        )
}

async fn revisions(State(rest): State<Rest>, Path(name): Path<String>) -> Answer {
    let History { tried, live, past } = rest.parts.pipelines.history(&name)?;
    let tried = tried.map(|of| revision_view(of, "tried"));
    let past = past.into_iter().rev().map(|of| revision_view(of, "past"));
    let items = tried.into_iter().chain([revision_view(live, "live")]).chain(past).collect();
    Ok(Json(Page::whole(items)).into_response())
}

async fn put(
    State(rest): State<Rest>,
    Path(name): Path<String>,
    Query(query): Query<TryQuery>,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    let guard = Guard::of(&headers)?;
    let spec = spec_of(&name, &headers, body).await?;
    let mode = mode(query)?;
    let pipelines = rest.parts.pipelines.clone();
    let work = move || pipelines.try_out(spec, mode, expected(&pipelines, &name, &guard)?);
    Ok(answer(&rest, true, blocking(work).await?))
}

fn mode(query: TryQuery) -> Result<Mode> {
    match (query.mode.as_str(), query.queues, query.start) {
        ("shadow", None, start) => Ok(Mode::Shadow { start }),
        ("canary", Some(queues), None) => {
            let parsed = queues.split(',').map(|queue| queue.trim().parse());
            let queues = parsed.collect::<std::result::Result<Vec<u32>, _>>().map_err(|_| {
                Failure::invalid("queues", format!("queues: expected numbers of queues like 0,3, got {queues:?}"))
            })?;
            Ok(Mode::Canary { queues })
        }
        ("canary", None, _) => Err(Failure::invalid("queues", "queues: expected the queues of the canary, like 0,3")),
        ("canary", Some(_), Some(_)) => {
            Err(Failure::invalid("start", "start: a canary goes on where the live version stands"))
        }
        ("shadow", Some(_), _) => Err(Failure::invalid("queues", "queues: a shadow runs on all of them")),
        (other, ..) => Err(Failure::invalid("mode", format!("mode: expected shadow or canary, got {other:?}"))),
    }
}

async fn get(State(rest): State<Rest>, Path(name): Path<String>) -> Answer {
    let Trial { candidate, version, queues, report, stopped } = rest.parts.pipelines.trial(&name)?;
    let (live, tried) = match &report {
        Some(report) => (report.live, report.candidate),
        None => sides(&queues, candidate.revision.number),
    };
    let Tried { mode, queues, .. } = Tried::of(&candidate);
    let view = CandidateView {
        mode,
        queues,
        live: SideView::of(&live),
        candidate: SideView::of(&tried),
        stopped,
        comparison: report.map(|report| comparison(report, &candidate.revision.spec.sinks)),
        revision: revision_view(candidate.revision, "tried"),
    };
    Ok(tagged(false, &version.to_string(), &view))
}

async fn delete(State(rest): State<Rest>, Path(name): Path<String>, headers: HeaderMap) -> Answer {
    let (pipelines, guard) = (rest.parts.pipelines.clone(), Guard::of(&headers)?);
    blocking(move || pipelines.discard(&name, expected(&pipelines, &name, &guard)?)).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// What the live revision and the other one did, each in its queues.
fn sides(queues: &[QueueStatus], tried: u64) -> (Counters, Counters) {
    let sum =
        |of: bool| queues.iter().filter(|queue| (queue.revision == tried) == of).map(|queue| queue.counters).sum();
    (sum(false), sum(true))
}

impl Tried {
    pub fn of(candidate: &Candidate) -> Self {
        let (mode, queues) = match &candidate.mode {
            Mode::Shadow { .. } => ("shadow", Vec::new()),
            Mode::Canary { queues } => ("canary", queues.clone()),
        };
        Self { revision: candidate.revision.number, mode, queues }
    }
}

impl SideView {
    fn of(counters: &Counters) -> Self {
        let each = usage::per_1000(counters.cpu, counters.read);
        Self { counts: Counts::of(counters), cpu_us_per_1000_records: each }
    }
}

fn revision_view(of: Revision, state: &'static str) -> RevisionView {
    let (reason, rolled_back_to) = match of.reason {
        Reason::Applied => ("applied", None),
        Reason::Reset => ("reset", None),
        Reason::Tried => ("tried", None),
        Reason::Promoted => ("promoted", None),
        Reason::RolledBack(to) => ("rolled-back", Some(to)),
    };
    RevisionView {
        revision: of.number,
        state,
        reason,
        rolled_back_to,
        since: time_text(Timestamp(of.since)),
        plugins: pinned(&of.spec, &of.plugins),
        from: of.from,
        until: of.until,
        spec: of.spec,
    }
}

/// `name@sha256:…` of each step.
pub fn pinned(spec: &Spec, digests: &[String]) -> Vec<String> {
    let steps = spec.steps.iter().zip(digests);
    steps.map(|(step, digest)| format!("{}@sha256:{digest}", Wanted::parse(&step.plugin).name)).collect()
}

fn comparison(report: Report, sinks: &[String]) -> ComparisonView {
    let queues = report.queues.into_iter().map(|of| ComparedQueue {
        queue: of.queue.0,
        from: of.from,
        position: of.position,
        lag: of.lag,
        stopped: of.stopped,
    });
    let example = |of: Example| ExampleView {
        queue: of.queue.0,
        offset: of.offset,
        live: became(of.live, sinks),
        candidate: became(of.candidate, sinks),
    };
    ComparisonView {
        since: time_text(report.since),
        state: report.kept.map(|kept| match kept {
            Kept::Copied => "copied",
            Kept::Empty => "empty",
        }),
        same: report.same,
        different: report.different,
        queues: queues.collect(),
        examples: report.examples.into_iter().map(example).collect(),
        logs: report.logs.into_iter().map(line_view).collect(),
    }
}

fn became(of: Became, sinks: &[String]) -> BecameView {
    BecameView {
        count: of.count,
        outputs: of.outputs.iter().map(|out| OutputMessage::of(out.sink, sinks, &out.record)).collect(),
        failed: of.failed.map(|(step, code, reason)| FailedView { step, code, reason }),
    }
}
