//! What the resources have in common at which a chain of plugins is bound.

use axum::response::Response;
use schemars::JsonSchema;
use serde::Serialize;

use super::{input::Guard, tagged};
use crate::{
    chains::{Bindings, Counts, Description, Pinned, Place},
    failure::Result,
};

/// How a chain stands. Counts begin when it was bound, or when the server started.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "ChainOf{S}")]
pub struct ChainView<S> {
    /// `running`, `resting` (a plugin fails on most of what it is given, by all or from one side, and that is only tried every few seconds) or
    /// `broken`
    state: &'static str,
    /// Why it rests or is broken.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// Changes with every replacement; also the ETag.
    version: u64,
    /// Null when what is stored of it cannot be read.
    spec: Option<S>,
    /// What the names of the plugins were found to mean, in the order of the steps.
    plugins: Vec<PinnedView>,
    /// Messages that came.
    #[serde(rename = "in")]
    read: u64,
    /// Messages that went on.
    #[serde(rename = "out")]
    sent: u64,
    /// Messages that ended here.
    rejected: u64,
    /// Messages that a plugin failed on, whatever became of them.
    failed: u64,
    /// Messages that the plugins were not asked about while they rested, or since no instance was to be had.
    unasked: u64,
    /// Calls that ended an instance.
    traps: u64,
    /// Time spent in plugins, ms.
    busy_ms: u64,
    /// Processor time of that, us.
    cpu_us: u64,
}

#[derive(Debug, Serialize, JsonSchema)]
struct PinnedView {
    /// As the specification names it.
    plugin: String,
    /// `name@version`
    version: String,
    digest: String,
}

impl<S> ChainView<S> {
    fn of(description: Description<S>) -> Self {
        let Description { spec, version, plugins, broken, resting, counts, .. } = description;
        let Counts { read, sent, rejected, failed, unasked, traps, busy_ms, cpu } = counts;
        let pinned = |of: Pinned| PinnedView {
            plugin: of.reference,
            version: of.label,
            digest: format!("sha256:{}", of.digest),
        };
        Self {
            state: state(broken.as_ref(), resting.as_ref()),
            reason: broken.or(resting),
            version,
            spec,
            plugins: plugins.into_iter().map(pinned).collect(),
            read,
            sent,
            rejected,
            failed,
            unasked,
            traps,
            busy_ms,
            cpu_us: u64::try_from(cpu.as_micros()).unwrap_or(u64::MAX),
        }
    }
}

/// How something stands of which this is why it is broken, and why it rests.
pub fn state(broken: Option<&String>, resting: Option<&String>) -> &'static str {
    match (broken, resting) {
        (Some(_), _) => "broken",
        (None, Some(_)) => "resting",
        (None, None) => "running",
    }
}

pub fn answer<S: Serialize>(created: bool, description: Description<S>) -> Response {
    let tag = description.version.to_string();
    tagged(created, &tag, &ChainView::of(description))
}

/// Unbinds, if the guard holds. Blocks.
pub fn delete<P: Place>(bindings: &Bindings<P>, key: &P::Key, guard: &Guard) -> Result<()> {
    let known = bindings.describe(key)?.version;
    guard.check(&key.to_string(), Some(&known.to_string()))?;
    bindings.delete(key, (*guard != Guard::None).then_some(known))
}

/// Binds or replaces, if the guard holds; answers whether nothing was bound before. Blocks.
///
/// The same text again is applied as well: `plugin: name` may mean a newer version by now.
pub fn put<P: Place>(
    bindings: &Bindings<P>,
    key: &P::Key,
    spec: P::Spec,
    guard: &Guard,
) -> Result<(bool, Description<P::Spec>)> {
    let known = bindings.describe(key).ok().map(|known| known.version);
    guard.check(&key.to_string(), known.map(|version| version.to_string()).as_deref())?;
    let expected = (*guard != Guard::None).then(|| known.unwrap_or(0));
    Ok((known.is_none(), bindings.put(key, spec, expected)?))
}
