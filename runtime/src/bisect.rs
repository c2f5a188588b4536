//! One step over a run of records: the call, and the search for the one record that ends it.

use crate::batch::{Batch, Record};
use crate::bindings::Action;
use crate::error::Failure;
use crate::output::{Output, RecordFailure, Verdict};

/// A record between two steps.
#[derive(Clone, Debug)]
pub(crate) struct Flow {
    pub(crate) record: Record,
    /// Index of the source record in the turn's batch.
    pub(crate) source: usize,
    pub(crate) target: usize,
}

/// What a step made of its records.
#[derive(Default)]
pub(crate) struct Ran {
    pub(crate) flows: Vec<Flow>,
    /// Records that were tried; those behind `cut` were not.
    pub(crate) tried: u64,
    /// Failures by source record.
    pub(crate) failed: Vec<(usize, Fall)>,
    /// The source record that ended the step: none after it was tried.
    pub(crate) cut: Option<usize>,
    /// Source records before this one may have left something in the state.
    pub(crate) entered: usize,
    /// Calls that ended an instance.
    pub(crate) traps: u64,
    pub(crate) deadline_missed: bool,
}

/// Why a source record falls, and what the plugin wants done about it.
#[derive(Clone, Debug)]
pub(crate) struct Fall {
    pub(crate) action: Action,
    pub(crate) code: String,
    pub(crate) reason: String,
}

impl Fall {
    pub(crate) fn of(failure: &Failure) -> Fall {
        match failure {
            Failure::Fault { action, code, reason } => {
                Fall { action: *action, code: code.clone(), reason: reason.clone() }
            }
            other => Fall { action: Action::Retry, code: other.code().to_owned(), reason: reason_of(other) },
        }
    }
}

fn reason_of(failure: &Failure) -> String {
    match failure {
        Failure::Trap { stack, .. } if !stack.is_empty() => format!("{failure}, in {}", stack.join(" < ")),
        other => other.to_string(),
    }
}

/// A plugin's answer to one batch.
pub(crate) enum Answer {
    Verdict(Verdict),
    Output(Output),
    /// This record failed, and nothing was done about the others.
    Without {
        index: usize,
        fall: Fall,
    },
}

/// What came of a call.
pub(crate) struct Called {
    pub(crate) answer: Result<Answer, Failure>,
    /// The turn can take no more: what comes behind these records waits for the next one.
    pub(crate) full: bool,
}

/// Runs the call over all flows. If it fails as a whole, halves them until a record is found that fails alone; the records before it stand.
/// Behind `most_falls` such records, or behind one that took its deadline, the others are left for the next turn, so a turn makes at most
/// a few dozen calls whatever the plugin does.
///
/// # Errors
/// Those of `call`'s outer result, which mean that no instance could be had.
pub(crate) fn run<E>(
    flows: Vec<Flow>,
    batch: &mut Batch,
    attempt: impl Fn(usize) -> u16,
    most_falls: usize,
    mut call: impl FnMut(&Batch) -> Result<Called, E>,
) -> Result<Ran, E> {
    let (mut ran, mut falls) = (Ran::default(), 0);
    // Stack of runs still to be tried, the next on top.
    let mut todo = vec![flows];
    while let Some(mut part) = todo.pop() {
        if part.is_empty() {
            continue;
        }
        batch.clear();
        let taken = batch.extend(part.iter().map(|flow| (&flow.record, attempt(flow.source))));
        if taken == 0 {
            let size = part[0].record.size();
            let reason = format!("the record has {size} bytes, more than a batch may hold");
            ran.fall(part[0].source, Fall { action: Action::DeadLetter, code: "too-large".into(), reason });
            return Ok(ran);
        }
        let rest = part.split_off(taken);
        if !rest.is_empty() {
            todo.push(rest);
        }
        let Called { answer, full } = call(batch)?;
        match answer {
            Ok(Answer::Without { index, fall }) => {
                let behind = part.split_off(index + 1);
                ran.tried += 1;
                ran.failed.extend(part.pop().map(|flow| (flow.source, fall)));
                todo.push(behind);
                todo.push(part);
            }
            Ok(answer) => {
                let last = part.last().map_or(0, |flow| flow.source);
                ran.entered = ran.entered.max(last + 1);
                ran.tried += part.len() as u64;
                ran.accept(part, answer);
                if full && !todo.iter().all(Vec::is_empty) {
                    ran.cut = Some(last);
                    return Ok(ran);
                }
            }
            Err(Failure::Fault { action, code, reason }) => {
                let fall = Fall { action, code, reason };
                ran.tried += part.len() as u64;
                ran.failed.extend(part.iter().map(|flow| (flow.source, fall.clone())));
            }
            Err(failure) => {
                ran.traps += u64::from(!matches!(failure, Failure::Nonsense(_)));
                ran.deadline_missed |= matches!(failure, Failure::Deadline { .. });
                if part.len() == 1 {
                    ran.fall(part[0].source, Fall::of(&failure));
                    falls += 1;
                    if falls >= most_falls || ran.deadline_missed {
                        return Ok(ran);
                    }
                    ran.cut = None;
                    continue;
                }
                let right = part.split_off(part.len() / 2);
                todo.push(right);
                todo.push(part);
            }
        }
    }
    Ok(ran)
}

