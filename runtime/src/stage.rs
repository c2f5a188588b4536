//! The stage loop: one queue through a chain of plugins, one bounded turn at a time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Map, Value};

use crate::batch::{Batch, Record};
use crate::bindings::Action;
use crate::bisect::{self, Answer, Fall, Flow, Ran};
use crate::error::{Error, Failure};
use crate::host::{Context, Grants, Observer};
use crate::instance::Instance;
use crate::limits::Limits;
use crate::manifest::Role;
use crate::plugin::{Plugin, Setup};
use crate::ports::{DeadLetter, Outgoing, PortError, Progress, Sink, Source, Unit};

/// Longest chain.
const MAX_STEPS: usize = 32;
const MAX_BACKOFF: Duration = Duration::from_secs(60);
/// How soon a busy port is tried again.
const PORT_WAIT: Duration = Duration::from_millis(50);

/// One plugin of the chain.
#[derive(Clone)]
pub struct Step {
    /// As the dead letters and the plugin's own context name it.
    pub name: String,
    pub plugin: Plugin,
    pub config: Map<String, Value>,
}

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
    /// Most records of one turn, 1 to [`Batch::MAX_RECORDS`]; 256 is a good number.
    pub batch_records: usize,
    /// Bytes after which a turn reads no further; 1 MiB is a good number.
    pub batch_bytes: usize,
    pub observer: Arc<dyn Observer>,
}

/// What a turn did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Turn {
    /// There was nothing to read.
    Idle,
    /// A unit was committed. With `wait`, a record must be retried, not before it is over.
    Progressed { read: u64, sent: u64, failed: u64, wait: Option<Duration> },
    /// Nothing was committed; call again after this time.
    Wait(Duration),
    /// A failure that the policy does not go past; only a new stage goes on.
    Stopped(String),
}

/// Sums since the stage was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Source records that were done with.
    pub read: u64,
    pub sent: u64,
    /// Source records that became no output without a failure.
    pub dropped: u64,
    pub dead_lettered: u64,
    /// Source records skipped after a failure.
    pub skipped: u64,
    pub retries: u64,
    /// Calls that ended an instance.
    pub traps: u64,
    /// Time in plugins.
    pub busy: Duration,
}

struct Running {
    step: Step,
    batch: Batch,
    instance: Option<Instance>,
    outputs: usize,
    transforms: bool,
}

/// A chain of plugins on one queue, with its instances. Synchronous; give it a thread for each turn.
pub struct Stage {
    plan: Plan,
    steps: Vec<Running>,
    position: u64,
    /// The record at the head that is being retried, and how often it was.
    retry: Option<(u64, u32)>,
    stopped: Option<String>,
    /// Records of the next turn: fewer after a missed deadline.
    batch_records: usize,
    counters: Counters,
}

impl Stage {
    /// Checks the plan, starts an instance of each step and loads the position.
    ///
    /// # Errors
    /// [`Error::Plan`] if the steps and sinks do not fit together; otherwise those of [`Plugin::instance`] and of the port.
    pub fn open(plan: Plan, progress: &mut dyn Progress) -> Result<Stage, Error> {
        check_plan(&plan)?;
        let last = plan.steps.len() - 1;
        let mut steps = Vec::with_capacity(plan.steps.len());
        for (i, step) in plan.steps.iter().enumerate() {
            let mut running = Running {
                batch: Batch::new(step.plugin.manifest().needs, plan.queue),
                instance: None,
                outputs: if i == last { plan.sinks.len() } else { 1 },
                transforms: step.plugin.has(Role::Transform),
                step: step.clone(),
            };
            running.ensure(&plan)?;
            steps.push(running);
        }
        let position = progress.load()?;
        let batch_records = plan.batch_records;
        let counters = Counters::default();
        Ok(Stage { plan, steps, position, retry: None, stopped: None, batch_records, counters })
    }

