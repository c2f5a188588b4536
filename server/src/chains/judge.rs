//! The instances of one thread, and what they make of a run of messages.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use sluice_runtime::{
    Action, Batch, Context, Error, Failure, Instance, Level, LogLine, Observer, Output, Record, RecordFailure, Setup,
    Verdict, processor_time,
};

use super::{
    lanes::{Counters, Given},
    plan::Plan,
};
use crate::{
    breaker::{Breaker, Entry},
    observer::Logs,
    priority::{self, Calls},
};

/// Records of one call. More would make the first wait too long for the last when each of them takes its whole deadline.
const CALL_RECORDS: usize = 64;
/// Seconds between two lines about failures, so that a plugin that fails on everything does not fill the log.
const TELL_SECONDS: u64 = 1;

/// What became of a message.
#[derive(Debug)]
pub enum Outcome {
    /// It goes on, to this output of the last plugin.
    Kept(Record, usize),
    /// A plugin failed on it or could not be asked, and it goes on as it came.
    Unchanged,
    /// A plugin does not want it.
    Refused { plugin: String, reason: String },
    /// A plugin failed on it, or none could be asked.
    Failed { plugin: Option<String>, reason: String },
    /// No instance could be had, or a plugin is not asked for a while.
    Busy(String),
}

/// One step's instance.
struct Seat {
    batch: Batch,
    instance: Option<Instance>,
}

/// What one step says of one record.
enum Said {
    Keep(Record, usize),
    Drop,
    Fail(RecordFailure),
    TooMany(usize),
}

/// How a call failed.
enum Trouble {
    Guest(Failure),
    /// The breaker is open.
    Resting(String),
    Start(Error),
    Stopping,
}

pub(super) struct Judge {
    plan: Arc<Plan>,
    /// One a step.
    breakers: Arc<[Breaker]>,
    lane: u32,
    seats: Vec<Seat>,
    /// Records of the next call: fewer after one that failed, which may have run out of time.
    room: usize,
    logs: Arc<Logs>,
    counters: Arc<Counters>,
    /// No more calls are to be made.
    stopping: Arc<AtomicBool>,
    told: Option<Instant>,
    /// Processor time of calls that ended their instance, of steps that do not rest for it.
    wasted: Duration,
}

impl Judge {
    pub fn new(
        (plan, breakers): (Arc<Plan>, Arc<[Breaker]>),
        lane: u32,
        logs: Arc<Logs>,
        counters: Arc<Counters>,
        stopping: Arc<AtomicBool>,
    ) -> Self {
        let seat =
            |step: &super::plan::Step| Seat { batch: Batch::new(step.plugin.manifest().needs, lane), instance: None };
        let seats = plan.steps.iter().map(seat).collect();
        Self {
            plan,
            breakers,
            lane,
            seats,
            room: CALL_RECORDS,
            logs,
            counters,
            stopping,
            told: None,
            wasted: Duration::ZERO,
        }
    }

    /// Processor time of calls that ended their instance, of steps that do not rest for it, since this was asked last.
    pub fn wasted(&mut self) -> Duration {
        std::mem::take(&mut self.wasted)
    }

    /// Whether one of the plugins is not asked at the moment.
    pub fn is_resting(&self) -> bool {
        self.breakers.iter().any(Breaker::is_open)
    }

    pub fn plan(&self) -> &Arc<Plan> {
        &self.plan
    }

    /// Takes the records through all steps; each comes from the sender with the same index. What one of them does hurts no other.
    pub fn run(&mut self, given: Vec<Given>, senders: &[u64], calls: &Calls) -> Vec<Outcome> {
        if given.is_empty() {
            return Vec::new();
        }
        let (start, processor) = (Instant::now(), processor_time());
        let unreadable = |reason| Outcome::Failed { plugin: None, reason };
        let mut outcomes: Vec<Outcome> = match &self.plan.broken {
            Some(reason) => given.into_iter().map(|_| unreadable(reason.clone())).collect(),
            None => given.into_iter().map(|of| of.map_or_else(unreadable, |record| Outcome::Kept(record, 0))).collect(),
        };
        for at in 0..self.seats.len() {
            self.step(at, &mut outcomes, senders, calls);
        }
        self.counters.cpu_ns.fetch_add(processor_time().saturating_sub(processor), Ordering::Relaxed);
        self.count(&outcomes, start);
        if self.plan.lenient {
            for outcome in &mut outcomes {
                if matches!(outcome, Outcome::Failed { .. }) {
                    *outcome = Outcome::Unchanged;
                }
            }
        }
        outcomes
    }

