//! Steps behind a processor: what they fail on, and what does not fit, leaves nothing in what it keeps.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::ports::{Queue, Store};
use common::{KEEPER, PLUGIN, mode};
use parking_lot::Mutex;
use serde_json::Map;
use sluice_runtime::ports::Room;
use sluice_runtime::state::{Partition, Shared};
use sluice_runtime::{
    Compared, Grants, Limits, Plan, Plugin, Policy, Record, Shadow, Silent, Sinks, Stage, StatePlan, Step, Then, Turn,
};

/// A processor and, behind it, a plugin that fails on what it says.
fn plan(policy: Policy) -> (Plan, Shared) {
    let partition: Shared = Arc::new(Mutex::new(Some(Box::new(Partition::fresh().unwrap()))));
    let step = |name: &str, plugin: &Plugin, config| Step {
        name: name.into(),
        plugin: plugin.clone(),
        config,
        prefilter: None,
        grants: Grants::default(),
    };
    let plan = Plan {
        pipeline: "p".into(),
        queue: 0,
        input_topic: "in".into(),
        sinks: vec!["out".into()],
        steps: vec![step("keeper", &KEEPER, Map::new()), step("hostile", &PLUGIN, mode(""))],
        policy,
        limits: Limits { deadline: Duration::from_millis(200), ..Limits::default() },
        batch_records: 256,
        batch_bytes: 1 << 20,
        observer: Arc::new(Silent),
        state: Some(StatePlan { partition: partition.clone(), lateness: 0 }),
    };
    (plan, partition)
}

fn policy(retries: u32) -> Policy {
    Policy { retries, backoff: Duration::from_millis(1), then: Then::DeadLetter }
}

fn said(pairs: &[(&str, &str)]) -> Vec<Record> {
    let record = |(offset, (key, value)): (u64, &(&str, &str))| Record {
        offset,
        key: Some(key.as_bytes().to_vec().into()),
        value: value.as_bytes().to_vec().into(),
        stored_at: 1_000 + offset,
        ..Record::default()
    };
    (0..).zip(pairs).map(record).collect()
}

/// Turns until there is nothing to do at this time.
fn run(stage: &mut Stage, queue: &mut Queue, store: &mut Store, now: u64) {
    for _ in 0..5_000 {
        match stage.turn(queue, store, now) {
            Turn::Idle => return,
            Turn::Stopped(reason) => panic!("{reason}"),
            Turn::Wait(_) | Turn::Progressed { .. } => {}
        }
    }
    panic!("the stage does not come to rest");
}

fn count(partition: &Shared, key: &str) -> Option<i64> {
    let found = partition.lock().as_mut().unwrap().look("totals", key.as_bytes(), 0).unwrap();
    found.map(|bytes| i64::from_le_bytes(bytes.try_into().unwrap()))
}

#[test]
fn a_record_that_a_later_step_fails_on_is_not_counted_by_the_first() {
    for retries in [0, 2] {
        let (plan, partition) = plan(policy(retries));
        let mut pairs = vec![("a", "tell x"), ("a", "tell trap"), ("a", "count"), ("b", "tell dead"), ("b", "count")];
        // More of them than one turn runs again for.
        pairs.extend([("c", "tell dead"), ("c", "count")].repeat(12));
        let (mut queue, mut store) = (Queue(said(&pairs)), Store::default());
        let mut stage = Stage::open(plan, &mut store).unwrap();
        run(&mut stage, &mut queue, &mut store, 0);
        let counts: Vec<String> = (1..=12).map(|n| format!("c {n}")).collect();
        assert_eq!(store.sent()[..3], ["x", "a 2", "b 1"], "{retries} retries");
        assert_eq!(store.sent()[3..], counts);
        assert_eq!(
            (count(&partition, "a"), count(&partition, "b"), count(&partition, "c")),
            (Some(2), Some(1), Some(12))
        );
        let offsets: Vec<u64> = store.dead().into_iter().map(|(offset, ..)| offset).collect();
        assert_eq!(offsets, [vec![1, 3], (0..12).map(|n| 5 + 2 * n).collect()].concat());
        assert_eq!(stage.position(), pairs.len() as u64);
    }
}

#[test]
fn timers_whose_outputs_a_later_step_fails_on_fall_alone() {
    for retries in [0, 3] {
        let (plan, partition) = plan(policy(retries));
        let keys: Vec<String> = (0..40).map(|n| format!("tell {n}")).collect();
        let mut pairs: Vec<(&str, &str)> = keys.iter().map(|key| (key.as_str(), "wake-at 50")).collect();
        pairs.extend([("tell trap", "wake-at 50"), ("tell dead", "wake-at 55"), ("tell last", "wake-at 60")]);
        let (mut queue, mut store) = (Queue(said(&pairs)), Store::default());
        let mut stage = Stage::open(plan, &mut store).unwrap();
        run(&mut stage, &mut queue, &mut store, 0);
        run(&mut stage, &mut queue, &mut store, 100);
        let mut expected: Vec<String> = (0..40).map(|n| n.to_string()).collect();
        expected.push("last".into());
        assert_eq!(store.sent(), expected, "{retries} retries");
        let codes: Vec<String> = store.dead().into_iter().map(|(_, code, _)| code).collect();
        assert_eq!(codes, ["trap", "asked"], "{retries} retries");
        assert_eq!(count(&partition, "told"), Some(41));
        assert_eq!(stage.next_timer(), None);
    }
}