    /// Offset that is read next.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.position
    }

    #[must_use]
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Reads, runs and commits one batch. Bounded by the plan's limits; never waits for records.
    pub fn turn(&mut self, source: &mut dyn Source, sink: &mut dyn Sink) -> Turn {
        if let Some(reason) = &self.stopped {
            return Turn::Stopped(reason.clone());
        }
        let mut records = Vec::new();
        let next = match source.read(self.position, self.batch_records, self.plan.batch_bytes, &mut records) {
            Ok(next) => next,
            Err(e) => return self.port_trouble("reading", e),
        };
        if records.is_empty() && next == self.position {
            return Turn::Idle;
        }
        if let Err(reason) = self.check_read(&records, next) {
            return self.stop(reason);
        }
        let start = Instant::now();
        let chained = self.chain(&records);
        self.counters.busy += start.elapsed();
        match chained {
            Ok(chained) => self.settle(records, next, chained, sink),
            Err(e @ Error::Full(_)) => {
                tracing::warn!(pipeline = %self.plan.pipeline, queue = self.plan.queue, "{e}");
                Turn::Wait(Duration::from_secs(1))
            }
            Err(e) => self.stop(e.to_string()),
        }
    }

    fn check_read(&self, records: &[Record], next: u64) -> Result<(), String> {
        let mut least = self.position;
        for record in records {
            if record.offset < least || record.offset >= next {
                return Err(format!("the source gave offset {} outside of {least} to {next}", record.offset));
            }
            least = record.offset + 1;
        }
        if next < self.position {
            Err(format!("the source went back from {} to {next}", self.position))
        } else {
            Ok(())
        }
    }

    /// All steps over the records. The failures come with the step they happened in.
    fn chain(&mut self, records: &[Record]) -> Result<Chained, Error> {
        let flow = |(source, record): (usize, &Record)| Flow { record: record.clone(), source, target: 0 };
        let mut flows: Vec<Flow> = records.iter().enumerate().map(flow).collect();
        let mut chained = Chained { flows: Vec::new(), falls: vec![None; records.len()], done: records.len() };
        let retried = self.retry.filter(|(offset, _)| records.first().is_some_and(|r| r.offset == *offset));
        let attempt = retried.map_or(0, |(_, attempt)| u16::try_from(attempt).unwrap_or(u16::MAX));
        let mut slow = false;
        for (index, running) in self.steps.iter_mut().enumerate() {
            let plan = &self.plan;
            let Running { batch, instance, .. } = running;
            let mut batch = std::mem::take(batch);
            let mut held = instance.take();
            let ran = bisect::run(
                std::mem::take(&mut flows),
                &mut batch,
                |source| if source == 0 { attempt } else { 0 },
                |batch| running.call(plan, &mut held, batch),
            );
            running.batch = batch;
            running.instance = held;
            let Ran { flows: passed, failed, cut, traps, deadline_missed } = ran?;
            self.counters.traps += traps;
            slow |= deadline_missed;
            if let Some(cut) = cut {
                chained.done = chained.done.min(cut + 1);
            }
            for (source, fall) in failed {
                chained.falls[source].get_or_insert((index, fall));
            }
            flows = passed;
            flows.retain(|flow| flow.source < chained.done && chained.falls[flow.source].is_none());
        }
        self.batch_records =
            if slow { (records.len() / 2).max(1) } else { (self.batch_records * 2).min(self.plan.batch_records) };
        chained.flows = flows;
        Ok(chained)
    }

    /// Applies the policy to the failures and commits what stands.
    fn settle(&mut self, records: Vec<Record>, next: u64, mut chained: Chained, sink: &mut dyn Sink) -> Turn {
        let mut settled = Settled::default();
        for (source, record) in records.iter().enumerate().take(chained.done) {
            let Some((step, fall)) = chained.falls[source].take() else { continue };
            if !self.settle_one(record, step, fall, &mut settled) {
                chained.done = source;
                break;
            }
        }
        chained.flows.retain(|flow| flow.source < chained.done);
        let position = records.get(chained.done).map_or(next, |record| record.offset);
        self.commit(&records, position, chained, settled, sink)
    }

    /// Whether the turn goes on past this failed record.
    fn settle_one(&mut self, record: &Record, step: usize, fall: Fall, settled: &mut Settled) -> bool {
        let tried = self.retry.filter(|(offset, _)| *offset == record.offset).map_or(0, |(_, tried)| tried);
        let then = match fall.action {
            Action::Retry if tried < self.plan.policy.retries => {
                settled.retry = Some((record.offset, tried + 1));
                settled.wait = Some(backoff(self.plan.policy.backoff, tried));
                return false;
            }
            Action::Retry => self.plan.policy.then,
            Action::DeadLetter => Then::DeadLetter,
            Action::Skip => Then::Skip,
            Action::Stop => Then::Stop,
        };
        let step = &self.steps[step].step;
        match then {
            Then::Skip => settled.skipped += 1,
            Then::DeadLetter => settled.dead_letters.push(DeadLetter {
                record: record.clone(),
                queue: self.plan.queue,
                code: fall.code,
                reason: fall.reason,
                step: step.name.clone(),
                digest: step.plugin.digest().to_owned(),
                tries: tried + 1,
            }),
            Then::Stop => {
                let Fall { code, reason, .. } = fall;
                let (offset, queue, name) = (record.offset, self.plan.queue, &step.name);
                settled.stop =
                    Some(format!("step {name} failed on offset {offset} of queue {queue}: {code}: {reason}"));
                return false;
            }
        }
        true
    }

    fn commit(
        &mut self,
        records: &[Record],
        position: u64,
        chained: Chained,
        settled: Settled,
        sink: &mut dyn Sink,
    ) -> Turn {
        let Settled { retry, wait, dead_letters, skipped, stop } = settled;
        let (sent, dead) = (chained.flows.len() as u64, dead_letters.len() as u64);
        if position > self.position {
            let dropped = dropped(records, &chained, dead + skipped);
            let outgoing = |flow: Flow| Outgoing { record: flow.record, sink: flow.target };
            let outputs = chained.flows.into_iter().map(outgoing).collect();
            if let Err(e) = sink.commit(Unit { outputs, dead_letters, position }) {
                return self.port_trouble("committing", e);
            }
            self.position = position;
            self.counters.read += chained.done as u64;
            self.counters.sent += sent;
            self.counters.dropped += dropped;
            self.counters.dead_lettered += dead;
            self.counters.skipped += skipped;
            self.retry = None;
        }
        if retry.is_some() {
            self.counters.retries += 1;
            self.retry = retry;
        }
        if let Some(reason) = stop {
            return self.stop(reason);
        }
        match wait {
            Some(wait) if chained.done == 0 => Turn::Wait(wait),
            wait => Turn::Progressed { read: chained.done as u64, sent, failed: dead + skipped, wait },
        }
    }

    fn port_trouble(&mut self, doing: &str, error: PortError) -> Turn {
        match error {
            PortError::Busy(_) => Turn::Wait(PORT_WAIT),
            PortError::Failed(reason) => self.stop(format!("{doing}: {reason}")),
        }
    }

    fn stop(&mut self, reason: String) -> Turn {
        self.stopped = Some(reason.clone());
        Turn::Stopped(reason)
    }
}