    fn step(&mut self, at: usize, outcomes: &mut [Outcome], senders: &[u64], calls: &Calls) {
        if let Some(prefilter) = self.plan.steps[at].prefilter.clone() {
            for outcome in outcomes.iter_mut() {
                if matches!(outcome, Outcome::Kept(record, _) if !prefilter.wants(record)) {
                    *outcome = self.outcome(at, Said::Drop);
                }
            }
        }
        let live = outcomes.iter().enumerate().filter(|(_, outcome)| matches!(outcome, Outcome::Kept(..)));
        // What is only tried comes behind the others, which are asked about together.
        let breaker = &self.breakers[at];
        let (tried, mut live): (Vec<usize>, Vec<usize>) =
            live.map(|(index, _)| index).partition(|index| breaker.is_open_for(senders[*index]));
        live.extend(tried);
        let mut rest = live.as_slice();
        while !rest.is_empty() {
            let (part, left) = rest.split_at(self.fill(at, rest, outcomes, senders));
            rest = left;
            match self.call(at, part, outcomes, (senders, calls)) {
                Ok(()) => self.room = (self.room * 2).min(CALL_RECORDS),
                // One of them is to blame; alone, each of the others gets its own answer.
                Err(Trouble::Guest(_)) if part.len() > 1 => {
                    self.room = (self.room / 2).max(1);
                    for one in part {
                        self.fill(at, std::slice::from_ref(one), outcomes, senders);
                        if let Err(trouble) = self.call(at, std::slice::from_ref(one), outcomes, (senders, calls)) {
                            outcomes[*one] = self.failed(at, &trouble);
                        }
                    }
                }
                Err(trouble) => part.iter().for_each(|one| outcomes[*one] = self.failed(at, &trouble)),
            }
        }
    }

    /// Fills the step's batch from the first of `rest`; answers how many it took. A first record that fits into no batch is
    /// taken, and left out of it.
    fn fill(&mut self, at: usize, rest: &[usize], outcomes: &[Outcome], senders: &[u64]) -> usize {
        // One that is only tried gets an answer of its own.
        let is_tried = |index: &usize| self.breakers[at].is_open_for(senders[*index]);
        let together = rest.iter().take(self.room).take_while(|index| !is_tried(index)).count().max(1);
        let batch = &mut self.seats[at].batch;
        batch.clear();
        let fits = |index: &&usize| matches!(&outcomes[**index], Outcome::Kept(record, _) if batch.push(record, 0));
        rest.iter().take(together).take_while(fits).count().max(1)
    }

