//! The stage loop: one queue through a chain of plugins, one bounded turn at a time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::batch::{Batch, Record};
use crate::bindings::Action;
use crate::bisect::{self, Fall, Flow, Ran};
use crate::counters::{Counters, StepStatus};
use crate::error::{Error, Failure};
use crate::host::Observer;
use crate::limits::Limits;
use crate::manifest::Role;
use crate::ports::{DeadLetter, Outgoing, PortError, Progress, Sink, Source, Unit};
use crate::state::{Shared, StateError, Timer};
use crate::step::{Home, Running, Step, used_as};

/// Longest chain.
const MAX_STEPS: usize = 32;
const MAX_BACKOFF: Duration = Duration::from_secs(60);
/// Most records of a turn when a plugin asks other servers: what was committed is not asked again after a crash, and the queue goes on.
const ASKING_RECORDS: usize = 64;
/// Records that are searched for in one turn of those that end an instance: they are dead letters of one unit.
const FALLS: usize = 8;
/// How soon a busy port is tried again.
const PORT_WAIT: Duration = Duration::from_millis(50);

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
    /// Most records of one turn, 1 to [`Batch::MAX_RECORDS`]; 256 is a good number.
    pub batch_records: usize,
    /// Bytes after which a turn reads no further; 1 MiB is a good number.
    pub batch_bytes: usize,
    pub observer: Arc<dyn Observer>,
    /// Needed when one of the steps is a processor.
    pub state: Option<StatePlan>,
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
    /// When the turn began, and the broker's time then, milliseconds since 1970.
    began: (Instant, u64),
    counters: Counters,
}

impl Stage {
    /// Checks the plan, starts an instance of each step and loads the position.
    ///
    /// # Errors
    /// [`Error::Plan`] if the steps and sinks do not fit together; otherwise those of [`Plugin::instance`] and of the port.
    pub fn open(mut plan: Plan, progress: &mut dyn Progress) -> Result<Stage, Error> {
        check_plan(&plan)?;
        if plan.steps.iter().any(|step| step.grants.asks_servers()) {
            plan.batch_records = plan.batch_records.min(ASKING_RECORDS);
        }
        let steps = (0..plan.steps.len()).map(|index| Running::start(&plan, index)).collect::<Result<_, _>>()?;
        let position = progress.load()?;
        let batch_records = plan.batch_records;
        let (began, counters) = ((Instant::now(), 0), Counters::default());
        Ok(Stage { plan, steps, position, retry: None, stopped: None, batch_records, began, counters })
    }

