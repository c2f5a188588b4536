//! What plugins were granted, what they did with it, and which secrets were set. The newest entries are kept to be asked for; all of them go to the server's own log
//! under the target `audit`, which keeps them for as long as the log is kept.

use std::sync::Arc;

use sluice_runtime::{
    Context,
    ports::{self, Use},
};

use crate::{clock, grants::GrantsSpec, ring::Ring};

/// Entries kept.
const ENTRIES_LIMIT: usize = 4_096;

/// A plugin where it is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// `pipeline`, `checker`, `ingress`, `filter` or `try`
    pub kind: &'static str,
    /// Name of the pipeline or binding, or of the plugin that is tried.
    pub name: String,
    /// The step, as it names its plugin.
    pub step: String,
    /// Of the plugin.
    pub digest: String,
}

/// What a plugin was granted by name.
#[derive(Clone, Debug, PartialEq)]
pub struct Holding {
    pub holder: Holder,
    pub grants: GrantsSpec,
}

#[derive(Clone, Debug)]
pub struct Entry {
    /// Ms since 1970.
    pub at: i64,
    /// Whose plugin it was; `None`: somebody did it who used the API.
    pub holder: Option<Holder>,
    pub event: Event,
}

#[derive(Clone, Debug)]
pub enum Event {
    /// From now on the plugin has it.
    Granted(GrantsSpec),
    /// It has it no more.
    Withdrawn(GrantsSpec),
    Request {
        method: String,
        url: String,
        outcome: Result<u16, String>,
        took_ms: u64,
        sent: u64,
        received: u64,
    },
    Secret {
        name: String,
        error: Option<String>,
    },
    Lookups {
        count: u32,
        refused: u32,
    },
    /// A secret was made or replaced; its value is in no entry.
    SecretSet(String),
    SecretDeleted(String),
}

/// The audit of one server.
pub struct Audit {
    entries: Ring<Entry>,
}

impl Default for Audit {
    fn default() -> Self {
        Self { entries: Ring::new(ENTRIES_LIMIT) }
    }
}

impl Audit {
    /// The plugins hold their grants from now on.
    pub fn granted<'a>(&self, holdings: impl IntoIterator<Item = &'a Holding>) {
        for Holding { holder, grants } in holdings {
            self.add(Some(holder.clone()), Event::Granted(grants.clone()));
        }
    }

    /// The plugins hold their grants no more.
    pub fn withdrawn<'a>(&self, holdings: impl IntoIterator<Item = &'a Holding>) {
        for Holding { holder, grants } in holdings {
            self.add(Some(holder.clone()), Event::Withdrawn(grants.clone()));
        }
    }

    pub fn secret_set(&self, name: &str) {
        self.add(None, Event::SecretSet(name.to_owned()));
    }

    pub fn secret_deleted(&self, name: &str) {
        self.add(None, Event::SecretDeleted(name.to_owned()));
    }

    pub fn entries(&self) -> &Ring<Entry> {
        &self.entries
    }

    fn add(&self, holder: Option<Holder>, event: Event) {
        write(holder.as_ref(), &event);
        self.entries.push(Entry { at: clock::now().0, holder, event });
    }
}

/// To the server's own log.
fn write(holder: Option<&Holder>, event: &Event) {
    let of = |part: fn(&Holder) -> &str| holder.map(part);
    let (kind, name) = (of(|holder| holder.kind), of(|holder| &holder.name));
    let (step, digest) = (of(|holder| &holder.step), of(|holder| &holder.digest));
    match event {
        Event::SecretSet(secret) => tracing::info!(target: "audit", secret, "secret-set"),
        Event::SecretDeleted(secret) => tracing::info!(target: "audit", secret, "secret-deleted"),
        Event::Granted(grants) | Event::Withdrawn(grants) => {
            let verb = if matches!(event, Event::Granted(_)) { "granted" } else { "withdrawn" };
            let GrantsSpec { http, topics, secrets } = grants;
            let http: Vec<String> = http.iter().map(ToString::to_string).collect();
            tracing::info!(target: "audit", kind, name, step, digest, ?http, ?topics, ?secrets, "{verb}");
        }
        Event::Request { method, url, outcome, took_ms, sent, received } => {
            let (status, error) = (outcome.as_ref().ok(), outcome.as_ref().err());
            tracing::info!(
                target: "audit", kind, name, step, digest, method, url, status, error, took_ms, sent, received, "request"
            );
        }
        Event::Secret { name: secret, error } => {
            tracing::info!(target: "audit", kind, name, step, digest, secret, error, "secret");
        }
        Event::Lookups { count, refused } => {
            tracing::info!(target: "audit", kind, name, step, digest, count, refused, "lookups");
        }
    }
}

/// Hears what one plugin does.
pub struct Witness {
    pub audit: Arc<Audit>,
    pub holder: Holder,
}

impl ports::Audit for Witness {
    fn used(&self, _: &Context, of: &Use<'_>) {
        let event = match of {
            Use::Request { method, url, outcome, took, sent, received } => Event::Request {
                method: (*method).to_owned(),
                url: (*url).to_owned(),
                outcome: outcome.map_err(str::to_owned),
                took_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
                sent: *sent,
                received: *received,
            },
            Use::Secret { name, outcome } => {
                Event::Secret { name: (*name).to_owned(), error: outcome.err().map(str::to_owned) }
            }
            Use::Lookups { count, refused } => Event::Lookups { count: *count, refused: *refused },
        };
        self.audit.add(Some(self.holder.clone()), event);
    }
}
