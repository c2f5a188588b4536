//! What a pipeline's document holds: the version that runs, those that ran before it, and the one that is being tried.

use std::collections::BTreeMap;

use bytes::Bytes;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sluice_model::Kind;

use super::spec::{Checked, Spec};
use crate::{
    clock,
    failure::{Failure, Result},
    plugins::Plugins,
    shell::Shell,
    steps::Pins,
};

/// Most revisions that are kept of those that ran before.
const REVISIONS_LIMIT: usize = 20;
/// Bytes of a document beyond which the oldest revisions go.
const DOCUMENT_LIMIT: usize = 1024 * 1024;

/// Offsets by queue of the source.
pub type Offsets = BTreeMap<u32, u64>;

/// What a pipeline's document holds.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Stored {
    pub paused: bool,
    /// Tells it from pipelines that had its name before, and from itself before it was reset: ms since 1970.
    pub incarnation: u64,
    pub live: Revision,
    /// Those that do not run any more, the newest last.
    pub past: Vec<Revision>,
    pub candidate: Option<Candidate>,
}

/// A pipeline's text with exactly the plugins that were found for it: an upload changes nothing until the text is applied again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Revision {
    /// From 1, one more with every change.
    pub number: u64,
    pub spec: Spec,
    /// Digests of the plugins, by step.
    pub plugins: Pins,
    pub reason: Reason,
    /// When it took over, ms since 1970.
    pub since: i64,
    /// The first offset that it read of each queue that it ran.
    pub from: Offsets,
    /// The first offset that it left to another, once it does not run there any more.
    pub until: Offsets,
}

/// How a revision came to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    Applied,
    /// Nothing changed but the positions and what was kept.
    Reset,
    /// It is being tried, or was and did not come further.
    Tried,
    Promoted,
    /// It is the one with this number again.
    RolledBack(u64),
}

/// A version that is being tried.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Candidate {
    pub revision: Revision,
    pub mode: Mode,
}

/// How a candidate is tried.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Beside the live one on the same records; it writes nothing.
    Shadow {
        /// Where it begins to read, as a source's start; where the live one stands when left out.
        start: Option<String>,
    },
    /// In the place of the live one in these queues of the source.
    Canary { queues: Vec<u32> },
}

impl Revision {
    pub fn new(number: u64, checked: &Checked, reason: Reason, from: Offsets) -> Self {
        Self {
            number,
            spec: checked.spec.clone(),
            plugins: checked.digests(),
            reason,
            since: clock::now().0,
            from,
            until: Offsets::new(),
        }
    }

    /// Ready to run.
    pub fn check(&self, shell: &Shell, plugins: &Plugins) -> Result<Checked> {
        let checked = self.spec.clone().check(Some(&self.plugins), shell, plugins)?;
        Ok(Checked { revision: self.number, ..checked })
    }

    /// Whether a text that was checked, with the plugins that were found for it, is this one.
    pub fn is(&self, checked: &Checked) -> bool {
        self.spec == checked.spec && self.plugins == checked.digests()
    }

    /// Whether it is the same text with the same plugins.
    fn is_again(&self, other: &Self) -> bool {
        self.spec == other.spec && self.plugins == other.plugins
    }

    fn ended(mut self, until: Offsets) -> Self {
        self.until = until;
        self
    }
}

impl Stored {
    pub fn new(live: Revision) -> Self {
        Self { paused: false, incarnation: new_incarnation(), live, past: Vec::new(), candidate: None }
    }

    pub fn name(&self) -> &str {
        &self.live.spec.name
    }

    /// Fails with `Conflict` when a version is being tried: what is to become of it has to be said first.
    pub fn expect_no_candidate(&self) -> Result<()> {
        let Some(candidate) = &self.candidate else { return Ok(()) };
        let (number, name) = (candidate.revision.number, self.name());
        let text = format!("pipeline \"{name}\" tries revision {number}: promote or discard that first");
        Err(Failure::new(Kind::Conflict, text))
    }

    pub fn next_number(&self) -> u64 {
        self.past.iter().map(|revision| revision.number).max().unwrap_or(0).max(self.live.number) + 1
    }

    /// With another version in the place of the live one, which ended at `until`.
    pub fn followed_by(mut self, live: Revision, until: Offsets) -> Self {
        let before = std::mem::replace(&mut self.live, live).ended(until);
        self.past.push(before);
        self
    }

    /// Without the candidate, which ended at `until` where it ran.
    pub fn without_candidate(mut self, until: Offsets) -> Self {
        if let Some(Candidate { revision, .. }) = self.candidate.take() {
            self.past.push(revision.ended(until));
        }
        self
    }

    /// The revision to roll back to: the one with the number, or the last that ran everywhere.
    ///
    /// Fails with `NotFound`.
    pub fn earlier(&self, number: Option<u64>) -> Result<&Revision> {
        let ran = |revision: &&Revision| match number {
            Some(number) => revision.number == number,
            None => revision.reason != Reason::Tried && !self.live.is_again(revision),
        };
        self.past.iter().rev().find(ran).ok_or_else(|| {
            let text = match number {
                Some(number) => format!("to: pipeline \"{}\" has no earlier revision {number}", self.name()),
                None => format!("pipeline \"{}\" has no earlier revision to go back to", self.name()),
            };
            Failure { field: number.map(|_| "to".to_owned()), ..Failure::new(Kind::NotFound, text) }
        })
    }

    pub fn encode(&mut self) -> Result<Bytes> {
        let excess = self.past.len().saturating_sub(REVISIONS_LIMIT);
        self.past.drain(..excess);
        loop {
            let body = serde_json::to_vec(&*self).map_err(|error| Failure::new(Kind::Internal, error.to_string()))?;
            if body.len() <= DOCUMENT_LIMIT || self.past.is_empty() {
                return Ok(body.into());
            }
            self.past.remove(0);
        }
    }
}

pub(super) fn new_incarnation() -> u64 {
    u64::try_from(clock::now().0).unwrap_or(0)
}
