//! One step over a run of records: the call, and the search for the one record that ends it.

use std::borrow::Cow;
use std::time::{Duration, Instant};

use crate::batch::{Batch, Record};
use crate::bindings::Action;
use crate::error::Failure;
use crate::output::{self, Output, RecordFailure, Verdict};
use crate::ports::Room;

/// Failures that a processor names in one turn: each costs a call with the records that are left.
const NAMED: usize = 32;
/// Calls that fail in one turn, and how long the calls of one step go on in it: then the turn ends behind the next record that is done.
const FAILING: usize = 64;
const RUN_FOR: Duration = Duration::from_secs(1);

/// A record between two steps.
#[derive(Clone, Debug)]
pub(crate) struct Flow<'r> {
    /// The source's own until a step makes another of it: to share its bytes, and let go of them, costs as much as many a plugin does.
    pub(crate) record: Cow<'r, Record>,
    /// Index of the source record in the turn's batch.
    pub(crate) source: usize,
    pub(crate) target: usize,
}

/// What a step made of its records.
#[derive(Default)]
pub(crate) struct Ran<'r> {
    pub(crate) flows: Vec<Flow<'r>>,
    /// Records that were tried; those behind `cut` were not.
    pub(crate) tried: u64,
    /// Failures by source record.
    pub(crate) failed: Vec<(usize, Fall)>,
    /// The source record that ended the step: none after it was tried.
    pub(crate) cut: Option<usize>,
    /// Source records, first and last of each stretch, among which are all that may have left something in the state.
    pub(crate) entered: Vec<(usize, usize)>,
    pub(crate) deadline_missed: bool,
    /// The source record that ended the step before it was tried for good: a timer that it brings is what failed.
    pub(crate) bringer: Option<usize>,
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
        Failure::Trap { stack, .. } if !stack.is_empty() => {
            let names: Vec<String> = stack.iter().map(|name| rust_name(name)).collect();
            format!("{failure}, in {}", names.join(" < "))
        }
        other => other.to_string(),
    }
}

/// A Rust symbol without its hash; other names as they are.
fn rust_name(symbol: &str) -> String {
    output::short(format!("{:#}", rustc_demangle::demangle(symbol)), 200)
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
    /// It ran event-time timers as well, of which a failure may be; that of a single record is.
    pub(crate) timers: bool,
}

/// Where a run ends though there are more records: the others are left for the next turn.
#[derive(Clone, Copy)]
pub(crate) struct Bounds {
    /// Records that are found to fail alone.
    pub(crate) falls: usize,
    /// What it makes.
    pub(crate) room: Room,
}

