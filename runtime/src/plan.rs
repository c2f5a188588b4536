//! What a stage is to run, and whether its parts fit together.

use std::sync::Arc;
use std::time::Duration;

use crate::batch::Batch;
use crate::error::Error;
use crate::host::Observer;
use crate::limits::Limits;
use crate::manifest::Role;
use crate::state::Shared;
use crate::step::{Step, used_as};

/// Longest chain.
const MAX_STEPS: usize = 32;
const MAX_BACKOFF: Duration = Duration::from_secs(60);

/// What becomes of a record when its retries are used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Then {
    #[default]
    DeadLetter,
    Skip,
    Stop,
}

/// What becomes of a record that a plugin fails on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    pub retries: u32,
    /// Wait before the first retry; doubles with each one, up to a minute.
    pub backoff: Duration,
    pub then: Then,
}

impl Default for Policy {
    fn default() -> Policy {
        Policy { retries: 3, backoff: Duration::from_secs(1), then: Then::DeadLetter }
    }
}

/// Where the processors of a stage keep what they keep.
#[derive(Clone)]
pub struct StatePlan {
    pub partition: Shared,
    /// How much older than the newest a record may be and still be on time, milliseconds.
    pub lateness: u64,
}

/// What a stage runs.
#[derive(Clone)]
pub struct Plan {
    pub pipeline: String,
    pub queue: u32,
    pub input_topic: String,
    /// Names of the sinks, by output of the last step. At least one.
    pub sinks: Vec<String>,
    /// At least one.
    pub steps: Vec<Step>,
    pub policy: Policy,
    pub limits: Limits,
    /// Most records of one turn, 1 to [`Batch::MAX_RECORDS`].
    pub batch_records: usize,
    /// Bytes after which a turn reads no further.
    pub batch_bytes: usize,
    pub observer: Arc<dyn Observer>,
    /// Needed when one of the steps is a processor.
    pub state: Option<StatePlan>,
}

impl Plan {
    /// Records of one turn where a queue has as many: so many that what a call and a turn cost by themselves hardly counts. Where a turn
    /// makes much of them, or they take long, it takes fewer.
    pub const BATCH_RECORDS: usize = 2_048;
    /// Bytes after which such a turn reads no further.
    pub const BATCH_BYTES: usize = 1024 * 1024;

    /// Whether the steps and the sinks fit together.
    ///
    /// # Errors
    /// [`Error::Plan`].
    pub fn check(&self) -> Result<(), Error> {
        let bad = |problem: String| Err(Error::Plan(problem));
        if !(1..=MAX_STEPS).contains(&self.steps.len()) {
            return bad(format!("steps: expected 1 to {MAX_STEPS}, got {}", self.steps.len()));
        }
        if self.sinks.is_empty() {
            return bad("sinks: expected at least one".into());
        }
        if !(1..=Batch::MAX_RECORDS as usize).contains(&self.batch_records) || self.batch_bytes == 0 {
            return bad(format!("batch: expected 1 to {} records and at least 1 byte", Batch::MAX_RECORDS));
        }
        let last = self.steps.len() - 1;
        for (i, step) in self.steps.iter().enumerate() {
            let (name, plugin) = (&step.name, &step.plugin);
            if !plugin.has(Role::Filter) && !plugin.has(Role::Transform) && !plugin.has(Role::Process) {
                let text = "a pipeline runs filters, transformers and processors, this plugin is none of them";
                return bad(format!("step {name}: {text}"));
            }
            let role = used_as(plugin);
            if role == Role::Process && self.state.is_none() {
                return bad(format!("step {name}: a processor needs a place to keep its state"));
            }
            let outputs = if role == Role::Filter { Some(1) } else { plugin.output_count() };
            if i < last && outputs.is_some_and(|n| n > 1) {
                return bad(format!("step {name}: it has several outputs, so it can only be the last step"));
            }
            if let Some(outputs) = outputs.filter(|n| i == last && *n != self.sinks.len()) {
                return bad(format!(
                    "sinks: the last step {name} has {outputs} outputs, but there are {} sinks",
                    self.sinks.len()
                ));
            }
        }
        Ok(())
    }
}

impl Policy {
    /// The wait after so many tries.
    pub(crate) fn wait(&self, tried: u32) -> Duration {
        self.backoff.saturating_mul(1 << tried.min(16)).min(MAX_BACKOFF)
    }
}
