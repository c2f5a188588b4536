//! What the steps of a pipeline did and used, over all its queues.

use std::{collections::BTreeMap, time::Duration};

use schemars::JsonSchema;
use serde::Serialize;
use sluice_runtime::StepCounters;

use crate::pipelines::QueueStatus;

/// One step, with one version of its plugin.
pub struct Usage {
    /// From 0.
    pub position: usize,
    pub name: String,
    pub digest: String,
    pub counters: StepCounters,
}

/// One step as JSON. What is tried again counts again.
#[derive(Debug, Serialize, JsonSchema)]
pub struct StepView {
    pub step: String,
    pub plugin_digest: String,
    /// Records that came to it, and timers that fired.
    #[serde(rename = "in")]
    pub read: u64,
    /// Records that left it.
    #[serde(rename = "out")]
    pub sent: u64,
    /// Records that it failed on.
    pub failed: u64,
    /// Calls that ended an instance.
    pub traps: u64,
    /// Processor time of its plugin, and of starting instances anew, microseconds.
    pub cpu_us: u64,
    /// The same for 1,000 of the records that came to it; null before the first.
    pub cpu_us_per_1000_records: Option<f64>,
    /// Memory of its instances, bytes.
    pub memory: u64,
}

/// The steps of all queues, by their place in the pipeline.
pub fn of(queues: &[QueueStatus]) -> Vec<Usage> {
    let mut sums: BTreeMap<(usize, &str, &str), StepCounters> = BTreeMap::new();
    for (position, step) in queues.iter().flat_map(|queue| queue.steps.iter().enumerate()) {
        sums.entry((position, &step.name, &step.digest)).or_default().add(&step.counters);
    }
    let usage = |((position, name, digest), counters): ((usize, &str, &str), StepCounters)| Usage {
        position,
        name: name.to_owned(),
        digest: digest.to_owned(),
        counters,
    };
    sums.into_iter().map(usage).collect()
}

pub fn view(usage: &Usage) -> StepView {
    let counters = &usage.counters;
    StepView {
        step: usage.name.clone(),
        plugin_digest: format!("sha256:{}", usage.digest),
        read: counters.read,
        sent: counters.sent,
        failed: counters.failed,
        traps: counters.traps,
        cpu_us: u64::try_from(counters.cpu.as_micros()).unwrap_or(u64::MAX),
        cpu_us_per_1000_records: per_1000(counters.cpu, counters.read),
        memory: counters.memory,
    }
}

/// Microseconds for 1,000 records, with one digit behind the point.
pub fn per_1000(cpu: Duration, records: u64) -> Option<f64> {
    (records > 0).then(|| (cpu.as_secs_f64() * 1e9 / records as f64 * 10.0).round() / 10.0)
}
