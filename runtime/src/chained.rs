//! What the steps of a chain made of a turn's records, and what is to become of those that failed.

use std::borrow::Cow;
use std::collections::{BTreeMap, btree_map::Entry};
use std::time::Duration;

use crate::batch::Record;
use crate::bindings::Action;
use crate::bisect::{Fall, Flow, Ran};
use crate::ports::{DeadLetter, Room, Unfit};
use crate::state::Timer;

/// By source record: the step that failed on it, and how.
pub(crate) type Falls = BTreeMap<usize, (usize, Fall)>;

/// The chain's result.
pub(crate) struct Chained<'r> {
    pub(crate) flows: Vec<Flow<'r>>,
    pub(crate) falls: Falls,
    /// The records that fell in this chain, not before it.
    fell: Vec<usize>,
    /// Source records before this one were tried.
    pub(crate) done: usize,
    /// Source records before this one may have left something in the state.
    pub(crate) touched: usize,
    /// Steps that keep state, with the first and last source of each stretch of records that they took.
    kept: Vec<(usize, usize, usize)>,
    /// The record that ends the turn, and the step that failed on a timer which it brought.
    pub(crate) bringer: Option<(usize, usize)>,
    pub(crate) deadline_missed: bool,
}

/// What the policy says of a chain's failures.
#[derive(Default)]
pub(crate) struct Settled {
    pub(crate) dead_letters: Vec<DeadLetter>,
    pub(crate) skipped: u64,
    pub(crate) end: End,
}

/// Why a turn ends before all of its records are done.
#[derive(Default)]
pub(crate) enum End {
    #[default]
    None,
    /// The record with this offset failed so many times, and is tried again after a while.
    Retry {
        offset: u64,
        tries: u32,
        wait: Duration,
    },
    /// The same of a timer.
    RetryTimer {
        timer: Timer,
        tries: u32,
        wait: Duration,
    },
    /// A step failed on a timer that the record's time brought: its timers are fired first.
    Bringer(Bringer),
    Stop(String),
}

/// What a turn begins with.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Head {
    /// The record with this offset.
    Record(u64),
    /// A processing-time timer: what a processor behind its own gets of it may bring timers there.
    Timers,
}

/// A record before which the event-time timers of a step are to be fired one by one.
#[derive(Clone, Copy)]
pub(crate) struct Bringer {
    pub(crate) step: usize,
    pub(crate) head: Head,
    /// Its event time.
    pub(crate) time: u64,
    pub(crate) stored_at: u64,
    /// How many more turns that may take.
    pub(crate) turns: u32,
}

impl<'r> Chained<'r> {
    /// The records as they come to the first step; those that fell already are left out.
    pub(crate) fn begin(records: &'r [Record], left_out: &Falls) -> Self {
        let mut falls = left_out.clone();
        for (source, record) in records.iter().enumerate() {
            if let Some(problem) = &record.unreadable {
                let (action, code, reason) = (Action::DeadLetter, "unreadable".into(), problem.to_string());
                falls.entry(source).or_insert((0, Fall { action, code, reason }));
            }
        }
        let flow = |(source, record)| Flow { record: Cow::Borrowed(record), source, target: 0 };
        let mut flows = Vec::with_capacity(records.len());
        flows.extend(records.iter().enumerate().map(flow));
        if !falls.is_empty() {
            flows.retain(|flow| !falls.contains_key(&flow.source));
        }
        let (done, fell, kept) = (records.len(), Vec::new(), Vec::new());
        Self { flows, falls, fell, done, touched: 0, kept, bringer: None, deadline_missed: false }
    }

