//! `/producer-groups/{group}/checker`: the plugin that decides a group's half messages.

use axum::{
    body::Body,
    extract::State,
    http::{HeaderMap, Method, StatusCode},
    response::{IntoResponse, Response},
};
use schemars::JsonSchema;
use serde::Serialize;
use sluice_model::GroupName;

use super::{
    Rest,
    bindings::state,
    blocking,
    input::{self, BODY_LIMIT, Guard, Path, Query, json_or_yaml},
    logs::{self, LogsQuery},
    problem::Answer,
    routes::Routes,
    tagged,
};
use crate::{
    checkers::{Answers, CheckerSpec, Description},
    failure::Result,
};

/// A bound checker.
#[derive(Debug, Serialize, JsonSchema)]
struct CheckerView {
    group: String,
    /// `running`, `resting` (it fails on most of what it is asked and is only tried every few seconds) or `broken`
    state: &'static str,
    /// Why it rests or is broken.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// Left out when what is stored of it cannot be read.
    #[serde(flatten)]
    spec: Option<CheckerSpec>,
    /// Which version decides.
    #[serde(skip_serializing_if = "Option::is_none")]
    plugin_digest: Option<String>,
    /// Changes with every replacement; also the ETag.
    version: u64,
    /// What it said since it was bound, or since the server started.
    answers: AnswersView,
}

#[derive(Debug, Serialize, JsonSchema)]
struct AnswersView {
    commit: u64,
    rollback: u64,
    unknown: u64,
    /// It named the time of the next question.
    later: u64,
    /// It returned an error, trapped, had to be ended or could not be started.
    failed: u64,
    /// Questions that were put to producers instead while it rested.
    unasked: u64,
    /// Processor time of its calls, us.
    cpu_us: u64,
}

impl AnswersView {
    fn of(answers: Answers) -> Self {
        let Answers { commit, rollback, unknown, later, failed, unasked, cpu } = answers;
        let cpu_us = u64::try_from(cpu.as_micros()).unwrap_or(u64::MAX);
        Self { commit, rollback, unknown, later, failed, unasked, cpu_us }
    }
}

const PATH: &str = "/producer-groups/{group}/checker";

pub fn routes(routes: Routes) -> Routes {
    routes
        .serve(
            Method::GET,
            PATH,
            "Describe the checker of a producer group.",
            |o| o.answers::<CheckerView>(200, "The checker."),
            one,
        )
        .serve(
            Method::PUT,
            PATH,
            "Bind a plugin that decides the half messages of a producer group.",
            |o| {
                o.guarded()
                    .takes::<CheckerSpec>()
                    .takes_bytes("application/yaml")
                    .answers::<CheckerView>(200, "It was replaced.")
                    .answers::<CheckerView>(201, "It was bound.")
            },
            put,
        )
        .serve(
            Method::DELETE,
            PATH,
            "Unbind the checker of a producer group: its producers are asked again.",
            |o| o.header("If-Match", "Delete it only if this is its ETag; 412 otherwise.").empties("It is gone."),
            delete,
        )
        .serve(
            Method::GET,
            "/producer-groups/{group}/checker/logs",
            "Read what the checker of a producer group logged since it was bound, or since the server started.",
            logs::described,
            read_logs,
        )
}

async fn one(State(rest): State<Rest>, Path(group): Path<String>) -> Answer {
    let group = GroupName::parse(&group)?;
    let description = rest.parts.checkers.describe(&group)?;
    Ok(answer(false, &group, description))
}

async fn put(State(rest): State<Rest>, Path(group): Path<String>, headers: HeaderMap, body: Body) -> Answer {
    let (group, guard) = (GroupName::parse(&group)?, Guard::of(&headers)?);
    let spec: CheckerSpec = json_or_yaml(&input::body(body, &headers, BODY_LIMIT).await?)?;
    let checkers = rest.parts.checkers.clone();
    let work = move || -> Result<_> {
        let known = checkers.describe(&group).ok().map(|known| known.version);
        guard.check(group.as_str(), known.map(|version| version.to_string()).as_deref())?;
        let expected = (guard != Guard::None).then(|| known.unwrap_or(0));
        let description = checkers.put(&group, spec, expected)?;
        Ok((known.is_none(), group, description))
    };
    let (created, group, description) = blocking(work).await?;
    Ok(answer(created, &group, description))
}

fn answer(created: bool, group: &GroupName, of: Description) -> Response {
    let Description { spec, version, digest, broken, resting, answers, .. } = of;
    let view = CheckerView {
        group: group.to_string(),
        state: state(broken.as_ref(), resting.as_ref()),
        reason: broken.or(resting),
        spec,
        plugin_digest: digest.map(|digest| format!("sha256:{digest}")),
        version,
        answers: AnswersView::of(answers),
    };
    tagged(created, &version.to_string(), &view)
}

async fn read_logs(State(rest): State<Rest>, Path(group): Path<String>, Query(query): Query<LogsQuery>) -> Answer {
    let (group, checkers) = (GroupName::parse(&group)?, rest.parts.checkers.clone());
    logs::answer(&rest, query, move || checkers.logs(&group))
}

async fn delete(State(rest): State<Rest>, Path(group): Path<String>, headers: HeaderMap) -> Answer {
    let (group, guard) = (GroupName::parse(&group)?, Guard::of(&headers)?);
    let checkers = rest.parts.checkers.clone();
    let work = move || -> Result<_> {
        let known = checkers.describe(&group)?.version;
        guard.check(group.as_str(), Some(&known.to_string()))?;
        checkers.delete(&group, (guard != Guard::None).then_some(known))
    };
    blocking(work).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}
