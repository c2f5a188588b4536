//! `/producer-groups/{group}/checker`: the plugin that decides a group's half messages.

use axum::{
    body::Body,
    extract::State,
    http::{HeaderMap, Method, StatusCode},
    response::IntoResponse,
};
use schemars::JsonSchema;
use serde::Serialize;
use sluice_model::GroupName;

use super::{
    Rest, blocking,
    input::{Guard, Path, json_body},
    problem::Answer,
    routes::Routes,
    tagged,
};
use crate::{checkers::CheckerSpec, failure::Result};

/// A bound checker.
#[derive(Debug, Serialize, JsonSchema)]
struct CheckerView {
    group: String,
    #[serde(flatten)]
    spec: CheckerSpec,
    /// Changes with every replacement; also the ETag.
    version: u64,
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
                    .answers::<CheckerView>(200, "It was replaced.")
                    .answers::<CheckerView>(201, "It was bound.")
            },
            put,
        )
        .serve(
            Method::DELETE,
            PATH,
            "Unbind the checker of a producer group: its producers are asked again.",
            |o| o.empties("It is gone."),
            delete,
        )
}

async fn one(State(rest): State<Rest>, Path(group): Path<String>) -> Answer {
    let group = GroupName::parse(&group)?;
    let checkers = rest.parts.checkers.clone();
    let (group, (spec, version)) = blocking(move || checkers.get(&group).map(|found| (group, found))).await?;
    let view = CheckerView { group: group.to_string(), spec, version };
    Ok(tagged(false, &version.to_string(), &view))
}

async fn put(State(rest): State<Rest>, Path(group): Path<String>, headers: HeaderMap, body: Body) -> Answer {
    let (group, guard) = (GroupName::parse(&group)?, Guard::of(&headers)?);
    let spec: CheckerSpec = json_body(body, &headers).await?;
    let checkers = rest.parts.checkers.clone();
    let work = move || -> Result<_> {
        let known = checkers.get(&group).ok();
        let at = known.as_ref().map(|(_, version)| version.to_string());
        guard.check(group.as_str(), at.as_deref())?;
        // The same again changes nothing; but with secrets, it has the plugin read them anew.
        let same = |known: &CheckerSpec| *known == spec && spec.grants.secrets.is_empty();
        if let Some((same, version)) = known.as_ref().filter(|(known, _)| same(known)) {
            return Ok((CheckerView { group: group.to_string(), spec: same.clone(), version: *version }, false));
        }
        let expected = (guard != Guard::None).then(|| known.as_ref().map_or(0, |(_, version)| *version));
        let (spec, version) = checkers.put(&group, spec, expected)?;
        Ok((CheckerView { group: group.to_string(), spec, version }, known.is_none()))
    };
    let (view, created) = blocking(work).await?;
    Ok(tagged(created, &view.version.to_string(), &view))
}

async fn delete(State(rest): State<Rest>, Path(group): Path<String>) -> Answer {
    let group = GroupName::parse(&group)?;
    let checkers = rest.parts.checkers.clone();
    blocking(move || checkers.delete(&group)).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}