    /// Offset that is read next.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.position
    }

    #[must_use]
    pub fn counters(&self) -> Counters {
        Counters { cpu: self.steps.iter().map(|step| step.counters.cpu).sum(), ..self.counters }
    }

    /// The steps, in their order.
    #[must_use]
    pub fn steps(&self) -> Vec<StepStatus> {
        self.steps.iter().map(Running::status).collect()
    }

    /// Processor time of calls that ended their instance.
    #[must_use]
    pub fn wasted(&self) -> Duration {
        self.steps.iter().map(|running| running.counters.wasted).sum()
    }

    /// Brings the state's file up to date, so that the next start has little to read from the log, and closes it: whoever shares the
    /// partition finds it gone.
    pub fn close(self, sink: &dyn Sink) {
        let partition = self.plan.state.as_ref().and_then(|state| state.partition.lock().take());
        if let Some(mut partition) = partition
            && let Err(problem) = partition.close(sink.durable_changes())
        {
            tracing::warn!(pipeline = %self.plan.pipeline, queue = self.plan.queue, %problem, "the state's file is not up to date");
        }
    }

    /// Reads, runs and commits one batch, or fires timers that are due. Bounded by the plan's limits; never waits for records. `now` is the
    /// broker's time, milliseconds since 1970.
    pub fn turn(&mut self, source: &mut dyn Source, sink: &mut dyn Sink, now: u64) -> Turn {
        self.began = (Instant::now(), now);
        let Some(shared) = self.plan.state.as_ref().map(|state| state.partition.clone()) else {
            return self.turn_at_home(source, sink, now, &mut None);
        };
        // Whoever looks into the state meanwhile waits, and sees whole turns only.
        let mut place = shared.lock();
        let mut home = place.take();
        if home.is_none() {
            return self.stop("what it keeps is closed: the pipeline is being changed".to_owned());
        }
        let turn = self.turn_at_home(source, sink, now, &mut home);
        *place = home;
        turn
    }

    /// When the first processing-time timer is due, milliseconds since 1970.
    #[must_use]
    pub fn next_timer(&self) -> Option<u64> {
        let mut place = self.plan.state.as_ref()?.partition.lock();
        // A state that cannot be read stops the stage at its next turn.
        let due = |step: &Running| step.next_timer(&mut place).unwrap_or(Some(0));
        self.steps.iter().filter_map(due).min()
    }

    fn turn_at_home(&mut self, source: &mut dyn Source, sink: &mut dyn Sink, now: u64, home: &mut Home) -> Turn {
        if let Some(reason) = &self.stopped {
            return Turn::Stopped(reason.clone());
        }
        if let Some(turn) = self.fire_timers(sink, now, home) {
            return turn;
        }
        let mut records = Vec::new();
        let next = match source.read(self.position, self.batch_records, self.plan.batch_bytes, &mut records) {
            Ok(next) => next,
            Err(e) => return self.port_trouble("reading", e),
        };
        if records.is_empty() && next == self.position {
            return self.rest(sink, home);
        }
        if let Err(reason) = self.check_read(&records, next) {
            return self.stop(reason);
        }
        match self.run(&records, home) {
            Ok((chained, settled)) => {
                let position = records.get(chained.done).map_or(next, |record| record.offset);
                self.commit(&records, position, chained, settled, sink, home)
            }
            Err(e) => self.trouble(e, home),
        }
    }

    /// The chain over the records, and what is to become of those that failed. With state, what comes behind the last record that is done
    /// with must leave no trace there: if it did, the rest is run again without it.
    fn run(&mut self, records: &[Record], home: &mut Home) -> Result<(Chained, Settled), Error> {
        let mut count = records.len();
        let mut waits = None;
        loop {
            let start = Instant::now();
            let chained = self.chain(&records[..count], home);
            self.counters.busy += start.elapsed();
            let mut chained = chained?;
            let mut settled = self.settle(&records[..count], &mut chained);
            if chained.done == 0 && chained.touched > 0 {
                roll_back(home)?;
            }
            if chained.touched <= chained.done || chained.done == 0 {
                if let Some((retry, wait, stop)) = waits {
                    (settled.retry, settled.wait, settled.stop) = (retry, wait, stop);
                }
                return Ok((chained, settled));
            }
            roll_back(home)?;
            count = chained.done;
            waits = Some((settled.retry, settled.wait, settled.stop));
        }
    }

    /// There is nothing to read: time to write down what processors keep.
    fn rest(&mut self, sink: &dyn Sink, home: &mut Home) -> Turn {
        match home.as_mut().map_or(Ok(()), |partition| partition.tidy(sink.durable_changes())) {
            Ok(()) => Turn::Idle,
            Err(problem) => self.stop(problem.to_string()),
        }
    }

    fn trouble(&mut self, error: Error, home: &mut Home) -> Turn {
        if let Err(problem) = roll_back(home) {
            return self.stop(problem.to_string());
        }
        match error {
            Error::Full(_) => {
                tracing::warn!(pipeline = %self.plan.pipeline, queue = self.plan.queue, "{error}");
                Turn::Wait(Duration::from_secs(1))
            }
            Error::Port(PortError::Busy(_)) => Turn::Wait(PORT_WAIT),
            error => self.stop(error.to_string()),
        }
    }

    /// Tells processors that timers are due, and commits what comes of it. `None`: no timer is due.
    fn fire_timers(&mut self, sink: &mut dyn Sink, now: u64, home: &mut Home) -> Option<Turn> {
        for index in 0..self.steps.len() {
            let due = self.steps[index].next_timer(home);
            match due {
                Ok(Some(due)) if due <= now => {}
                Ok(_) => continue,
                Err(problem) => return Some(self.stop(problem.to_string())),
            }
            let start = Instant::now();
            let fired = self.fire(index, now, home);
            self.counters.busy += start.elapsed();
            return Some(match fired {
                Ok((timers, chained, settled)) => self.commit(&timers, self.position, chained, settled, sink, home),
                Err(e) => self.trouble(e, home),
            });
        }
        None
    }

    /// The timers of one step that are due, and the chain behind it over what comes of them. Each timer counts as a record.
    fn fire(&mut self, index: usize, now: u64, home: &mut Home) -> Result<(Vec<Record>, Chained, Settled), Error> {
        let timers = self.steps[index].take_timers(now, home)?;
        let newest = self.steps[index].clock(home)?;
        let as_record = |timer: &Timer| Record {
            offset: self.position,
            key: Some(timer.key.clone().into()),
            // Not newer than what the step has seen: behind a backlog the event clock of the steps after it stays where it is.
            born_at: timer.due.min(newest),
            stored_at: now,
            ..Record::default()
        };
        let records: Vec<Record> = timers.iter().map(as_record).collect();
        let mut chained = Chained::new(records.len());
        let mut flows = Vec::new();
        let mut parts = vec![(0, timers.len())];
        while let Some((from, to)) = parts.pop() {
            let running = &mut self.steps[index];
            let mut instance = running.instance.take();
            let fired = running.on_timers(&self.plan, &mut instance, &timers[from..to], now, home);
            running.instance = instance;
            match fired? {
                Ok(output) if output.failed.is_empty() => {
                    flows.extend(output.produced.into_iter().map(|item| {
                        let (source, target) = (from + item.origin, item.target);
                        Flow { record: item.applied_to(&records[source]), source, target }
                    }));
                }
                // One timer by itself failed for good: there is nothing that comes after it and waits.
                done if to - from == 1 => {
                    let fall = match done {
                        Ok(mut output) => {
                            output.failed.pop().map(|f| Fall { action: f.action, code: f.code, reason: f.reason })
                        }
                        Err(failure) => {
                            let trap = u64::from(!matches!(failure, Failure::Nonsense(_) | Failure::Fault { .. }));
                            self.counters.traps += trap;
                            self.steps[index].counters.traps += trap;
                            Some(Fall::of(&failure))
                        }
                    };
                    chained.falls[from] = fall.map(|fall| (index, fall));
                    self.steps[index].counters.failed += u64::from(chained.falls[from].is_some());
                }
                _ => {
                    let middle = from + (to - from) / 2;
                    parts.push((middle, to));
                    parts.push((from, middle));
                }
            }
        }
        let counters = &mut self.steps[index].counters;
        (counters.read, counters.sent) = (counters.read + timers.len() as u64, counters.sent + flows.len() as u64);
        self.chain_from(index + 1, flows, &mut chained, |_| 0, home)?;
        let mut settled = Settled::default();
        for (source, record) in records.iter().enumerate() {
            let Some((step, fall)) = chained.falls[source].take() else { continue };
            let then = match fall.action {
                Action::Retry => self.plan.policy.then,
                Action::DeadLetter => Then::DeadLetter,
                Action::Skip => Then::Skip,
                Action::Stop => Then::Stop,
            };
            self.let_fall(then, record, step, fall, 1, &mut settled);
            if let Some(reason) = settled.stop.take() {
                return Err(Error::Plan(reason));
            }
        }
        Ok((records, chained, settled))
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
    fn chain(&mut self, records: &[Record], home: &mut Home) -> Result<Chained, Error> {
        let flow = |(source, record): (usize, &Record)| Flow { record: record.clone(), source, target: 0 };
        let flows: Vec<Flow> = records.iter().enumerate().map(flow).collect();
        let mut chained = Chained::new(records.len());
        let retried = self.retry.filter(|(offset, _)| records.first().is_some_and(|r| r.offset == *offset));
        let attempt = retried.map_or(0, |(_, attempt)| u16::try_from(attempt).unwrap_or(u16::MAX));
        let slow = self.chain_from(0, flows, &mut chained, |source| if source == 0 { attempt } else { 0 }, home)?;
        self.batch_records =
            if slow { (records.len() / 2).max(1) } else { (self.batch_records * 2).min(self.plan.batch_records) };
        Ok(chained)
    }

    /// The steps from `first` on over the flows. Answers whether a deadline was missed.
    fn chain_from(
        &mut self,
        first: usize,
        mut flows: Vec<Flow>,
        chained: &mut Chained,
        attempt: impl Fn(usize) -> u16,
        home: &mut Home,
    ) -> Result<bool, Error> {
        let mut slow = false;
        // The first record that is to be tried again ends the turn.
        let falls = if self.plan.policy.retries == 0 { FALLS } else { 1 };
        for (index, running) in self.steps.iter_mut().enumerate().skip(first) {
            let plan = &self.plan;
            if let Some(prefilter) = &running.step.prefilter {
                flows.retain(|flow| prefilter.wants(&flow.record));
            }
            let (mut batch, mut held) = (std::mem::take(&mut running.batch), running.instance.take());
            let ran = bisect::run(std::mem::take(&mut flows), &mut batch, &attempt, falls, |batch| {
                running.call(plan, &mut held, batch, home)
            });
            running.batch = batch;
            running.instance = held;
            let ran = ran?;
            running.count(&ran);
            let Ran { flows: passed, failed, cut, entered, traps, deadline_missed, .. } = ran;
            self.counters.traps += traps;
            slow |= deadline_missed;
            if running.keeps_state() {
                chained.touched = chained.touched.max(entered);
            }
            if let Some(cut) = cut {
                chained.done = chained.done.min(cut + 1);
            }
            for (source, fall) in failed {
                chained.falls[source].get_or_insert((index, fall));
            }
            flows = passed;
            flows.retain(|flow| flow.source < chained.done && chained.falls[flow.source].is_none());
        }
        chained.flows = flows;
        Ok(slow)
    }

    /// Applies the policy to the failures.
    fn settle(&mut self, records: &[Record], chained: &mut Chained) -> Settled {
        let mut settled = Settled::default();
        for (source, record) in records.iter().enumerate().take(chained.done) {
            let Some((step, fall)) = chained.falls[source].take() else { continue };
            if !self.settle_one(record, step, fall, &mut settled) {
                chained.done = source;
                break;
            }
        }
        chained.flows.retain(|flow| flow.source < chained.done);
        settled
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
        self.let_fall(then, record, step, fall, tried + 1, settled)
    }

    /// Whether what comes behind it may go on.
    fn let_fall(
        &self,
        then: Then,
        record: &Record,
        step: usize,
        fall: Fall,
        tries: u32,
        settled: &mut Settled,
    ) -> bool {
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
                tries,
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
        home: &mut Home,
    ) -> Turn {
        let Settled { retry, wait, dead_letters, skipped, stop } = settled;
        let (sent, dead) = (chained.flows.len() as u64, dead_letters.len() as u64);
        if chained.done > 0 || position > self.position {
            let dropped = dropped(records, &chained, dead + skipped);
            let done = &records[..chained.done];
            // Timers are no records of the source: entries expire by the time of those.
            let read = if position > self.position { done } else { &[] };
            let state = match changes(read, home) {
                Ok(state) => state,
                Err(problem) => return self.trouble(problem.into(), home),
            };
            let changed = state.is_some();
            let outgoing = |flow: Flow| Outgoing { record: flow.record, sink: flow.target };
            let outputs = chained.flows.into_iter().map(outgoing).collect();
            if let Err(e) = sink.commit(Unit { outputs, dead_letters, position, state }) {
                let turn = self.port_trouble("committing", e);
                return roll_back(home).map_or_else(|problem| self.stop(problem.to_string()), |()| turn);
            }
            if let Err(problem) = committed(changed, sink.durable_changes(), home) {
                return self.stop(problem.to_string());
            }
            // Timers are no records of the source.
            if position > self.position {
                self.retry = None;
                self.counters.read += chained.done as u64;
                self.counters.dropped += dropped;
                let (began, now) = self.began;
                let now = now.saturating_add(u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX));
                self.counters.done(done.iter().map(|record| record.stored_at), now);
            }
            self.position = position;
            self.counters.sent += sent;
            self.counters.dead_lettered += dead;
            self.counters.skipped += skipped;
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
    /// Source records before this one may have left something in the state.
    touched: usize,
}

#[derive(Default)]
struct Settled {
    retry: Option<(u64, u32)>,
    wait: Option<Duration>,
    dead_letters: Vec<DeadLetter>,
    skipped: u64,
    stop: Option<String>,
}

impl Chained {
    fn new(count: usize) -> Self {
        Self { flows: Vec::new(), falls: vec![None; count], done: count, touched: 0 }
    }
}

/// What a turn changed in the state.
fn changes(records: &[Record], home: &mut Home) -> Result<Option<Bytes>, StateError> {
    let Some(partition) = home else { return Ok(None) };
    partition.expire(records.iter().map(|record| record.stored_at).max().unwrap_or(0))?;
    Ok(partition.changes())
}

/// The turn's changes stand in the log; `durable` changes are on its disk.
fn committed(changed: bool, durable: u64, home: &mut Home) -> Result<(), StateError> {
    let Some(partition) = home else { return Ok(()) };
    partition.committed(changed);
    partition.tidy(durable)
}

fn roll_back(home: &mut Home) -> Result<(), StateError> {
    home.as_mut().map_or(Ok(()), |partition| partition.roll_back())
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
        if !plugin.has(Role::Filter) && !plugin.has(Role::Transform) && !plugin.has(Role::Process) {
            let text = "a pipeline runs filters, transformers and processors, this plugin is none of them";
            return bad(format!("step {name}: {text}"));
        }
        let role = used_as(plugin);
        if role == Role::Process && plan.state.is_none() {
            return bad(format!("step {name}: a processor needs a place to keep its state"));
        }
        let outputs = if role == Role::Filter { Some(1) } else { plugin.output_count() };
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
