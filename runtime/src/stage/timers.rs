//! Timers that are due: fired in turns of their own.

use crate::batch::Record;
use crate::bisect::{self, Bounds};
use crate::chained::{Bringer, Chained, Falls, Head};
use crate::error::Error;
use crate::ports::Sink;
use crate::state::{Domain, Timer};
use crate::step::{Home, Running};

use super::{FALLS, Stage, Turn, Work, roll_back};

/// How often the clock of processing-time timers ticks at the most, milliseconds: one that sets itself again makes no more units than that.
const TIMER_TICK: u64 = 10;

/// Timers of a step that are due.
pub(super) struct DueTimers {
    step: usize,
    /// By the clock of their domain, milliseconds since 1970.
    until: u64,
    /// The broker's time at which they are fired.
    at: u64,
    /// The record that brings them, if they are event-time timers.
    brought_by: Option<Bringer>,
}

/// Timers that were taken out, and the records that they count as.
#[derive(Default)]
pub(super) struct Fired {
    pub timers: Vec<Timer>,
    pub records: Vec<Record>,
}

impl Stage {
    /// When the first processing-time timer is to be fired, milliseconds since 1970.
    #[must_use]
    pub fn next_timer(&self) -> Option<u64> {
        let mut place = self.plan.state.as_ref()?.partition.lock();
        // A state that cannot be read stops the stage at its next turn.
        let due = |step: &Running| step.next_timer(Domain::ProcessingTime, &mut place).unwrap_or(Some(0));
        let first = self.steps.iter().filter_map(due).min()?;
        Some(if first <= self.tick { first } else { first.max(self.next_tick()) })
    }

    fn next_tick(&self) -> u64 {
        self.tick.saturating_add(TIMER_TICK)
    }

    /// Tells processors that timers are due, and commits what comes of it. `None`: no timer is due.
    pub(super) fn fire_timers(&mut self, sink: &mut dyn Sink, now: u64, home: &mut Home) -> Option<Turn> {
        // A clock that was set back ticks all the same.
        let ticks = now >= self.next_tick() || now < self.tick;
        let until = if ticks { now } else { self.tick };
        for step in 0..self.steps.len() {
            match self.steps[step].next_timer(Domain::ProcessingTime, home) {
                Ok(Some(due)) if due <= until => {}
                Ok(_) => continue,
                Err(problem) => return Some(self.stop(problem.to_string())),
            }
            (self.fired, self.tick) = (true, until);
            return Some(self.run_timers(&DueTimers { step, until, at: now, brought_by: None }, sink, home));
        }
        None
    }

    /// Fires the event-time timers that the record at the head brings, when one of them is what fails. `None`: none is, or all are fired.
    pub(super) fn fire_brought(&mut self, sink: &mut dyn Sink, home: &mut Home) -> Option<Turn> {
        let bringer = self.bringer.take()?;
        let Bringer { step, head, time, stored_at, turns } = bringer;
        let due = self.steps[step].advance(time, home).and_then(|()| {
            let lateness = self.plan.state.as_ref().map_or(0, |state| state.lateness);
            let until = self.steps[step].clock(home)?.saturating_sub(lateness);
            let due = self.steps[step].next_timer(Domain::EventTime, home)?.filter(|due| *due <= until);
            Ok(due.map(|_| DueTimers { step, until, at: stored_at, brought_by: Some(bringer) }))
        });
        match due {
            Ok(Some(due)) if turns > 0 => {
                self.bringer = Some(Bringer { turns: turns - 1, ..bringer });
                let turn = self.run_timers(&due, sink, home);
                if matches!(turn, Turn::Wait(_)) {
                    self.bringer = Some(bringer);
                }
                Some(turn)
            }
            Ok(_) => {
                self.cleared = Some(head);
                roll_back(home).err().map(|problem| self.stop(problem.to_string()))
            }
            Err(problem) => Some(self.trouble(problem.into(), home)),
        }
    }

    fn run_timers(&mut self, due: &DueTimers, sink: &mut dyn Sink, home: &mut Home) -> Turn {
        match self.run(&Work::Timers(due), sink, home) {
            Ok((timers, chained, settled)) => self.commit(&timers, self.position, chained, settled, sink, home),
            Err(e) => self.trouble(e, home),
        }
    }

    /// At most so many timers of one step that are due, as records, and the chain behind it over what comes of them.
    pub(super) fn fire(
        &mut self,
        due: &DueTimers,
        most: usize,
        left_out: &Falls,
        sink: &dyn Sink,
        home: &mut Home,
    ) -> Result<(Fired, Chained<'static>), Error> {
        let DueTimers { step, until, at, brought_by } = *due;
        let running = &self.steps[step];
        let domain = if brought_by.is_some() { Domain::EventTime } else { Domain::ProcessingTime };
        if let Some(Bringer { time, .. }) = brought_by {
            running.advance(time, home)?;
        }
        // What comes behind one that is tried again would be done for nothing should it fail.
        let most = if self.timer_retry.is_some() { 1 } else { most };
        let timers = running.take_timers(domain, until, most, home)?;
        let newest = running.clock(home)?;
        let as_record = |timer: &Timer| Record {
            offset: self.position,
            key: Some(timer.key.clone().into()),
            // Not newer than what the step has seen: behind a backlog the event clock of the steps after it stays where it is.
            born_at: brought_by.map_or(timer.due.min(newest), |bringer| bringer.time),
            stored_at: at,
            ..Record::default()
        };
        let records: Vec<Record> = timers.iter().map(as_record).collect();
        let mut chained = Chained::begin(&records, left_out);
        let before = self.cpu();
        let (plan, running) = (&self.plan, &mut self.steps[step]);
        let (mut batch, mut held) = (std::mem::take(&mut running.batch), running.instance.take());
        let flows = std::mem::take(&mut chained.flows);
        let ran = bisect::run(
            flows,
            &mut batch,
            |_| 0,
            Bounds { falls: FALLS, room: sink.room() },
            |_, part| {
                let due: Vec<Timer> = part.iter().map(|flow| timers[flow.source].clone()).collect();
                running.on_timers(plan, &mut held, &due, at, home)
            },
        );
        (running.batch, running.instance) = (batch, held);
        let ran = ran?;
        running.count(&ran);
        chained.ran(step, true, ran);
        // Those that were not tried were taken out all the same.
        chained.touched = records.len();
        self.chain_from(step + 1, &mut chained, |_| 0, Head::Timers, sink, home)?;
        if chained.deadline_missed {
            self.timer_pace.missed(timers.len());
        } else if chained.done == timers.len() {
            self.timer_pace.kept(timers.len(), self.longest_since(&before), self.plan.limits.deadline);
        }
        let chained = chained.into_owned();
        Ok((Fired { timers, records }, chained))
    }
}
