//! The stage loop: one queue through a chain of plugins, one bounded turn at a time.

mod timers;

use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::batch::Record;
use crate::bindings::Action;
use crate::bisect::{self, Bounds, Called, Fall, Flow};
use crate::chained::{Bringer, Chained, End, Falls, Head, Settled};
use crate::counters::{Counters, StepStatus};
use crate::error::Error;
use crate::pace::Pace;
use crate::plan::{Plan, Then};
use crate::ports::{DeadLetter, Outgoing, PortError, Portion, Progress, Sink, Source, Unit};
use crate::state::{Partition, StateError, TIMERS_AT_ONCE, Timer};
use crate::step::{Home, Running};

use timers::{DueTimers, Fired};

/// Most records of a turn when a plugin asks other servers: what was committed is not asked again after a crash, and the queue goes on.
const ASKING_RECORDS: usize = 64;
/// Records that are searched for in one turn of those that end an instance: they are dead letters of one unit.
const FALLS: usize = 8;
/// Times that a turn is run again without records that fell and left something in the state; then it ends before the next one.
const REPEATS: usize = 4;
/// Timers that a call of records fires besides. Where one brings more, they have turns of their own.
const CROWD: usize = 64;
/// Turns in which the timers are fired that a record brought, before the record itself: what sets itself again for ever ends with them.
const BRINGER_TURNS: u32 = 4_096;
/// How much longer than they have to entries stay while nothing comes, milliseconds: what was stored before they expired may be on its way to
/// the disk, and is to find them.
const EXPIRY_MARGIN: u64 = 60_000;
/// How soon a busy port is tried again.
const PORT_WAIT: Duration = Duration::from_millis(50);

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
    /// The same of the first of the timers that are due.
    timer_retry: Option<(Timer, u32)>,
    stopped: Option<String>,
    /// Records of the next turn: fewer where some are tried again.
    batch_records: usize,
    /// The same: as many as keep their deadline, and of timers.
    pace: Pace,
    timer_pace: Pace,
    /// What was made of how many records last: where each makes many, or large ones, a turn takes fewer.
    yielded: Yield,
    /// The last turn fired timers: records come first in the next.
    fired: bool,
    /// By when timers are due, milliseconds since 1970: the last tick of their clock.
    tick: u64,
    /// The record at the head, if a timer that it brings is what fails.
    bringer: Option<Bringer>,
    /// What was at the head when all timers that it brings were fired: what fails there now is its own.
    cleared: Option<Head>,
    /// When the turn began, and the broker's time then, milliseconds since 1970.
    began: (Instant, u64),
    /// How many records of the turn are to be done again, behind one that is tried again or with it, and of how many.
    undone: Option<(u32, u32)>,
    /// Their part of the processor time of such turns, without the calls that ended their instance.
    fruitless: Duration,
    counters: Counters,
}

impl Stage {
    /// Checks the plan, starts an instance of each step and loads the position.
    ///
    /// # Errors
    /// [`Error::Plan`] if the steps and sinks do not fit together; otherwise those of [`Plugin::instance`] and of the port.
    pub fn open(mut plan: Plan, progress: &mut dyn Progress) -> Result<Stage, Error> {
        plan.check()?;
        if plan.steps.iter().any(|step| step.grants.asks_servers()) {
            plan.batch_records = plan.batch_records.min(ASKING_RECORDS);
        }
        let steps = (0..plan.steps.len()).map(|index| Running::start(&plan, index)).collect::<Result<_, _>>()?;
        let position = progress.load()?;
        let batch_records = plan.batch_records;
        let (began, counters) = ((Instant::now(), 0), Counters::default());
        Ok(Stage {
            plan,
            steps,
            position,
            retry: None,
            timer_retry: None,
            stopped: None,
            batch_records,
            pace: Pace::new(batch_records),
            timer_pace: Pace::new(TIMERS_AT_ONCE),
            yielded: Yield::default(),
            fired: false,
            tick: 0,
            bringer: None,
            cleared: None,
            began,
            undone: None,
            fruitless: Duration::ZERO,
            counters,
        })
    }