/// Runs the call over all flows, a batch of some of them at a time. If it fails as a whole, halves them until a record is found that fails alone; the records before it stand.
///
/// Behind the bounds, a call that missed its deadline, or [`FAILING`] calls that failed, the others are left for the next turn, so a turn
/// makes at most a few dozen calls more than its records need, whatever the plugin does. A cut never parts what came of one source record.
///
/// # Errors
/// Those of `call`'s outer result: no call was possible, for a reason that is not the records'.
pub(crate) fn run<'r, E>(
    flows: Vec<Flow<'r>>,
    batch: &mut Batch,
    attempt: impl Fn(usize) -> u16,
    bounds: Bounds,
    mut call: impl FnMut(&Batch, &[Flow<'r>]) -> Result<Called, E>,
) -> Result<Ran<'r>, E> {
    let (mut ran, mut falls, mut named, mut failing, mut made) = (Ran::default(), 0, 0, 0, 0);
    let began = Instant::now();
    let mut todo = Todo(vec![flows]);
    while let Some(mut part) = todo.0.pop() {
        if part.is_empty() {
            continue;
        }
        batch.clear();
        let taken = batch.extend(part.iter().map(|flow| (&*flow.record, attempt(flow.source))));
        if taken == 0 {
            let size = part[0].record.size();
            let reason = format!("the record has {size} bytes, more than a batch may hold");
            ran.fall(part[0].source, Fall { action: Action::DeadLetter, code: "too-large".into(), reason });
            ran.cut = Some(part[0].source);
            return Ok(ran);
        }
        todo.0.push(part.split_off(taken));
        let Called { answer, full, timers } = call(batch, &part)?;
        let (first, last) = (part[0].source, part[part.len() - 1].source);
        let failed = matches!(answer, Err(_) | Ok(Answer::Without { .. }));
        failing += usize::from(failed);
        let tired = failing >= FAILING || began.elapsed() >= RUN_FOR;
        if failed && timers && part.len() == 1 {
            ran.bringer = Some(first);
            return Ok(ran);
        }
        match answer {
            // Which of the records brought the timers is seen when it is alone.
            Ok(Answer::Without { index, .. }) if timers => {
                let behind = part.split_off(index + 1);
                let alone = part.split_off(index);
                let at = alone[0].source;
                todo.0.extend([behind, alone, part]);
                if tired {
                    ran.cut = todo.end_behind(at).then_some(at).or(ran.cut);
                }
            }
            Ok(Answer::Without { index, fall }) => {
                let behind = part.split_off(index + 1);
                let Some(flow) = part.pop() else { continue };
                ran.fall(flow.source, fall);
                named += 1;
                todo.0.push(behind);
                if named >= NAMED || tired {
                    ran.cut = Some(flow.source);
                    todo.end_behind(flow.source);
                }
                todo.0.push(part);
            }
            Ok(answer) => {
                ran.entered.push((first, last));
                ran.tried += part.len() as u64;
                made += ran.accept(part, answer);
                let full = full || made > bounds.room.bytes || ran.flows.len() > bounds.room.outputs;
                if full || tired {
                    ran.cut = todo.end_behind(last).then_some(last).or(ran.cut);
                }
            }
            Err(Failure::Fault { action, code, reason }) => {
                let fall = Fall { action, code, reason };
                part.iter().for_each(|flow| ran.fall(flow.source, fall.clone()));
                if tired {
                    ran.cut = todo.end_behind(last).then_some(last).or(ran.cut);
                }
            }
            Err(failure) => {
                let missed = matches!(failure, Failure::Deadline { .. });
                ran.deadline_missed |= missed;
                if part.len() == 1 {
                    ran.fall(first, Fall::of(&failure));
                    falls += 1;
                    if falls >= bounds.falls || missed || tired {
                        ran.cut = Some(first);
                        return Ok(ran);
                    }
                    continue;
                }
                let right = part.split_off(part.len() / 2);
                todo.0.push(right);
                if missed || tired {
                    // Where each record takes long, the other half would miss it as well: it has the next turn, which is smaller.
                    let last = part[part.len() - 1].source;
                    ran.cut = todo.end_behind(last).then_some(last).or(ran.cut);
                }
                todo.0.push(part);
            }
        }
    }
    Ok(ran)
}

/// Runs still to be tried, the next on top.
struct Todo<'r>(Vec<Vec<Flow<'r>>>);

impl Todo<'_> {
    /// Leaves away what came of sources behind this one; whether there was something.
    fn end_behind(&mut self, last: usize) -> bool {
        let count = |todo: &Self| todo.0.iter().map(Vec::len).sum::<usize>();
        let before = count(self);
        self.0.iter_mut().for_each(|part| part.retain(|flow| flow.source <= last));
        count(self) < before
    }
}

impl<'r> Ran<'r> {
    fn fall(&mut self, source: usize, fall: Fall) {
        self.tried += 1;
        self.failed.push((source, fall));
    }

