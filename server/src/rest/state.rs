//! `/pipelines/{name}/state`: what the processors of a pipeline keep.

use axum::{Json, extract::State, http::Method, response::IntoResponse};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sluice_model::Kind;

use super::{
    Rest, blocking,
    input::{Path, Query},
    message::text_or_base64,
    page::{Page, limit},
    problem::{Answer, Problem},
    routes::Routes,
};
use crate::{
    failure::{Failure, Result},
    pipelines::Found,
};

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

/// How a key is written in a request.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
enum Encoding {
    #[default]
    Text,
    /// As `key_base64` has it, for keys that are no text.
    Base64,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct EntryQuery {
    /// Only the entry in the state of this queue.
    queue: Option<u32>,
    /// How the key is written: `text` when left out, or `base64`.
    #[serde(default)]
    encoding: Encoding,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct EntriesQuery {
    /// Only entries whose keys begin with this.
    #[serde(default)]
    prefix: String,
    /// How the prefix is written: `text` when left out, or `base64`.
    #[serde(default)]
    encoding: Encoding,
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
            "Read a store, by key. What is seen is committed.",
            |o| o.query::<EntriesQuery>().lists::<EntryView>("Entries."),
            entries,
        )
        .serve(
            Method::GET,
            "/pipelines/{name}/state/{store}/{key}",
            "Read one entry of a store. Each queue of the source has a state of its own: when the key stands in several, 409 says in which, and \
             `queue` picks one.",
            |o| o.query::<EntryQuery>().answers::<EntryView>(200, "The entry."),
            entry,
        )
}

async fn stores(State(rest): State<Rest>, Path(name): Path<String>) -> Answer {
    let pipelines = rest.parts.pipelines.clone();
    let names = blocking(move || pipelines.states(&name)?.stores()).await?;
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
    let prefix = query.encoding.decode("prefix", &query.prefix)?;
    let pipelines = rest.parts.pipelines.clone();
    let work = move || {
        let states = pipelines.states(&name)?;
        known(&states.stores()?, &store)?;
        states.scan(&store, &prefix, after.as_deref(), most)
    };
    let (found, more) = blocking(work).await?;
    let next = found.last().filter(|_| more).map(|last| BASE64_STANDARD.encode(&last.key));
    Ok(Json(Page { items: found.into_iter().map(view).collect(), next }).into_response())
}

async fn entry(
    State(rest): State<Rest>,
    Path((name, store, key)): Path<(String, String, String)>,
    Query(query): Query<EntryQuery>,
) -> Answer {
    let (pipelines, wanted) = (rest.parts.pipelines.clone(), query.encoding.decode("key", &key)?);
    let work = move || {
        let states = pipelines.states(&name)?;
        known(&states.stores()?, &store)?;
        states.get(&store, &wanted)
    };
    let mut found = blocking(work).await?;
    found.retain(|found| query.queue.is_none_or(|queue| queue == found.queue));
    match (found.pop(), found.is_empty()) {
        (None, _) => Err(Failure::not_found("key", &key).into()),
        (Some(one), true) => Ok(Json(view(one)).into_response()),
        (Some(last), false) => {
            let queues: Vec<u32> = found.iter().chain([&last]).map(|found| found.queue).collect();
            let text = format!("queue: the key stands in the states of queues {queues:?}");
            let conflict = Failure { field: Some("queue".to_owned()), ..Failure::new(Kind::Conflict, text) };
            let hint = "Name one with ?queue=, or read all of them: GET /api/v1/pipelines/{name}/state/{store}?prefix=";
            Err(Problem::from(conflict).with("queues", queues).hint(hint))
        }
    }
}

impl Encoding {
    fn decode(self, field: &str, text: &str) -> Result<Vec<u8>> {
        match self {
            Self::Text => Ok(text.as_bytes().to_vec()),
            Self::Base64 => BASE64_STANDARD
                .decode(text)
                .map_err(|_| Failure::invalid(field, format!("{field}: expected base64, got {text:?}"))),
        }
    }
}

/// Fails with `NotFound` for a store that nothing was kept in, or whose name two steps have.
fn known(stores: &[String], wanted: &str) -> Result<()> {
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
