//! `/topics/{topic}/ingress`: the plugins that a topic's messages pass before they are stored.

use axum::{
    body::Body,
    extract::State,
    http::{HeaderMap, Method, StatusCode},
    response::IntoResponse,
};
use sluice_model::TopicName;

use super::{
    Rest,
    bindings::{self, ChainView},
    blocking,
    input::{self, BODY_LIMIT, Guard, Path, Query, json_or_yaml},
    logs::{self, LogsQuery},
    problem::Answer,
    routes::Routes,
};
use crate::ingress::IngressSpec;

const PATH: &str = "/topics/{topic}/ingress";

pub fn routes(routes: Routes) -> Routes {
    routes
        .serve(
            Method::GET,
            PATH,
            "Describe the ingress of a topic: its plugins, and what they did.",
            |o| o.answers::<ChainView<IngressSpec>>(200, "The ingress."),
            one,
        )
        .serve(
            Method::PUT,
            PATH,
            "Let producers' messages pass a chain of plugins before they are stored.",
            |o| {
                o.guarded()
                    .takes::<IngressSpec>()
                    .takes_bytes("application/yaml")
                    .answers::<ChainView<IngressSpec>>(200, "It was replaced.")
                    .answers::<ChainView<IngressSpec>>(201, "It was bound.")
            },
            put,
        )
        .serve(
            Method::DELETE,
            PATH,
            "Unbind the ingress of a topic: its messages are stored as they come.",
            |o| o.header("If-Match", "Delete it only if this is its ETag; 412 otherwise.").empties("It is gone."),
            delete,
        )
        .serve(
            Method::GET,
            "/topics/{topic}/ingress/logs",
            "Read what the plugins of a topic's ingress logged since it was bound, or since the server started.",
            logs::described,
            read_logs,
        )
}

async fn one(State(rest): State<Rest>, Path(topic): Path<String>) -> Answer {
    let topic = TopicName::parse(&topic)?;
    Ok(bindings::answer(false, rest.parts.ingresses.describe(&topic)?))
}

async fn put(State(rest): State<Rest>, Path(topic): Path<String>, headers: HeaderMap, body: Body) -> Answer {
    let (topic, guard) = (TopicName::parse(&topic)?, Guard::of(&headers)?);
    let spec: IngressSpec = json_or_yaml(&input::body(body, &headers, BODY_LIMIT).await?)?;
    let ingresses = rest.parts.ingresses.clone();
    let (created, description) = blocking(move || bindings::put(&ingresses, &topic, spec, &guard)).await?;
    Ok(bindings::answer(created, description))
}

async fn delete(State(rest): State<Rest>, Path(topic): Path<String>, headers: HeaderMap) -> Answer {
    let (topic, guard) = (TopicName::parse(&topic)?, Guard::of(&headers)?);
    let ingresses = rest.parts.ingresses.clone();
    blocking(move || bindings::delete(&ingresses, &topic, &guard)).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

async fn read_logs(State(rest): State<Rest>, Path(topic): Path<String>, Query(query): Query<LogsQuery>) -> Answer {
    let (topic, ingresses) = (TopicName::parse(&topic)?, rest.parts.ingresses.clone());
    logs::answer(&rest, query, move || ingresses.logs(&topic))
}