    fn fail_all(&mut self, part: &[Flow<'r>], failed: Vec<RecordFailure>) {
        for RecordFailure { index, action, code, reason } in failed {
            self.failed.push((part[index].source, Fall { action, code, reason }));
        }
    }

    /// Gives how many bytes came of it.
    fn accept(&mut self, mut part: Vec<Flow<'r>>, answer: Answer) -> usize {
        let before = self.flows.len();
        match answer {
            // Handled where the parts are made.
            Answer::Without { .. } => {}
            Answer::Verdict(verdict) => {
                self.fail_all(&part, verdict.failed.clone());
                let mut index = 0..;
                part.retain(|_| index.next().is_some_and(|index| verdict.keeps(index)));
                self.flows.append(&mut part);
            }
            Answer::Output(Output { produced, failed }) => {
                self.fail_all(&part, failed);
                self.flows.reserve(produced.len());
                for item in produced {
                    let from = &part[item.origin];
                    let target = item.target;
                    let record = Cow::Owned(item.applied_to(&from.record));
                    self.flows.push(Flow { record, source: from.source, target });
                }
            }
        }
        self.flows[before..].iter().map(|flow| flow.record.size()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bindings::Columns;
    use crate::output::Produced;
    use std::convert::Infallible;

    fn bounds(falls: usize) -> Bounds {
        Bounds { falls, room: Room { outputs: 5_000, bytes: 1_000_000, state: usize::MAX } }
    }

    fn flows(n: usize) -> Vec<Flow<'static>> {
        let record = |i: usize| Record { offset: i as u64, stored_at: i as u64, ..Record::default() };
        (0..n).map(|i| Flow { record: Cow::Owned(record(i)), source: i, target: 0 }).collect()
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
            bounds(1),
            |batch, _| {
                calls += 1;
                let last = usize::try_from(batch.time()).unwrap();
                let answer = if (last + 1 - batch.len()..=last).contains(&700) {
                    let stack = ["_ZN4shop5inner17h0123456789abcdefE", "outer"].map(String::from);
                    Err(Failure::Trap { message: "boom".into(), stack: stack.into() })
                } else {
                    crate::output::check_verdict(
                        crate::bindings::sluice::plugin::types::Verdict { keep: vec![], failed: vec![] },
                        batch.len(),
                    )
                    .map(Answer::Verdict)
                    .map_err(Failure::Nonsense)
                };
                Ok(Called { answer, full: false, timers: false })
            },
        )
        .unwrap();
        assert_eq!(ran.flows.len(), 700);
        assert_eq!(ran.cut, Some(700));
        assert_eq!(ran.failed[0].1.reason, "the plugin trapped: boom, in shop::inner < outer");
        assert!(calls <= 22, "{calls} calls");
    }

    #[test]
    fn several_are_found_in_one_turn_and_one_that_takes_its_deadline_is_the_last() {
        let found = |most, failure: fn() -> Failure| {
            let mut calls = 0;
            let ran = ran(flows(512), most, |_| {
                calls += 1;
                (Err(failure()), false)
            });
            (ran.failed.iter().map(|(source, _)| *source).collect::<Vec<_>>(), ran.cut, calls)
        };
        let trap = || Failure::Trap { message: "boom".into(), stack: vec![] };
        assert_eq!(found(1, trap), (vec![0], Some(0), 10));
        // From 512 down to the first are ten calls; seven more records cost eleven.
        assert_eq!(found(8, trap), ((0..8).collect(), Some(7), 21));
        let deadline = || Failure::Deadline { limit: std::time::Duration::from_millis(1) };
        assert_eq!(found(8, deadline), (vec![0], Some(0), 10));
    }

    /// A run whose calls answer so, full or not.
    fn ran(
        flows: Vec<Flow<'static>>,
        most: usize,
        mut answer: impl FnMut(&[Flow<'_>]) -> (Result<Answer, Failure>, bool),
    ) -> Ran<'static> {
        let mut batch = Batch::new(Columns::empty(), 0);
        let call = |_: &Batch, part: &[Flow<'_>]| {
            let (answer, full) = answer(part);
            Ok::<_, Infallible>(Called { answer, full, timers: false })
        };
        run(flows, &mut batch, |_| 0, bounds(most), call).unwrap()
    }

    fn passed(part: &[Flow<'_>]) -> Result<Answer, Failure> {
        let all = crate::bindings::sluice::plugin::types::Verdict { keep: vec![], failed: vec![] };
        crate::output::check_verdict(all, part.len()).map(Answer::Verdict).map_err(Failure::Nonsense)
    }

    #[test]
    fn records_that_each_take_long_are_not_all_tried_in_one_turn() {
        let mut calls = 0;
        let ran = ran(flows(512), 8, |part| {
            calls += 1;
            let late = Failure::Deadline { limit: std::time::Duration::from_millis(1) };
            (if part.len() > 1 { Err(late) } else { passed(part) }, false)
        });
        assert_eq!((ran.flows.len(), ran.cut, ran.failed.len(), calls), (1, Some(0), 0, 10));
    }

    #[test]
    fn a_processor_that_names_a_failure_each_time_is_not_asked_without_end() {
        let mut calls = 0;
        let ran = ran(flows(512), 1, |part| {
            calls += 1;
            // It works for even records.
            let failed = part.iter().position(|flow| flow.source % 2 == 1);
            let fall = Fall { action: Action::Skip, code: "odd".into(), reason: String::new() };
            (failed.map_or_else(|| passed(part), |index| Ok(Answer::Without { index, fall })), false)
        });
        assert_eq!((ran.failed.len(), ran.cut, ran.flows.len()), (NAMED, Some(2 * NAMED - 1), NAMED));
        assert_eq!(calls, 2 * NAMED);
    }

    #[test]
    fn a_turn_that_is_full_ends_behind_all_that_came_of_a_record() {
        // Four of each source; the first call takes two of the second.
        let flows: Vec<Flow<'_>> = flows(40).into_iter().map(|flow| Flow { source: flow.source / 4, ..flow }).collect();
        let mut calls = Vec::new();
        let ran = ran(flows, 1, |part| {
            calls.push(part.len());
            let trap = Failure::Trap { message: "too many".into(), stack: vec![] };
            (if part.len() > 6 { Err(trap) } else { passed(part) }, true)
        });
        assert_eq!((ran.cut, ran.flows.len()), (Some(1), 8), "{calls:?}");
    }

    /// An answer that makes a value of so many bytes of each record.
    fn values(part: &[Flow<'_>], bytes: usize) -> Result<Answer, Failure> {
        let value = |origin| Produced { origin, value: Some(vec![0; bytes].into()), ..Produced::default() };
        Ok(Answer::Output(Output { produced: (0..part.len()).map(value).collect(), failed: vec![] }))
    }

    #[test]
    fn what_a_turn_makes_has_a_bound_however_it_is_asked() {
        let mut calls = 0;
        let ran = ran(flows(512), 1, |part| {
            calls += 1;
            let nonsense = Err(Failure::Nonsense("one by one, please".into()));
            (if part.len() > 1 { nonsense } else { values(part, 300_000) }, false)
        });
        assert_eq!((ran.flows.len(), ran.cut, ran.failed.len()), (4, Some(3), 0));
        assert!(calls < 20, "{calls}");
    }

    #[test]
    fn who_fails_on_all_but_single_records_is_not_asked_for_all_of_them_in_one_turn() {
        let mut calls = 0;
        let ran = ran(flows(512), 1, |part| {
            calls += 1;
            let nonsense = Err(Failure::Nonsense("one by one, please".into()));
            (if part.len() > 1 { nonsense } else { values(part, 1) }, false)
        });
        assert!(calls < 3 * FAILING && ran.cut == Some(ran.flows.len() - 1), "{calls}, {:?}", ran.cut);
        assert!(ran.flows.len() > 30, "{}", ran.flows.len());
    }
}