impl Ran {
    fn fall(&mut self, source: usize, fall: Fall) {
        self.tried += 1;
        self.failed.push((source, fall));
        self.cut = Some(source);
    }

    fn fail_all(&mut self, part: &[Flow], failed: Vec<RecordFailure>) {
        for RecordFailure { index, action, code, reason } in failed {
            self.failed.push((part[index].source, Fall { action, code, reason }));
        }
    }

    fn accept(&mut self, part: Vec<Flow>, answer: Answer) {
        match answer {
            // Handled where the parts are made.
            Answer::Without { .. } => {}
            Answer::Verdict(verdict) => {
                self.fail_all(&part, verdict.failed.clone());
                let kept = part.into_iter().enumerate().filter(|(i, _)| verdict.keeps(*i));
                self.flows.extend(kept.map(|(_, flow)| flow));
            }
            Answer::Output(Output { produced, failed }) => {
                self.fail_all(&part, failed);
                for item in produced {
                    let from = &part[item.origin];
                    let target = item.target;
                    let record = item.applied_to(&from.record);
                    self.flows.push(Flow { record, source: from.source, target });
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bindings::Columns;
    use std::convert::Infallible;

    fn flows(n: usize) -> Vec<Flow> {
        let record = |i: usize| Record { offset: i as u64, stored_at: i as u64, ..Record::default() };
        (0..n).map(|i| Flow { record: record(i), source: i, target: 0 }).collect()
    }

    #[test]
    fn one_poison_record_among_many_is_found_in_few_calls() {
        let mut batch = Batch::new(Columns::empty(), 0);
        let mut calls = 0;
        // The call sees only the newest time of its batch, which is that of its last record: the poison is record 700.
        let ran = run::<Infallible>(
            flows(1000),
            &mut batch,
            |_| 0,
            1,
            |batch| {
                calls += 1;
                let last = usize::try_from(batch.time()).unwrap();
                let answer = if (last + 1 - batch.len()..=last).contains(&700) {
                    Err(Failure::Trap { message: "boom".into(), stack: vec!["inner".into(), "outer".into()] })
                } else {
                    crate::output::check_verdict(
                        crate::bindings::sluice::plugin::types::Verdict { keep: vec![], failed: vec![] },
                        batch.len(),
                    )
                    .map(Answer::Verdict)
                    .map_err(Failure::Nonsense)
                };
                Ok(Called { answer, full: false })
            },
        )
        .unwrap();
        assert_eq!(ran.flows.len(), 700);
        assert_eq!(ran.cut, Some(700));
        assert_eq!(ran.failed[0].1.reason, "the plugin trapped: boom, in inner < outer");
        assert!(calls <= 22, "{calls} calls");
    }

    #[test]
    fn several_are_found_in_one_turn_and_one_that_takes_its_deadline_is_the_last() {
        let found = |most, failure: fn() -> Failure| {
            let (mut batch, mut calls) = (Batch::new(Columns::empty(), 0), 0);
            let ran = run::<Infallible>(
                flows(512),
                &mut batch,
                |_| 0,
                most,
                |_| {
                    calls += 1;
                    Ok(Called { answer: Err(failure()), full: false })
                },
            );
            let ran = ran.unwrap();
            (ran.failed.iter().map(|(source, _)| *source).collect::<Vec<_>>(), ran.cut, calls)
        };
        let trap = || Failure::Trap { message: "boom".into(), stack: vec![] };
        assert_eq!(found(1, trap), (vec![0], Some(0), 10));
        // From 512 down to the first are ten calls; seven more records cost eleven.
        assert_eq!(found(8, trap), ((0..8).collect(), Some(7), 21));
        let deadline = || Failure::Deadline { limit: std::time::Duration::from_millis(1) };
        assert_eq!(found(8, deadline), (vec![0], Some(0), 10));
    }
}