    /// Offset that is read next.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.position
    }

    #[must_use]
    pub fn counters(&self) -> Counters {
        let each = || self.steps.iter().map(|step| step.counters);
        Counters { cpu: each().map(|of| of.cpu).sum(), traps: each().map(|of| of.traps).sum(), ..self.counters }
    }

    /// The steps, in their order.
    #[must_use]
    pub fn steps(&self) -> Vec<StepStatus> {
        self.steps.iter().map(Running::status).collect()
    }

    /// Processor time of calls that came to nothing: they ended their instance, or what they made has to be made again.
    #[must_use]
    pub fn wasted(&self) -> Duration {
        self.wasted_by_steps() + self.fruitless
    }

    fn wasted_by_steps(&self) -> Duration {
        self.steps.iter().map(|running| running.counters.wasted).sum()
    }

    /// Brings the state's file up to date, so that the next start has little to read from the log.
    pub fn save(&self, sink: &mut dyn Sink) {
        let Some(state) = &self.plan.state else { return };
        if let Some(partition) = state.partition.lock().as_mut() {
            self.save_partition(partition, sink);
        }
    }

    /// [`Self::save`], and closes it: whoever shares the partition finds it gone.
    pub fn close(self, sink: &mut dyn Sink) {
        let partition = self.plan.state.as_ref().and_then(|state| state.partition.lock().take());
        if let Some(mut partition) = partition {
            self.save_partition(&mut partition, sink);
        }
    }

    fn save_partition(&self, partition: &mut Partition, sink: &mut dyn Sink) {
        let settled = settle(partition, sink).map_err(|problem| problem.to_string());
        let saved =
            settled.and_then(|()| partition.save(sink.durable_changes()).map_err(|problem| problem.to_string()));
        if let Err(problem) = saved {
            tracing::warn!(pipeline = %self.plan.pipeline, queue = self.plan.queue, problem, "the state's file is not up to date");
        }
    }

    /// Reads, runs and commits one batch, or fires timers that are due. Bounded by the plan's limits; never waits for records. `now` is the
    /// broker's time, milliseconds since 1970.
    pub fn turn(&mut self, source: &mut dyn Source, sink: &mut dyn Sink, now: u64) -> Turn {
        self.began = (Instant::now(), now);
        let before = (self.counters().cpu, self.wasted_by_steps());
        self.undone = None;
        let turn = self.turn_alone(source, sink, now);
        if let Some((undone, all)) = self.undone {
            let took = self.counters().cpu.saturating_sub(before.0);
            let wasted = self.wasted_by_steps().saturating_sub(before.1);
            self.fruitless += took.saturating_sub(wasted) * undone / all.max(1);
        }
        turn
    }

    fn turn_alone(&mut self, source: &mut dyn Source, sink: &mut dyn Sink, now: u64) -> Turn {
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

    fn turn_at_home(&mut self, source: &mut dyn Source, sink: &mut dyn Sink, now: u64, home: &mut Home) -> Turn {
        if let Some(reason) = &self.stopped {
            return Turn::Stopped(reason.clone());
        }
        if let Some(turn) = self.fire_brought(sink, home) {
            return turn;
        }
        // A timer that is always due must not keep records waiting for ever.
        let records_first = std::mem::take(&mut self.fired);
        if !records_first && let Some(turn) = self.fire_timers(sink, now, home) {
            return turn;
        }
        let mut records = Vec::new();
        // What comes behind a record that is tried again would be done for nothing should it fail.
        let most = if self.retry.is_some() {
            1
        } else {
            self.batch_records.min(self.yielded.records_for(sink.portion())).min(self.pace.records())
        };
        let next = match source.read(self.position, most, self.plan.batch_bytes, &mut records) {
            Ok(next) => next,
            Err(e) => return self.port_trouble("reading", e),
        };
        if records.is_empty() && next == self.position {
            let fired = if records_first { self.fire_timers(sink, now, home) } else { None };
            return fired.unwrap_or_else(|| self.rest(sink, now, home));
        }
        if let Err(reason) = self.check_read(&records, next) {
            return self.stop(reason);
        }
        match self.run(&Work::Records(&records), sink, home) {
            Ok((_, chained, settled)) => {
                let position = records.get(chained.done).map_or(next, |record| record.offset);
                self.commit(&records, position, chained, settled, sink, home)
            }
            Err(e) => self.trouble(e, home),
        }
    }

    /// The chain over the records or timers, and what is to become of those that failed. The timers are given as records.
    ///
    /// With state, nothing may stay there of what comes behind the last record that is done with, nor of a record that fell in a later step:
    /// if something did, the rest is run again without it.
    fn run<'r>(
        &mut self,
        work: &Work<'r>,
        sink: &dyn Sink,
        home: &mut Home,
    ) -> Result<(Vec<Record>, Chained<'r>, Settled), Error> {
        let mut most = match work {
            Work::Records(records) => records.len(),
            Work::Timers(_) => self.timer_pace.records(),
        };
        let (mut left_out, mut ended, mut repeats) = (Falls::new(), End::None, 0);
        loop {
            let start = Instant::now();
            let done = match work {
                Work::Records(records) => {
                    self.chain(&records[..most], &left_out, sink, home).map(|chained| (Fired::default(), chained))
                }
                Work::Timers(due) => self.fire(due, most, &left_out, sink, home),
            };
            self.counters.busy += start.elapsed();
            let (fired, mut chained) = done?;
            let records = if let Work::Records(records) = work { records } else { fired.records.as_slice() };
            let settled = self.settle(records, &fired.timers, &mut chained);
            let traces = chained.traces();
            // What ended an earlier try of the turn stands as long as the turn comes so far.
            if !matches!(settled.end, End::None) || chained.done < most {
                ended = settled.end;
            }
            let settled = Settled { end: End::None, ..settled };
            let written = home.as_ref().map_or(0, |partition| partition.written());
            if written > sink.room().state && chained.done > 0 {
                roll_back(home)?;
                ended = End::None;
                if chained.done > 1 {
                    most = chained.done / 2;
                    left_out.retain(|source, _| *source < most);
                } else {
                    (most, left_out) = (1, Falls::from([(0, self.too_much_state(written))]));
                }
                continue;
            }
            if chained.touched <= chained.done && traces.is_empty() {
                return Ok((fired.records, chained, Settled { end: ended, ..settled }));
            }
            roll_back(home)?;
            if chained.done == 0 {
                return Ok((fired.records, chained, Settled { end: ended, ..settled }));
            }
            most = chained.done;
            repeats += 1;
            if repeats > REPEATS
                && let Some(first) = traces.first()
            {
                most = most.min((*first).max(1));
                ended = End::None;
            }
            left_out.retain(|source, _| *source < most);
            for source in traces.into_iter().take_while(|source| *source < most) {
                left_out.extend(chained.falls.remove(&source).map(|fall| (source, fall)));
            }
        }
    }

    /// How a record falls of which processors would keep more than a unit has room for; the last of them is named.
    fn too_much_state(&self, written: usize) -> (usize, Fall) {
        let step = self.steps.iter().rposition(Running::keeps_state).unwrap_or(0);
        let reason = format!("{written} bytes of state were written for one record, by all processors together");
        (step, Fall { action: Action::DeadLetter, code: "too-much-output".into(), reason })
    }

    /// There is nothing to read: time to delete what has expired, and to write down what processors keep.
    fn rest(&mut self, sink: &mut dyn Sink, now: u64, home: &mut Home) -> Turn {
        let expired = now.saturating_sub(EXPIRY_MARGIN);
        let expired = match home.as_mut().map_or(Ok(None), |partition| partition.end_turn(expired)) {
            Ok(expired) => expired,
            Err(problem) => return self.trouble(problem.into(), home),
        };
        let changed = expired.is_some();
        if changed {
            let unit = Unit { outputs: Vec::new(), dead_letters: Vec::new(), position: self.position, state: expired };
            if let Err(e) = sink.commit(unit) {
                let turn = self.port_trouble("committing", e);
                return roll_back(home).map_or_else(|problem| self.stop(problem.to_string()), |()| turn);
            }
        }
        match committed(changed, sink, home) {
            Ok(()) if changed => Turn::Progressed { read: 0, sent: 0, failed: 0, wait: None },
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

    /// All steps over the records but those left out. The failures come with the step they happened in.
    fn chain<'r>(
        &mut self,
        records: &'r [Record],
        left_out: &Falls,
        sink: &dyn Sink,
        home: &mut Home,
    ) -> Result<Chained<'r>, Error> {
        let mut chained = Chained::begin(records, left_out);
        let retried = self.retry.filter(|(offset, _)| records.first().is_some_and(|r| r.offset == *offset));
        let attempt = retried.map_or(0, |(_, attempt)| u16::try_from(attempt).unwrap_or(u16::MAX));
        let head = records.first().map_or(Head::Timers, |record| Head::Record(record.offset));
        let before = self.cpu();
        self.chain_from(0, &mut chained, |source| if source == 0 { attempt } else { 0 }, head, sink, home)?;
        if chained.deadline_missed {
            self.pace.missed(records.len());
        } else {
            // A turn that ends early says nothing: its calls took what they took for more records than it has.
            if chained.done == records.len() {
                self.pace.kept(records.len(), self.longest_since(&before), self.plan.limits.deadline);
            }
            if retried.is_none() {
                self.batch_records = (self.batch_records * 2).min(self.plan.batch_records);
            }
        }
        Ok(chained)
    }

    /// Processor time of each step's calls.
    fn cpu(&self) -> Vec<Duration> {
        self.steps.iter().map(|running| running.counters.cpu).collect()
    }

    /// That of the step that took longest since then.
    fn longest_since(&self, before: &[Duration]) -> Duration {
        let took = self.steps.iter().zip(before).map(|(running, before)| running.counters.cpu.saturating_sub(*before));
        took.max().unwrap_or_default()
    }

    /// The steps from `first` on over the flows.
    fn chain_from(
        &mut self,
        first: usize,
        chained: &mut Chained<'_>,
        attempt: impl Fn(usize) -> u16,
        head: Head,
        sink: &dyn Sink,
        home: &mut Home,
    ) -> Result<(), Error> {
        let (room, cleared) = (sink.room(), self.cleared == Some(head));
        // The first record that is to be tried again, or to stop the stage, ends the turn.
        let goes_on = self.plan.policy.retries == 0 && self.plan.policy.then != Then::Stop;
        let falls = if goes_on { FALLS } else { 1 };
        for (index, running) in self.steps.iter_mut().enumerate().skip(first) {
            let plan = &self.plan;
            if let Some(prefilter) = &running.step.prefilter {
                chained.flows.retain(|flow| prefilter.wants(&flow.record));
            }
            let (mut batch, mut held) = (std::mem::take(&mut running.batch), running.instance.take());
            let mut flows = std::mem::take(&mut chained.flows);
            let lateness = plan.state.as_ref().map_or(0, |state| state.lateness);
            let crowd = running.brings_crowd(&flows, CROWD, lateness, home)?;
            let bringer = crowd.map(|at| flows[at].source).filter(|source| *source > 0 || !cleared);
            if let Some(bringer) = bringer {
                flows.truncate(flows.partition_point(|flow| flow.source < bringer));
            }
            let ran = bisect::run(flows, &mut batch, &attempt, Bounds { falls, room }, |batch, part| {
                let called = running.call(plan, &mut held, batch, home)?;
                let cleared = cleared && part[0].source == 0;
                Ok::<_, Error>(Called { timers: called.timers && !cleared, ..called })
            });
            (running.batch, running.instance) = (batch, held);
            let mut ran = ran?;
            if ran.cut.is_none() && ran.bringer.is_none() {
                ran.bringer = bringer;
            }
            running.count(&ran);
            chained.ran(index, running.keeps_state(), ran);
            chained.fit(index, &room);
        }
        chained.check(self.steps.len() - 1, |record| sink.check(record));
        Ok(())
    }

    /// How often a record, or a timer that counts as one, was tried before.
    fn tried(&self, record: &Record, timer: Option<&Timer>) -> u32 {
        let tries = match timer {
            None => self.retry.filter(|(offset, _)| *offset == record.offset).map(|(_, tries)| tries),
            Some(timer) => self.timer_retry.as_ref().filter(|(tried, _)| tried == timer).map(|(_, tries)| *tries),
        };
        tries.unwrap_or(0)
    }

    /// Applies the policy to the failures. The turn ends before the first record that is not to fall yet. Where the records are timers,
    /// these are given as well.
    fn settle(&self, records: &[Record], timers: &[Timer], chained: &mut Chained<'_>) -> Settled {
        let mut settled = Settled::default();
        for (&source, (step, fall)) in chained.falls.range(..chained.done) {
            let (step, fall) = (*step, fall.clone());
            let (record, timer) = (&records[source], timers.get(source));
            let tried = self.tried(record, timer);
            let then = match fall.action {
                Action::Retry if tried < self.plan.policy.retries => {
                    let (wait, tries) = (self.plan.policy.wait(tried), tried + 1);
                    settled.end = match timer {
                        None => End::Retry { offset: record.offset, tries, wait },
                        Some(timer) => End::RetryTimer { timer: timer.clone(), tries, wait },
                    };
                    chained.done = source;
                    break;
                }
                Action::Retry => self.plan.policy.then,
                Action::DeadLetter => Then::DeadLetter,
                Action::Skip => Then::Skip,
                Action::Stop => Then::Stop,
            };
            if !self.let_fall(then, (record, timer), step, fall, tried + 1, &mut settled) {
                chained.done = source;
                break;
            }
        }
        chained.drop_flows();
        if let (Some((step, source)), End::None) = (chained.bringer, &settled.end)
            && chained.done == source
        {
            let Record { offset, stored_at, .. } = records[source];
            let head = if timers.is_empty() { Head::Record(offset) } else { Head::Timers };
            let time = records[source].event_time();
            settled.end = End::Bringer(Bringer { step, head, time, stored_at, turns: BRINGER_TURNS });
        }
        settled
    }

    /// Whether what comes behind it may go on.
    fn let_fall(
        &self,
        then: Then,
        (record, timer): (&Record, Option<&Timer>),
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
                timer: timer.map(|timer| timer.name.clone()),
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
                let text = format!("step {name} failed on offset {offset} of queue {queue}: {code}: {reason}");
                settled.end = End::Stop(text);
                return false;
            }
        }
        true
    }

    fn commit(
        &mut self,
        records: &[Record],
        position: u64,
        chained: Chained<'_>,
        settled: Settled,
        sink: &mut dyn Sink,
        home: &mut Home,
    ) -> Turn {
        let Settled { dead_letters, skipped, end } = settled;
        let (sent, dead) = (chained.flows.len() as u64, dead_letters.len() as u64);
        if chained.done > 0 || position > self.position {
            let dropped = chained.dropped(dead + skipped);
            let done = &records[..chained.done];
            let moves = position > self.position;
            // Timers are no records of the source, by whose time entries expire.
            let read = if moves { done } else { &[] };
            let kept = home.as_ref().map_or(0, |partition| partition.written());
            let state = match changes(read, home) {
                Ok(state) => state,
                Err(problem) => return self.trouble(problem.into(), home),
            };
            let changed = state.is_some();
            if moves {
                self.yielded = Yield::of(chained.done, &chained.flows, &dead_letters, kept);
            }
            let outgoing = |flow: Flow<'_>| Outgoing { record: flow.record.into_owned(), sink: flow.target };
            let outputs = chained.flows.into_iter().map(outgoing).collect();
            if let Err(e) = sink.commit(Unit { outputs, dead_letters, position, state }) {
                let turn = self.port_trouble("committing", e);
                return roll_back(home).map_or_else(|problem| self.stop(problem.to_string()), |()| turn);
            }
            if let Err(problem) = committed(changed, sink, home) {
                return self.stop(problem.to_string());
            }
            if moves || self.cleared == Some(Head::Timers) {
                self.cleared = None;
            }
            if !moves {
                self.timer_retry = None;
            }
            if moves {
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
        let progressed = |wait| Turn::Progressed { read: chained.done as u64, sent, failed: dead + skipped, wait };
        match end {
            End::None => progressed(None),
            End::Retry { offset, tries, wait } => {
                self.counters.retries += 1;
                if tries == 1 {
                    // The next that is to be tried again may be as near.
                    self.batch_records = self.batch_records.min(chained.done + 1);
                }
                self.retry = Some((offset, tries));
                self.undone = Some(((records.len() - chained.done) as u32, records.len() as u32));
                if chained.done == 0 { Turn::Wait(wait) } else { progressed(Some(wait)) }
            }
            End::RetryTimer { timer, tries, wait } => {
                self.counters.retries += 1;
                self.timer_retry = Some((timer, tries));
                if chained.done == 0 { Turn::Wait(wait) } else { progressed(Some(wait)) }
            }
            End::Bringer(bringer) => {
                self.bringer = Some(bringer);
                let fired = if chained.done == 0 { self.fire_brought(sink, home) } else { None };
                fired.unwrap_or_else(|| progressed(None))
            }
            End::Stop(reason) => self.stop(reason),
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

/// What a turn is about.
enum Work<'a> {
    Records(&'a [Record]),
    Timers(&'a DueTimers),
}

/// What was made of so many records: outputs and dead letters, and their bytes with those that processors wrote to their state.
#[derive(Default)]
struct Yield {
    records: u64,
    outputs: u64,
    bytes: u64,
}

impl Yield {
    fn of(records: usize, made: &[Flow<'_>], dead: &[DeadLetter], kept: usize) -> Self {
        let all = made.iter().map(|flow| &*flow.record).chain(dead.iter().map(|letter| &letter.record));
        let bytes = all.map(Record::size).sum::<usize>() + kept;
        Self { records: records as u64, outputs: (made.len() + dead.len()) as u64, bytes: bytes as u64 }
    }

    /// Of how many records as much is made as a turn is to make.
    fn records_for(&self, portion: Portion) -> usize {
        let most = |aim: u64, got: u64| self.records.saturating_mul(aim).checked_div(got).unwrap_or(u64::MAX);
        let most = most(portion.outputs, self.outputs).min(most(portion.bytes, self.bytes));
        usize::try_from(most).unwrap_or(usize::MAX).max(1)
    }
}

/// What a turn changed in the state.
fn changes(records: &[Record], home: &mut Home) -> Result<Option<Bytes>, StateError> {
    let now = records.iter().map(|record| record.stored_at).max().unwrap_or(0);
    home.as_mut().map_or(Ok(None), |partition| partition.end_turn(now))
}

/// The turn's changes stand in the log. Now and then what they did goes to the state's file, for which the log has to have them on its disk;
/// and the state is carried forward in the log.
fn committed(changed: bool, sink: &mut dyn Sink, home: &mut Home) -> Result<(), Error> {
    let Some(partition) = home else { return Ok(()) };
    partition.committed(changed);
    let carries = partition.is_to_be_carried(|| sink.fading_changes())?;
    if !carries && !partition.is_untidy() {
        return Ok(());
    }
    match settle(partition, sink) {
        // It is as urgent after the next turn.
        Err(PortError::Busy(_)) => return Ok(()),
        settled => settled?,
    }
    let durable = sink.durable_changes();
    partition.tidy(durable)?;
    if carries {
        partition.begin_round(durable)?;
    }
    Ok(())
}

/// Waits until the log has on its disk what is in the state.
fn settle(partition: &Partition, sink: &mut dyn Sink) -> Result<(), PortError> {
    if sink.durable_changes() < partition.applied() { sink.settle() } else { Ok(()) }
}

fn roll_back(home: &mut Home) -> Result<(), StateError> {
    home.as_mut().map_or(Ok(()), |partition| partition.roll_back())
}