    /// Asks the step about the records of its batch, which are those of `part`, and writes down what it says.
    fn call(
        &mut self,
        at: usize,
        part: &[usize],
        outcomes: &mut [Outcome],
        (senders, calls): (&[u64], &Calls),
    ) -> Result<(), Trouble> {
        let sinks = if at + 1 == self.seats.len() { self.plan.sinks.len() } else { 1 };
        if self.stopping.load(Ordering::Acquire) {
            return Err(Trouble::Stopping);
        }
        if self.seats[at].batch.is_empty() {
            return Err(Trouble::Guest(Failure::Nonsense("the message is larger than a batch may be".into())));
        }
        let breaker = &self.breakers[at];
        // Those of a part of several are none that are only tried, unless all are by now.
        let sender = part.first().map_or(0, |index| senders[*index]);
        let entry = breaker.enter(sender).map_err(|rest| Trouble::Resting(rest.reason))?;
        let began = processor_time();
        let took = || Duration::from_nanos(processor_time().saturating_sub(began));
        let mut instance = match self.seats[at].instance.take().map_or_else(|| self.start(at), Ok) {
            Ok(instance) => instance,
            Err(error) => {
                if matches!(error, Error::Full(_)) || !self.plan.goes_unasked() {
                    breaker.left(entry, sender);
                } else {
                    breaker.failed(entry, sender, took(), &error.to_string());
                }
                return Err(Trouble::Start(error));
            }
        };
        let batch = &self.seats[at].batch;
        let ask = || {
            if self.plan.steps[at].transforms {
                instance.transform(batch, sinks).map(|output| transformed(output, part, outcomes))
            } else {
                instance.filter(batch).map(|verdict| filtered(&verdict, part, outcomes))
            }
        };
        let said = if entry == Entry::Free { calls.run(ask) } else { priority::aside(ask) };
        if instance.is_dead() {
            let wasted = took();
            self.counters.traps.fetch_add(1, Ordering::Relaxed);
            match &said {
                // Which of several it was is seen when each of them is alone.
                Err(failure) if part.len() == 1 && self.plan.goes_unasked() => {
                    breaker.failed(entry, sender, wasted, &failure.to_string());
                }
                _ => breaker.left(entry, sender),
            }
            if !breaker.is_open_for(sender) {
                self.wasted += wasted;
            }
        } else {
            breaker.went_well(entry, part.iter().map(|index| senders[*index]));
            self.seats[at].instance = Some(instance);
        }
        for (index, said) in part.iter().zip(said.map_err(Trouble::Guest)?) {
            outcomes[*index] = self.outcome(at, said);
        }
        Ok(())
    }

    fn start(&self, at: usize) -> Result<Instance, Error> {
        let step = &self.plan.steps[at];
        step.plugin.instance(Setup {
            config: step.config.clone(),
            context: Context { step: step.reference.clone(), queue: self.lane, ..self.plan.context.clone() },
            limits: self.plan.limits.clone(),
            grants: step.grants.clone(),
            observer: self.logs.clone(),
            ..Setup::default()
        })
    }

    fn outcome(&self, at: usize, said: Said) -> Outcome {
        let plugin = self.plan.steps[at].label.clone();
        match said {
            Said::Keep(record, sink) => Outcome::Kept(record, sink),
            Said::Drop => Outcome::Refused { plugin, reason: "filtered".to_owned() },
            Said::TooMany(count) => {
                let reason = format!("it made {count} messages of one, but only one can be stored in its place");
                Outcome::Failed { plugin: Some(plugin), reason }
            }
            Said::Fail(RecordFailure { action, code, reason, .. }) => self.complained(plugin, action, &code, &reason),
        }
    }

    /// The plugin itself says that it failed, and whether that is the message's fault.
    fn complained(&self, plugin: String, action: Action, code: &str, reason: &str) -> Outcome {
        let reason = format!("{code}: {reason}");
        if self.plan.refusable && matches!(action, Action::DeadLetter | Action::Skip) {
            Outcome::Refused { plugin, reason }
        } else {
            Outcome::Failed { plugin: Some(plugin), reason }
        }
    }

    fn failed(&self, at: usize, trouble: &Trouble) -> Outcome {
        let plugin = self.plan.steps[at].label.clone();
        match trouble {
            Trouble::Stopping => Outcome::Busy("the plugins here are being stopped".to_owned()),
            Trouble::Resting(reason) => self.unasked(reason.clone()),
            Trouble::Start(error @ Error::Full(_)) => self.unasked(error.to_string()),
            Trouble::Start(error) => Outcome::Failed { plugin: Some(plugin), reason: error.to_string() },
            Trouble::Guest(Failure::Fault { action, code, reason }) => self.complained(plugin, *action, code, reason),
            Trouble::Guest(failure) => Outcome::Failed { plugin: Some(plugin), reason: failure.to_string() },
        }
    }

    /// The plugin could not be asked, through no fault of the message.
    fn unasked(&self, reason: String) -> Outcome {
        self.counters.unasked.fetch_add(1, Ordering::Relaxed);
        if self.plan.lenient { Outcome::Unchanged } else { Outcome::Busy(reason) }
    }

