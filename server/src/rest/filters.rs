//! `/groups/{group}/filters/{topic}`: the plugin that says what a group receives of a topic.

use axum::{
    body::Body,
    extract::State,
    http::{HeaderMap, Method, StatusCode},
    response::IntoResponse,
};
use sluice_model::{GroupName, TopicName};

use super::{
    Rest,
    bindings::{self, ChainView},
    blocking, groups,
    input::{self, BODY_LIMIT, Guard, Path, Query, json_or_yaml},
    logs::{self, LogsQuery},
    problem::Answer,
    routes::Routes,
};
use crate::{
    failure::Result,
    filters::{FilterSpec, Subscribed},
};

const PATH: &str = "/groups/{group}/filters/{topic}";

type Names = Path<(String, String)>;

pub fn routes(routes: Routes) -> Routes {
    routes
        .serve(
            Method::GET,
            PATH,
            "Describe the filter of what a group receives of a topic, and what it did.",
            |o| o.answers::<ChainView<FilterSpec>>(200, "The filter."),
            one,
        )
        .serve(
            Method::PUT,
            PATH,
            "Let a plugin say which of a topic's messages a group receives, behind the tags or the condition it subscribes with.",
            |o| {
                o.guarded()
                    .takes::<FilterSpec>()
                    .takes_bytes("application/yaml")
                    .answers::<ChainView<FilterSpec>>(200, "It was replaced.")
                    .answers::<ChainView<FilterSpec>>(201, "It was bound.")
            },
            put,
        )
        .serve(
            Method::DELETE,
            PATH,
            "Unbind a filter: the group receives what it subscribes to.",
            |o| o.header("If-Match", "Delete it only if this is its ETag; 412 otherwise.").empties("It is gone."),
            delete,
        )
        .serve(
            Method::GET,
            "/groups/{group}/filters/{topic}/logs",
            "Read what a filter logged since it was bound, or since the server started.",
            logs::described,
            read_logs,
        )
}

fn key((group, topic): (String, String)) -> Result<Subscribed> {
    Ok(Subscribed { group: GroupName::parse(&group)?, topic: TopicName::parse(&topic)? })
}

async fn one(State(rest): State<Rest>, Path(names): Names) -> Answer {
    Ok(bindings::answer(false, rest.parts.filters.describe(&key(names)?)?))
}

async fn put(State(rest): State<Rest>, Path(names): Names, headers: HeaderMap, body: Body) -> Answer {
    let (of, guard) = (key(names)?, Guard::of(&headers)?);
    groups::not_pipelines(&rest, &of.group)?;
    let spec: FilterSpec = json_or_yaml(&input::body(body, &headers, BODY_LIMIT).await?)?;
    let filters = rest.parts.filters.clone();
    let (created, description) = blocking(move || bindings::put(&filters, &of, spec, &guard)).await?;
    Ok(bindings::answer(created, description))
}

async fn delete(State(rest): State<Rest>, Path(names): Names, headers: HeaderMap) -> Answer {
    let (of, guard, filters) = (key(names)?, Guard::of(&headers)?, rest.parts.filters.clone());
    blocking(move || bindings::delete(&filters, &of, &guard)).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

async fn read_logs(State(rest): State<Rest>, Path(names): Names, Query(query): Query<LogsQuery>) -> Answer {
    let (of, filters) = (key(names)?, rest.parts.filters.clone());
    logs::answer(&rest, query, move || filters.logs(&of))
}