/// The chain's result.
struct Chained {
    flows: Vec<Flow>,
    /// By source record: the step that failed on it, and how.
    falls: Vec<Option<(usize, Fall)>>,
    /// Source records before this one were tried.
    done: usize,
}

#[derive(Default)]
struct Settled {
    retry: Option<(u64, u32)>,
    wait: Option<Duration>,
    dead_letters: Vec<DeadLetter>,
    skipped: u64,
    stop: Option<String>,
}

fn dropped(records: &[Record], chained: &Chained, failed: u64) -> u64 {
    let mut seen = vec![false; records.len()];
    for flow in &chained.flows {
        seen[flow.source] = true;
    }
    let sources = seen.iter().filter(|seen| **seen).count() as u64;
    (chained.done as u64).saturating_sub(sources + failed)
}

fn backoff(first: Duration, tried: u32) -> Duration {
    first.saturating_mul(1 << tried.min(16)).min(MAX_BACKOFF)
}

impl Running {
    fn ensure(&mut self, plan: &Plan) -> Result<(), Error> {
        if self.instance.is_none() {
            self.instance = Some(self.start(plan)?);
        }
        Ok(())
    }

    fn start(&self, plan: &Plan) -> Result<Instance, Error> {
        let context = Context {
            pipeline: plan.pipeline.clone(),
            step: self.step.name.clone(),
            queue: plan.queue,
            input_topic: plan.input_topic.clone(),
            output_topics: plan.sinks.clone(),
        };
        self.step.plugin.instance(Setup {
            config: self.step.config.clone(),
            context,
            limits: plan.limits.clone(),
            grants: Grants::default(),
            observer: Arc::clone(&plan.observer),
        })
    }

    /// One call; the instance is made anew if the last one ended.
    fn call(&self, plan: &Plan, held: &mut Option<Instance>, batch: &Batch) -> Result<Result<Answer, Failure>, Error> {
        let mut instance = match held.take() {
            Some(instance) => instance,
            None => self.start(plan)?,
        };
        let answer = if self.transforms {
            instance.transform(batch, self.outputs).map(Answer::Output)
        } else {
            instance.filter(batch).map(Answer::Verdict)
        };
        if !instance.is_dead() {
            *held = Some(instance);
        }
        Ok(answer)
    }
}

fn check_plan(plan: &Plan) -> Result<(), Error> {
    let bad = |problem: String| Err(Error::Plan(problem));
    if !(1..=MAX_STEPS).contains(&plan.steps.len()) {
        return bad(format!("steps: expected 1 to {MAX_STEPS}, got {}", plan.steps.len()));
    }
    if plan.sinks.is_empty() {
        return bad("sinks: expected at least one".into());
    }
    if !(1..=Batch::MAX_RECORDS as usize).contains(&plan.batch_records) || plan.batch_bytes == 0 {
        return bad(format!("batch: expected 1 to {} records and at least 1 byte", Batch::MAX_RECORDS));
    }
    let last = plan.steps.len() - 1;
    for (i, step) in plan.steps.iter().enumerate() {
        let (name, plugin) = (&step.name, &step.plugin);
        if !plugin.has(Role::Filter) && !plugin.has(Role::Transform) {
            return bad(format!("step {name}: a pipeline runs filters and transformers, this plugin is neither"));
        }
        // A plugin that is both runs as a transformer.
        let outputs = if plugin.has(Role::Transform) { plugin.output_count() } else { Some(1) };
        if i < last && outputs.is_some_and(|n| n > 1) {
            return bad(format!("step {name}: it has several outputs, so it can only be the last step"));
        }
        if let Some(outputs) = outputs.filter(|n| i == last && *n != plan.sinks.len()) {
            return bad(format!(
                "sinks: the last step {name} has {outputs} outputs, but there are {} sinks",
                plan.sinks.len()
            ));
        }
    }
    Ok(())
}
