//! One record through the steps of a pipeline again, in fresh instances: what each makes of it. Nothing is written.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use schemars::JsonSchema;
use serde::Serialize;
use sluice_model::Kind;
use sluice_runtime::{Context, Level, Record, Role, Setup, Step};

use super::{
    logs::{LineView, line_view},
    probe::{ErrorView, Probe, Ran},
};
use crate::{
    failure::{Failure, Result},
    observer::Logs,
    pipelines::Checked,
};

/// Most calls of plugins for one explanation, and the longest time for them: a record may become many.
const CALLS_LIMIT: usize = 64;
const TIME_LIMIT: Duration = Duration::from_secs(10);
const LOG_LINES: usize = 100;

/// What one step makes of the record, or of what the steps before made of it.
#[derive(Debug, Serialize, JsonSchema)]
pub struct StepTrace {
    step: String,
    plugin_digest: String,
    role: &'static str,
    /// Why it was not run; null when it was, or when nothing came to it.
    not_run: Option<&'static str>,
    /// By record that came to it.
    records: Vec<RecordTrace>,
    /// What the plugin logged.
    logs: Vec<LineView>,
}

/// What became of one record in a step.
#[derive(Debug, Serialize, JsonSchema)]
struct RecordTrace {
    /// `kept` (as it came), `changed`, `dropped`, `prefiltered` (the plugin does not want to be asked about it) or `failed`
    outcome: &'static str,
    /// Time of the call, that of the instance's start not among it.
    microseconds: u64,
    outputs: Vec<OutputTrace>,
    error: Option<ErrorView>,
}

/// A record that left a step.
#[derive(Debug, Serialize, JsonSchema)]
struct OutputTrace {
    /// The sink that it is for; null before the last step.
    sink: Option<String>,
    /// What is not as it came: `key`, `tag`, `headers`, `value`.
    changed: Vec<&'static str>,
    /// Bytes of the value.
    size: usize,
}

/// Runs the record through the chain as far as it gets.
pub fn explain(checked: &Checked, queue: u32, record: Record) -> Result<Vec<StepTrace>> {
    let began = Instant::now();
    let (mut records, mut calls, mut stopped) = (vec![record], 0, None);
    let last = checked.steps.len().saturating_sub(1);
    let mut traces = Vec::with_capacity(checked.steps.len());
    for (at, step) in checked.steps.iter().enumerate() {
        if stopped.is_none() && step.role() == Role::Process {
            stopped =
                Some("it keeps state, which is not as it was when the message came; what is behind it depends on it");
        }
        if stopped.is_none() && step.grants.asks_servers() {
            stopped = Some("it asks other servers, which are not asked again; what is behind it depends on it");
        }
        let mut trace = StepTrace::new(step, stopped);
        if stopped.is_some() || records.is_empty() {
            traces.push(trace);
            continue;
        }
        let sinks: &[String] = if at == last { &checked.spec.sinks } else { &[] };
        let logs = Arc::new(Logs::new(Level::Trace, None));
        let mut probe = probe(checked, step, queue, sinks.len().max(1), logs.clone())?;
        let mut passed = Vec::new();
        for record in std::mem::take(&mut records) {
            if calls == CALLS_LIMIT || began.elapsed() >= TIME_LIMIT {
                stopped = Some("64 calls, or 10 seconds, are the most of one explanation");
                trace.not_run = stopped;
                break;
            }
            calls += 1;
            trace.records.push(run(&mut probe, step, &record, sinks, &mut passed)?);
        }
        trace.logs = logs.lines.newest(LOG_LINES).into_iter().map(line_view).collect();
        traces.push(trace);
        records = passed;
    }
    Ok(traces)
}

fn probe(checked: &Checked, step: &Step, queue: u32, outputs: usize, logs: Arc<Logs>) -> Result<Probe> {
    let context = Context {
        pipeline: checked.spec.name.clone(),
        step: step.name.clone(),
        queue,
        input_topic: checked.topic.to_string(),
        output_topics: checked.spec.sinks.clone(),
    };
    let (config, limits) = (step.config.clone(), checked.limits.clone());
    let grants = step.grants.clone();
    let setup = Setup { config, context, limits, grants, observer: logs, ..Setup::default() };
    Probe::start(step.plugin.clone(), step.role(), setup, outputs).map_err(|error| not_started(step, &error))
}

fn not_started(step: &Step, error: &sluice_runtime::Error) -> Failure {
    Failure::not_started(error, |text| {
        Failure::new(Kind::Conflict, format!("step {} does not start: {text}", step.name))
    })
}

/// What the step makes of a record; what leaves it is added to `passed`.
fn run(
    probe: &mut Probe,
    step: &Step,
    record: &Record,
    sinks: &[String],
    passed: &mut Vec<Record>,
) -> Result<RecordTrace> {
    let outcome = |outcome| RecordTrace { outcome, microseconds: 0, outputs: Vec::new(), error: None };
    if step.prefilter.as_ref().is_some_and(|prefilter| !prefilter.wants(record)) {
        return Ok(outcome("prefiltered"));
    }
    let began = Instant::now();
    let ran = probe.apply(record).map_err(|error| not_started(step, &error))?;
    let microseconds = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
    let made = match ran {
        Ran::Failed(error) => return Ok(RecordTrace { microseconds, error: Some(error), ..outcome("failed") }),
        Ran::Judged(keep) => keep.then(|| (record.clone(), 0)).into_iter().collect(),
        Ran::Made(made) => made,
    };
    let output = |(out, target): &(Record, usize)| OutputTrace {
        sink: sinks.get(*target).cloned(),
        changed: changed(record, out),
        size: out.value.len(),
    };
    let outputs: Vec<OutputTrace> = made.iter().map(output).collect();
    let word = match outputs.as_slice() {
        [] => "dropped",
        [one] if one.changed.is_empty() => "kept",
        _ => "changed",
    };
    passed.extend(made.into_iter().map(|(record, _)| record));
    Ok(RecordTrace { microseconds, outputs, ..outcome(word) })
}

fn changed(before: &Record, after: &Record) -> Vec<&'static str> {
    let columns = [
        ("key", before.key != after.key),
        ("tag", before.tag != after.tag),
        ("headers", before.headers != after.headers),
        ("value", before.value != after.value),
    ];
    columns.into_iter().filter(|(_, changed)| *changed).map(|(name, _)| name).collect()
}

impl StepTrace {
    fn new(step: &Step, not_run: Option<&'static str>) -> Self {
        Self {
            step: step.name.clone(),
            plugin_digest: format!("sha256:{}", step.plugin.digest()),
            role: step.role().as_str(),
            not_run,
            records: Vec::new(),
            logs: Vec::new(),
        }
    }
}
