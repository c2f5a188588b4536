//! `/audit`: what plugins were granted, what they did with it, and which secrets were set.

use axum::{Json, extract::State, http::Method, response::IntoResponse};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sluice_model::Timestamp;

use super::{
    Rest, follow,
    input::{Query, time_text},
    page::{Page, limit},
    problem::Answer,
    routes::Routes,
};
use crate::{
    audit::{Entry, Event, Holder},
    grants::GrantsSpec,
};

const LIMIT: usize = 100;
const LIMIT_MOST: usize = 1_000;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct AuditQuery {
    /// The newest so many entries, 1 to 1000; 100 when left out.
    limit: Option<usize>,
    /// Server-sent events: these entries, then new ones.
    #[serde(default)]
    follow: bool,
}

/// What happened, and whose plugin it was.
#[derive(Debug, Serialize, JsonSchema)]
struct EntryView {
    at: String,
    /// `granted`, `withdrawn`, `request`, `secret`, `lookups`, `secret-set` or `secret-deleted`
    event: &'static str,
    /// `pipeline`, `checker`, `ingress`, `filter` or `try`; null, as the three that follow, for what was done over the API.
    kind: Option<&'static str>,
    /// Of the pipeline, producer group, topic, or `group/topic`.
    name: Option<String>,
    step: Option<String>,
    digest: Option<String>,
    #[serde(flatten)]
    more: More,
}

/// What there is to say, by the event.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(untagged)]
enum More {
    Grants {
        grants: GrantsSpec,
    },
    Request {
        method: String,
        /// Without its query; empty when what the plugin gave is none.
        url: String,
        /// Of the answer; null when there is none.
        status: Option<u16>,
        /// Why there is no answer.
        error: Option<String>,
        took_ms: u64,
        /// Bytes of the request's body.
        sent: u64,
        /// Bytes of the answer's body.
        received: u64,
    },
    /// An instance asked for it for the first time, or in vain; or it was set or deleted.
    Secret {
        secret: String,
        error: Option<String>,
    },
    /// Of one call into the plugin.
    Lookups {
        count: u32,
        refused: u32,
    },
}

fn view(entry: Entry) -> EntryView {
    let Entry { at, holder, event } = entry;
    let (event, more) = match event {
        Event::Granted(grants) => ("granted", More::Grants { grants }),
        Event::Withdrawn(grants) => ("withdrawn", More::Grants { grants }),
        Event::Request { method, url, outcome, took_ms, sent, received } => {
            let (status, error) = (outcome.as_ref().ok().copied(), outcome.err());
            ("request", More::Request { method, url, status, error, took_ms, sent, received })
        }
        Event::Secret { name: secret, error } => ("secret", More::Secret { secret, error }),
        Event::Lookups { count, refused } => ("lookups", More::Lookups { count, refused }),
        Event::SecretSet(secret) => ("secret-set", More::Secret { secret, error: None }),
        Event::SecretDeleted(secret) => ("secret-deleted", More::Secret { secret, error: None }),
    };
    let (kind, name, step, digest) = match holder {
        Some(Holder { kind, name, step, digest }) => {
            (Some(kind), Some(name), Some(step), Some(format!("sha256:{digest}")))
        }
        None => (None, None, None, None),
    };
    EntryView { at: time_text(Timestamp(at)), event, kind, name, step, digest, more }
}

pub fn routes(routes: Routes) -> Routes {
    routes.serve(
        Method::GET,
        "/audit",
        "Read what plugins were granted, what they did with it, and which secrets were set and deleted, since the server was started.",
        |o| {
            let lists = o.query::<AuditQuery>().lists::<EntryView>("The newest entries, the oldest first.");
            lists.streams::<EntryView>("With `follow`: entries as they come, each in an event `entry`.")
        },
        read,
    )
}

async fn read(State(rest): State<Rest>, Query(query): Query<AuditQuery>) -> Answer {
    let most = limit(query.limit, LIMIT, LIMIT_MOST)?;
    let plugins = rest.parts.plugins.clone();
    let entries = plugins.granter().audit().entries();
    if !query.follow {
        let items = entries.newest(most).into_iter().map(view).collect();
        return Ok(Json(Page { items, next: None }).into_response());
    }
    let (mut seen, kept) = entries.after(0);
    let skipped = kept.len().saturating_sub(most);
    let ready = kept.into_iter().skip(skipped).map(view).collect();
    let more = move || {
        let (count, fresh) = plugins.granter().audit().entries().after(seen);
        seen = count;
        Some(fresh.into_iter().map(view).collect())
    };
    follow::answer(&rest, "entry", ready, Box::new(more))
}