#[test]
fn a_timer_that_is_always_due_keeps_no_record_waiting() {
    let (live, _) = plan(policy(0));
    let pairs = [("again 1", "wake-at 1"), ("a", "count"), ("a", "count"), ("a", "count")];
    let (mut queue, mut store) = (Queue(said(&pairs)), Store::default());
    let mut stage = Stage::open(Plan { batch_records: 1, ..live }, &mut store).unwrap();
    for tick in 1..=8 {
        stage.turn(&mut queue, &mut store, 10 * tick);
    }
    assert_eq!(store.sent(), ["a 1", "a 2", "a 3"]);

    let one = |_| Plan { batch_records: 1, ..plan(policy(0)).0 };
    let sinks = Sinks { room: Room::default(), check: |_| Ok(()) };
    let (mut shadow, given) = (Shadow::open(one(0), one(1), 0, sinks).unwrap(), said(&pairs));
    let mut compared = 0;
    for _ in 0..100 {
        match shadow.turn(&given, 4, 10) {
            Compared::On { records, differences } if differences.is_empty() => compared += records,
            other => panic!("{other:?}"),
        }
        if shadow.position() == 4 {
            break;
        }
    }
    assert_eq!(compared, 4);
}

#[test]
fn a_timer_that_fails_is_not_laid_to_the_records_that_bring_it() {
    for retries in [0, 3] {
        for batch in [1, 2, 256] {
            let (plan, partition) = plan(policy(retries));
            let reminders =
                [("a", "remind-at 10"), ("trap", "remind-at 20"), ("b", "remind-at 20"), ("refuse", "remind-at 30")];
            let records = [("x", "count"), ("x", "count"), ("x", "add-then trap"), ("x", "count")];
            let mut given = said(&[&reminders[..], &records[..]].concat());
            // The second brings all of them, and the third fails by itself.
            given.iter_mut().zip([0, 0, 0, 0, 5, 40, 41, 42]).for_each(|(record, born)| record.born_at = born);
            let (mut queue, mut store) = (Queue(given), Store::default());
            let mut stage = Stage::open(Plan { batch_records: batch, ..plan }, &mut store).unwrap();
            run(&mut stage, &mut queue, &mut store, 0);
            assert_eq!(store.sent(), ["x 1", "a at 10", "b at 20", "x 2", "x 3"], "{retries} retries, {batch} at once");
            let dead = store.units.iter().flat_map(|unit| &unit.dead_letters);
            let dead: Vec<_> = dead
                .map(|dead| (dead.timer.as_deref(), dead.record.key.clone().unwrap(), dead.code.as_str()))
                .collect();
            let expected =
                [(Some("remind"), "trap", "trap"), (Some("remind"), "refuse", "refused"), (None, "x", "trap")];
            assert_eq!(dead, expected.map(|(timer, key, code)| (timer, key.into(), code)));
            // What failed is taken back.
            assert_eq!(count(&partition, "reminded"), Some(2));
            assert_eq!((stage.position(), count(&partition, "x")), (8, Some(3)));
        }
    }
}

#[test]
fn an_event_timer_that_is_set_again_and_again_does_not_hold_the_queue_for_ever() {
    let (plan, partition) = plan(policy(0));
    let mut given = said(&[("again", "remind-at 10"), ("x", "count"), ("x", "count")]);
    given.iter_mut().zip([0, 5, 40]).for_each(|(record, born)| record.born_at = born);
    let (mut queue, mut store) = (Queue(given), Store::default());
    let limits = Limits { deadline: Duration::from_millis(20), ..Limits::default() };
    let mut stage = Stage::open(Plan { limits, ..plan }, &mut store).unwrap();
    run(&mut stage, &mut queue, &mut store, 0);
    assert_eq!((stage.position(), count(&partition, "x")), (3, Some(1)));
    assert_eq!(store.dead(), [(2, "deadline".to_owned(), 1)]);
}

#[test]
fn a_turn_that_makes_more_than_a_unit_takes_ends_before_the_record_that_is_too_much() {
    let (plan, partition) = plan(policy(0));
    let pairs = [("a", "many 6"), ("a", "many 5"), ("a", "many 11"), ("a", "many 1"), ("a", "many 10")];
    let (mut queue, mut store) = (Queue(said(&pairs)), Store { most: Some(10), ..Store::default() });
    let mut stage = Stage::open(plan, &mut store).unwrap();
    run(&mut stage, &mut queue, &mut store, 0);
    let sizes: Vec<usize> = store.units.iter().map(|unit| unit.outputs.len()).collect();
    assert_eq!(sizes.iter().sum::<usize>(), 22);
    assert!(sizes.iter().all(|size| *size <= 10), "{sizes:?}");
    assert_eq!(store.dead(), [(2, "too-much-output".to_owned(), 1)]);
    assert_eq!(count(&partition, "a"), Some(4), "what was too much left a trace");
}

#[test]
fn what_no_sink_takes_is_a_dead_letter_and_leaves_no_trace() {
    let (plan, partition) = plan(policy(0));
    let pairs = [("a", "tell ok"), ("a", "tell much too long"), ("a", "count")];
    let (mut queue, mut store) = (Queue(said(&pairs)), Store { longest: Some(4), ..Store::default() });
    let mut stage = Stage::open(plan, &mut store).unwrap();
    run(&mut stage, &mut queue, &mut store, 0);
    assert_eq!(store.sent(), ["ok", "a 2"]);
    assert_eq!(store.dead(), [(1, "too-large".to_owned(), 1)]);
    assert_eq!(count(&partition, "a"), Some(2));
}