    /// Apart from the records that it began with.
    pub(crate) fn into_owned(self) -> Chained<'static> {
        let own =
            |Flow { record, source, target }| Flow { record: Cow::Owned(Cow::into_owned(record)), source, target };
        Chained { flows: self.flows.into_iter().map(own).collect(), ..self }
    }

    /// The first fall of a record stands.
    fn fall(&mut self, source: usize, step: usize, fall: Fall) {
        if let Entry::Vacant(place) = self.falls.entry(source) {
            place.insert((step, fall));
            self.fell.push(source);
        }
    }

    /// Takes over what a step did.
    pub(crate) fn ran(&mut self, step: usize, keeps_state: bool, ran: Ran<'r>) {
        self.deadline_missed |= ran.deadline_missed;
        if keeps_state {
            let last = ran.entered.iter().map(|(_, last)| last + 1).max();
            self.touched = self.touched.max(last.unwrap_or(0));
            self.kept.extend(ran.entered.into_iter().map(|(first, last)| (step, first, last)));
        }
        if let Some(cut) = ran.cut {
            self.done = self.done.min(cut + 1);
        }
        if let Some(source) = ran.bringer {
            self.done = self.done.min(source);
            self.bringer = Some((step, source));
        }
        for (source, fall) in ran.failed {
            self.fall(source, step, fall);
        }
        self.flows = ran.flows;
        self.drop_flows();
    }

    /// Cuts the chain where a unit has no room for more; a record that is too much for it alone falls.
    pub(crate) fn fit(&mut self, step: usize, room: &Room) {
        let mut bytes = 0;
        let no_room = |(at, flow): (usize, &Flow<'_>)| {
            bytes += flow.record.size();
            (at >= room.outputs || bytes > room.bytes).then_some(flow.source)
        };
        let Some(source) = self.flows.iter().enumerate().find_map(no_room) else { return };
        if self.flows[0].source == source {
            let reason = format!("one record became more than {} records or {} bytes", room.outputs, room.bytes);
            let fall = Fall { action: Action::DeadLetter, code: "too-much-output".into(), reason };
            self.fall(source, step, fall);
            self.done = self.done.min(source + 1);
        } else {
            self.done = self.done.min(source);
        }
        self.drop_flows();
    }

    /// Has records fall of which something came that no sink takes.
    pub(crate) fn check(&mut self, step: usize, check: impl Fn(&Record) -> Result<(), Unfit>) {
        let refused = |flow: &Flow<'_>| Some((flow.source, check(&flow.record).err()?));
        for (source, unfit) in self.flows.iter().filter_map(refused).collect::<Vec<_>>() {
            let code = unfit.code().into();
            let fall = Fall { action: Action::DeadLetter, code, reason: unfit.into_reason() };
            self.fall(source, step, fall);
        }
        self.drop_flows();
    }

    /// What became of records that are not done, or fell, goes no further.
    pub(crate) fn drop_flows(&mut self) {
        let (done, falls) = (self.done, &self.falls);
        if !falls.is_empty() || self.flows.last().is_some_and(|flow| flow.source >= done) {
            self.flows.retain(|flow| flow.source < done && !falls.contains_key(&flow.source));
        }
    }

    /// The records, in order, that fell behind a step which keeps something of them.
    pub(crate) fn traces(&self) -> Vec<usize> {
        let keeps = |source: usize, fell: usize| {
            self.kept.iter().any(|(step, first, last)| *step <= fell && (*first..=*last).contains(&source))
        };
        let fell_at = |source: usize| self.falls.get(&source).map_or(0, |(step, _)| *step);
        let fell = self.fell.iter().copied().filter(|source| *source < self.done);
        let mut traces: Vec<usize> = fell.filter(|source| keeps(*source, fell_at(*source))).collect();
        traces.sort_unstable();
        traces
    }

    /// How many of its records became nothing, though they did not fail.
    pub(crate) fn dropped(&self, failed: u64) -> u64 {
        let mut seen = vec![false; self.done];
        for flow in &self.flows {
            seen[flow.source] = true;
        }
        let sources = seen.iter().filter(|seen| **seen).count() as u64;
        (self.done as u64).saturating_sub(sources + failed)
    }
}
