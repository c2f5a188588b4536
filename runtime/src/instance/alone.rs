//! A processor without a log: for tests, and for whoever tries a plugin.

use crate::batch::{Batch, Record};
use crate::bindings::Action;
use crate::error::Failure;
use crate::output::{Output, Produced, RecordFailure};
use crate::state::{self, Domain, Partition, StateError, TIMERS_AT_ONCE, Timer};

use super::{Instance, no_processor};

impl Instance {
    /// Lets a processor handle records as a turn by itself, without a log. As in a stage, what comes of the others stands when a record
    /// fails: it is called again without it.
    ///
    /// # Errors
    /// A [`Failure`]. Then nothing of what the turn wrote stays.
    pub fn process_alone(
        &mut self,
        records: &[Record],
        outputs: usize,
        home: &mut Option<Box<Partition>>,
    ) -> Result<Output, Failure> {
        let done = self.process_around(records, outputs, home);
        let Some(partition) = home else { return done };
        let settled = match &done {
            Ok(_) => partition.keep(records.iter().map(|record| record.stored_at).max().unwrap_or(0)),
            Err(_) => partition.roll_back(),
        };
        settled.map_err(broken)?;
        done
    }

    /// Calls a processor with all of the records, and around each that fails.
    fn process_around(
        &mut self,
        records: &[Record],
        outputs: usize,
        home: &mut Option<Box<Partition>>,
    ) -> Result<Output, Failure> {
        let mut batch = Batch::new(self.plugin.manifest().needs, self.store.data().context.queue);
        let mut whole = Output::default();
        // The next on top.
        let mut todo = vec![(0, records.len())];
        while let Some((from, to)) = todo.pop() {
            if from == to {
                continue;
            }
            batch.clear();
            let end = from + batch.extend(records[from..to].iter().map(|record| (record, 0)));
            if end == from {
                let reason = format!("the record has {} bytes, more than a batch may hold", records[from].size());
                let (action, code) = (Action::DeadLetter, "too-large".to_owned());
                whole.failed.push(RecordFailure { index: from, action, code, reason });
                todo.push((from + 1, to));
                continue;
            }
            todo.push((end, to));
            let Output { produced, failed } = self.process(&batch, outputs, home)?;
            match failed.into_iter().min_by_key(|failed| failed.index) {
                None => {
                    let shifted = produced.into_iter().map(|one| Produced { origin: from + one.origin, ..one });
                    whole.produced.extend(shifted);
                }
                Some(failed) => {
                    let index = from + failed.index;
                    todo.extend([(index + 1, end), (from, index)]);
                    whole.failed.push(RecordFailure { index, ..failed });
                }
            }
        }
        Ok(whole)
    }

    /// Lets a processor handle processing-time timers as a turn by itself, without a log: those that are due at `now` by the broker's clock,
    /// milliseconds since 1970, the earliest first, and no more than 256. Gives them as well; none: no more are due. As in a stage, what comes of
    /// the others stands when one fails.
    ///
    /// # Errors
    /// A [`Failure`]. Then nothing of what the turn wrote stays, and its timers are due as before.
    pub fn fire_alone(
        &mut self,
        now: u64,
        outputs: usize,
        home: &mut Option<Box<Partition>>,
    ) -> Result<(Vec<Timer>, Output), Failure> {
        let done = self.fire_around(now, outputs, home);
        let Some(partition) = home else { return done };
        // Timers are no records, by whose time entries expire.
        let settled = if done.is_ok() { partition.keep(0) } else { partition.roll_back() };
        settled.map_err(broken)?;
        done
    }

    /// Calls a processor with all of the timers, and without each that fails.
    fn fire_around(
        &mut self,
        now: u64,
        outputs: usize,
        home: &mut Option<Box<Partition>>,
    ) -> Result<(Vec<Timer>, Output), Failure> {
        if self.process.is_none() {
            return Err(no_processor());
        }
        let Some(partition) = home else { return Err(Failure::State("it is away".into())) };
        let timers = partition.store(&state::timers_name(&self.keeps_as));
        let due = partition.take_timers(timers, Domain::ProcessingTime, now, TIMERS_AT_ONCE).map_err(broken)?;
        let mut whole = Output::default();
        let mut left: Vec<usize> = (0..due.len()).collect();
        while !left.is_empty() {
            let part: Vec<Timer> = left.iter().map(|index| due[*index].clone()).collect();
            let Output { produced, failed } = self.on_timers(&part, now, outputs, home)?;
            let Some(failed) = failed.into_iter().min_by_key(|failed| failed.index) else {
                whole.produced = produced.into_iter().map(|one| Produced { origin: left[one.origin], ..one }).collect();
                break;
            };
            let index = left.remove(failed.index);
            whole.failed.push(RecordFailure { index, ..failed });
        }
        Ok((due, whole))
    }
}

fn broken(problem: StateError) -> Failure {
    Failure::State(problem.to_string())
}
