//! The process dies at every call that changes the disk, and what was not synced is kept, dropped or torn.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may stop where it fails")]

#[path = "kit/mod.rs"]
mod kit;

use kit::{
    World,
    driver::{Driver, History, Step, only_the_log, reopen},
    small,
};
use sluice_storage::{
    Config,
    fake::{FakeDisk, Fate},
};

fn config() -> Config {
    Config { segment_len: 8192, ..small() }
}

/// A bit of everything: units across segments, a deletion and a return of a topic, checkpoints, marks, retention, messages that expire.
fn script() -> Vec<Step> {
    let mut steps = Vec::new();
    for round in 0..10u8 {
        steps.push(Step::Append(vec![(0, 0, 300)]));
        steps.push(Step::Append(vec![(0, 1, 20), (1, 0, 700), (0, 0, 5)]));
        steps.push(Step::Sync);
        steps.push(Step::Append(vec![(2, round % 2, 900), (2, 0, 10)]));
        steps.push(Step::Apply);
        match round {
            2 | 5 | 8 => steps.push(Step::Checkpoint),
            // A round goes by while the draft is out, once with a deletion.
            1 | 4 => steps.push(Step::Draft),
            3 | 6 => steps.extend([Step::Mark, Step::Ahead]),
            _ => {}
        }
        match round {
            4 => steps.extend([Step::Delete(0), Step::Append(vec![(0, 0, 1), (0, 2, 2)])]),
            6 => steps.push(Step::Expire(2, 150)),
            7 | 9 => steps.extend([Step::Retain(12_000), Step::Expire(0, 100)]),
            _ => {}
        }
        steps.push(Step::Sync);
        steps.push(Step::Apply);
    }
    steps
}

/// Runs the script until it ends or the process dies.
fn run(disk: &FakeDisk, steps: &[Step]) -> History {
    match World::open(disk, config()) {
        Err(error) => {
            assert!(disk.is_dead(), "{error}");
            History::default()
        }
        Ok(world) => {
            let mut driver = Driver::new(world, History::default());
            if let Err(error) = driver.run(steps) {
                assert!(disk.is_dead(), "{error}");
            }
            driver.history
        }
    }
}

fn more() -> Vec<Step> {
    let unit = Step::Append(vec![(0, 0, 40), (3, 1, 400)]);
    vec![unit.clone(), Step::Sync, Step::Apply, Step::Checkpoint, unit, Step::Sync, Step::Apply]
}

/// Crashes at every call of the script, recovers, checks, goes on, and recovers again.
fn crash_everywhere(fate: Fate) {
    let whole = FakeDisk::new();
    let history = run(&whole, &script());
    assert_eq!(history.durable_units, history.units.len());
    let calls = whole.mutating_calls();
    assert!(calls > 200, "the script makes {calls} calls");
    for call in 1..=calls {
        let disk = FakeDisk::new();
        disk.crash_at(call);
        let history = run(&disk, &script());
        let left = disk.crash(fate, call);
        let (world, survived) = reopen(&left, &config(), &history);
        if world.log.reader.start().0 == 0 {
            let (fresh, _) = reopen(&only_the_log(&left), &config(), &survived);
            assert_eq!(fresh.views, world.views, "call {call}, {fate:?}");
        }
        let mut driver = Driver::new(world, survived);
        driver.run(&more()).unwrap_or_else(|error| panic!("call {call}, {fate:?}: {error}"));
        reopen(&left.crash(Fate::Dropped, 0), &config(), &driver.history);
    }
}

#[test]
fn what_was_durable_is_there_when_all_else_is_kept() {
    crash_everywhere(Fate::Kept);
}

#[test]
fn what_was_durable_is_there_when_all_else_is_gone() {
    crash_everywhere(Fate::Dropped);
}

#[test]
fn what_was_durable_is_there_when_all_else_is_torn() {
    crash_everywhere(Fate::Torn);
}

#[test]
fn recovery_itself_may_be_cut_short_at_any_call() {
    let whole = FakeDisk::new();
    run(&whole, &script());
    for call in (1..whole.mutating_calls()).step_by(13) {
        let disk = FakeDisk::new();
        disk.crash_at(call);
        let history = run(&disk, &script());
        let left = disk.crash(Fate::Torn, call);
        for again in 1.. {
            let second = left.crash(Fate::Kept, 0);
            second.crash_at(again);
            let opened = World::open(&second, config());
            reopen(&second.crash(Fate::Torn, again), &config(), &history);
            if opened.is_ok() {
                break;
            }
        }
    }
}
