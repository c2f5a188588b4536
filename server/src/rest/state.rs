//! `/pipelines/{name}/state`: what the processors of a pipeline keep.

use axum::{Json, extract::State, http::Method, response::IntoResponse};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    Rest, blocking,
    input::{Path, Query},
    message::text_or_base64,
    page::{Page, limit},
    problem::Answer,
    routes::Routes,
};
use crate::{failure::Failure, pipelines::Found};

const LIMIT: usize = 100;
const LIMIT_MOST: usize = 1_000;

#[derive(Debug, Serialize, JsonSchema)]
struct StoreView {
    /// `step/store`; the second part alone is enough where only one step has such a store.
    name: String,
}

/// An entry of a store.
#[derive(Debug, Serialize, JsonSchema)]
struct EntryView {
    /// The queue of the source whose state it is in.
    queue: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    /// When the key is no text.
    #[serde(skip_serializing_if = "Option::is_none")]
    key_base64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<String>,
    /// When the value is no text.
    #[serde(skip_serializing_if = "Option::is_none")]
    value_base64: Option<String>,
    /// The value as a sum: 8 bytes, the lowest first.
    #[serde(skip_serializing_if = "Option::is_none")]
    number: Option<i64>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct EntriesQuery {
    /// Only entries whose keys begin with this.
    #[serde(default)]
    prefix: String,
    /// Entries of one page, 1 to 1000; 100 when not given. A key that stands in more queues is given with all of them.
    limit: Option<usize>,
    /// `next` of the page before.
    cursor: Option<String>,
}

pub fn routes(routes: Routes) -> Routes {
    routes
        .serve(
            Method::GET,
            "/pipelines/{name}/state",
            "List the stores of a pipeline's processors that hold or held something since its start.",
            |o| o.lists::<StoreView>("Stores."),
            stores,
        )
        .serve(
            Method::GET,
            "/pipelines/{name}/state/{store}",
            "Read a store, by key. What is seen is committed; an entry that has expired may still be seen.",
            |o| o.query::<EntriesQuery>().lists::<EntryView>("Entries."),
            entries,
        )
        .serve(
            Method::GET,
            "/pipelines/{name}/state/{store}/{key}",
            "Read one entry of a store.",
            |o| o.answers::<EntryView>(200, "The entry."),
            entry,
        )
}

async fn stores(State(rest): State<Rest>, Path(name): Path<String>) -> Answer {
    let pipelines = rest.parts.pipelines.clone();
    let names = blocking(move || Ok(pipelines.states(&name)?.stores())).await?;
    let items = names.into_iter().map(|name| StoreView { name }).collect();
    Ok(Json(Page::whole(items)).into_response())
}

async fn entries(
    State(rest): State<Rest>,
    Path((name, store)): Path<(String, String)>,
    Query(query): Query<EntriesQuery>,
) -> Answer {
    let most = limit(query.limit, LIMIT, LIMIT_MOST)?;
    let after = query.cursor.map(|cursor| {
        let wrong = || Failure::invalid("cursor", format!("cursor: expected the `next` of a page, got {cursor:?}"));
        BASE64_STANDARD.decode(&cursor).map_err(|_| wrong())
    });
    let after = after.transpose()?;
    let pipelines = rest.parts.pipelines.clone();
    let work = move || {
        let states = pipelines.states(&name)?;
        known(&states.stores(), &store)?;
        states.scan(&store, query.prefix.as_bytes(), after.as_deref(), most)
    };
    let (found, more) = blocking(work).await?;
    let next = found.last().filter(|_| more).map(|last| BASE64_STANDARD.encode(&last.key));
    Ok(Json(Page { items: found.into_iter().map(view).collect(), next }).into_response())
}

async fn entry(State(rest): State<Rest>, Path((name, store, key)): Path<(String, String, String)>) -> Answer {
    let pipelines = rest.parts.pipelines.clone();
    let work = move || {
        let states = pipelines.states(&name)?;
        known(&states.stores(), &store)?;
        states.get(&store, key.as_bytes())?.ok_or_else(|| Failure::not_found("key", &key))
    };
    Ok(Json(view(blocking(work).await?)).into_response())
}

/// Fails with `NotFound` for a store that nothing was kept in, or whose name two steps have.
fn known(stores: &[String], wanted: &str) -> Result<(), Failure> {
    let own = |name: &&String| name.rsplit_once('/').is_some_and(|(_, own)| own == wanted);
    let one = stores.iter().any(|name| name == wanted) || stores.iter().filter(own).count() == 1;
    if one {
        return Ok(());
    }
    let text = format!("there is no store {wanted:?}; there are: {}", stores.join(", "));
    Err(Failure { text, ..Failure::not_found("store", wanted) })
}

fn view(Found { queue, key, value }: Found) -> EntryView {
    let number = <[u8; 8]>::try_from(value.as_slice()).ok().map(i64::from_le_bytes);
    let (key, key_base64) = text_or_base64(&key);
    let (value, value_base64) = text_or_base64(&value);
    EntryView { queue, key, key_base64, value, value_base64, number }
}