    fn count(&mut self, outcomes: &[Outcome], start: Instant) {
        let failed = outcomes.iter().filter_map(|outcome| match outcome {
            Outcome::Failed { plugin, reason } => Some((plugin.as_deref(), reason.as_str())),
            _ => None,
        });
        let failed: Vec<(Option<&str>, &str)> = failed.collect();
        let count = failed.len();
        self.counters.failed.fetch_add(count as u64, Ordering::Relaxed);
        let busy = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.counters.busy_ns.fetch_add(busy, Ordering::Relaxed);
        if let Some((plugin, reason)) = failed.first()
            && self.told.is_none_or(|told| told.elapsed().as_secs() >= TELL_SECONDS)
        {
            self.told = Some(Instant::now());
            let context = Context { step: plugin.unwrap_or_default().to_owned(), ..self.plan.context.clone() };
            let message = format!("{}: failed on {count} of {} messages: {reason}", self.plan.place, outcomes.len());
            let step = self.plan.steps.iter().find(|step| Some(step.label.as_str()) == *plugin);
            let plugin = step.map_or("", |step| step.plugin.digest());
            self.logs.log(&LogLine { context: &context, plugin, level: Level::Error, message: &message, fields: &[] });
        }
    }
}

fn kept(outcomes: &mut [Outcome], index: usize) -> Record {
    match &mut outcomes[index] {
        Outcome::Kept(record, _) => std::mem::take(record),
        _ => Record::default(),
    }
}

fn filtered(verdict: &Verdict, part: &[usize], outcomes: &mut [Outcome]) -> Vec<Said> {
    let said = |(at, index): (usize, &usize)| match verdict.failed.iter().find(|failed| failed.index == at) {
        Some(failed) => Said::Fail(failed.clone()),
        None if verdict.keeps(at) => Said::Keep(kept(outcomes, *index), 0),
        None => Said::Drop,
    };
    part.iter().enumerate().map(said).collect()
}

fn transformed(output: Output, part: &[usize], outcomes: &mut [Outcome]) -> Vec<Said> {
    let mut said: Vec<(usize, Said)> = part.iter().map(|_| (0, Said::Drop)).collect();
    for produced in output.produced {
        let (at, sink) = (produced.origin, produced.target);
        let (count, said) = &mut said[at];
        *count += 1;
        *said = match count {
            1 => Said::Keep(produced.applied_to(&kept(outcomes, part[at])), sink),
            count => Said::TooMany(*count),
        };
    }
    for failed in output.failed {
        let at = failed.index;
        said[at].1 = Said::Fail(failed);
    }
    said.into_iter().map(|(_, said)| said).collect()
}

#[cfg(test)]
mod tests {
    use sluice_runtime::Produced;

    use super::*;

    #[test]
    fn one_message_becomes_one_or_none() {
        let record = |offset| Record { offset, ..Record::default() };
        let mut outcomes: Vec<Outcome> = (0..4).map(|offset| Outcome::Kept(record(offset), 0)).collect();
        let produced = |origin, target| Produced { origin, target, ..Produced::default() };
        let failure = RecordFailure { index: 2, action: Action::Stop, code: "c".into(), reason: "r".into() };
        let output = Output { produced: vec![produced(0, 3), produced(1, 0), produced(1, 0)], failed: vec![failure] };
        let said = transformed(output, &[1, 2, 3], &mut outcomes);
        assert!(matches!(&said[0], Said::Keep(kept, 3) if kept.offset == 1));
        assert!(matches!(said[1], Said::TooMany(2)));
        assert!(matches!(said[2], Said::Fail(_)));
        let none = transformed(Output::default(), &[0], &mut outcomes);
        assert!(matches!(none[0], Said::Drop));
    }

    #[test]
    fn what_cannot_run_fails_and_lets_pass_what_may() {
        for lenient in [false, true] {
            let plan = Plan { broken: Some("gone".into()), lenient, ..Plan::open("here".into()) };
            let counters = Arc::new(Counters::default());
            let mut judge =
                Judge::new((Arc::new(plan), Arc::new([])), 0, Arc::default(), counters.clone(), Arc::default());
            let outcomes = judge.run(vec![Ok(Record::default()), Err("unreadable".into())], &[1, 2], &Calls::default());
            let passed = outcomes.iter().filter(|outcome| matches!(outcome, Outcome::Unchanged)).count();
            assert_eq!((outcomes.len(), passed), (2, if lenient { 2 } else { 0 }));
            assert_eq!(counters.failed.load(Ordering::Relaxed), 2);
        }
    }
}
