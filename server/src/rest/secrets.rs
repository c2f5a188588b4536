//! `/secrets`: values that plugins may be granted by name. They are taken, and never given back.

use axum::{
    Json,
    body::Body,
    extract::State,
    http::{HeaderMap, Method, StatusCode},
    response::IntoResponse,
};
use schemars::JsonSchema;
use serde::Serialize;

use super::{
    Rest, blocking,
    input::{self, Guard, Path, Query, time_text},
    page::{Page, PageQuery},
    problem::Answer,
    routes::Routes,
};
use crate::{
    failure::{Failure, Result},
    secrets::{Listed, SECRET_LIMIT},
};

/// A secret without its value.
#[derive(Debug, Serialize, JsonSchema)]
struct SecretView {
    name: String,
    /// When its file was last written.
    updated_at: String,
}

/// In the place of an ETag, which a secret does not have: it would tell something of the value.
const NO_TAG: &str = "";

#[derive(Debug, Serialize, JsonSchema)]
struct Named {
    name: String,
}

pub fn routes(routes: Routes) -> Routes {
    routes
        .serve(
            Method::GET,
            "/secrets",
            "List the names of secrets.",
            |o| o.query::<PageQuery>().lists::<SecretView>("Names and times; values are given to nobody."),
            list,
        )
        .serve(
            Method::PUT,
            "/secrets/{name}",
            "Set a secret: at most 64 KiB of UTF-8 as the body. Instances that run keep the value they have read.",
            |o| {
                let takes = o
                    .header("If-Match", "`*`: replace it only if it exists; 412 otherwise.")
                    .header("If-None-Match", "`*`: create it only if it does not exist; 412 otherwise.");
                let takes = takes.takes_bytes("text/plain");
                takes.answers::<Named>(200, "It was replaced.").answers::<Named>(201, "It was made.")
            },
            put,
        )
        .serve(
            Method::DELETE,
            "/secrets/{name}",
            "Delete a secret. Instances that run keep the value they have read.",
            |o| o.header("If-Match", "`*`: delete it only if it exists; 412 otherwise.").empties("It is gone."),
            delete,
        )
}

async fn list(State(rest): State<Rest>, Query(query): Query<PageQuery>) -> Answer {
    let work = move || -> Result<_> {
        let mut listed = rest.parts.plugins.granter().secrets().list()?;
        let (names, next) = query.pick(listed.iter().map(|listed| listed.name.clone()).collect())?;
        listed.retain(|listed| names.contains(&listed.name));
        let view = |Listed { name, updated_at }| SecretView { name, updated_at: time_text(updated_at) };
        Ok(Page { items: listed.into_iter().map(view).collect(), next })
    };
    Ok(Json(blocking(work).await?).into_response())
}

fn guard(headers: &HeaderMap) -> Result<Guard> {
    match Guard::of(headers)? {
        Guard::Tags(_) => Err(Failure::invalid("If-Match", "If-Match: expected *: a secret has no ETag")),
        guard => Ok(guard),
    }
}

async fn put(State(rest): State<Rest>, Path(name): Path<String>, headers: HeaderMap, body: Body) -> Answer {
    let guard = guard(&headers)?;
    let value = input::body(body, &headers, SECRET_LIMIT).await?;
    let work = move || {
        let granter = rest.parts.plugins.granter();
        let may = |known: bool| guard.check(&name, known.then_some(NO_TAG));
        let new = granter.secrets().put(&name, value.into(), may)?;
        granter.audit().secret_set(&name);
        Ok((new, Named { name }))
    };
    let (new, named) = blocking(work).await?;
    let status = if new { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Json(named)).into_response())
}

async fn delete(State(rest): State<Rest>, Path(name): Path<String>, headers: HeaderMap) -> Answer {
    let guard = guard(&headers)?;
    let work = move || {
        let granter = rest.parts.plugins.granter();
        granter.secrets().delete(&name, |known| guard.check(&name, known.then_some(NO_TAG)))?;
        granter.audit().secret_deleted(&name);
        Ok(())
    };
    blocking(work).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}
