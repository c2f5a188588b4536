//! The stage loop over fake ports.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::ports::{Queue, Store};
use common::{PLUGIN, mode, records};
use sluice_runtime::ports::{Portion, Room, Unfit};
use sluice_runtime::{
    Compared, Counters, Difference, Grants, Limits, Plan, Policy, Record, Shadow, Silent, Sinks, Stage, Step, Then,
    Turn,
};

fn plan(policy: Policy) -> Plan {
    Plan {
        pipeline: "p".into(),
        queue: 3,
        input_topic: "in".into(),
        sinks: vec!["out".into()],
        steps: vec![Step {
            name: "hostile".into(),
            plugin: PLUGIN.clone(),
            config: mode(""),
            prefilter: None,
            grants: Grants::default(),
        }],
        policy,
        limits: Limits { deadline: Duration::from_millis(20), ..Limits::default() },
        batch_records: 256,
        batch_bytes: 1 << 20,
        observer: Arc::new(Silent),
        state: None,
    }
}

fn policy(retries: u32, then: Then) -> Policy {
    Policy { retries, backoff: Duration::from_secs(1), then }
}

/// Turns until idle or stopped; gives the last turn and the waits that were asked for.
fn run(plan: Plan, values: &[&str]) -> (Store, Stage, Turn, Vec<u64>) {
    run_into(Store::default(), plan, values)
}

fn run_into(mut store: Store, plan: Plan, values: &[&str]) -> (Store, Stage, Turn, Vec<u64>) {
    let mut queue = Queue(records(values));
    let mut stage = Stage::open(plan, &mut store).unwrap();
    let mut waits = Vec::new();
    for _ in 0..1_000 {
        match stage.turn(&mut queue, &mut store, 0) {
            Turn::Wait(wait) | Turn::Progressed { wait: Some(wait), .. } => waits.push(wait.as_secs()),
            Turn::Progressed { .. } => {}
            end => return (store, stage, end, waits),
        }
    }
    panic!("the stage does not come to rest");
}

#[test]
fn records_pass_in_order_and_dropped_ones_move_the_position() {
    let (store, stage, end, _) = run(plan(Policy::default()), &["a", "drop", "b", "drop"]);
    assert_eq!((store.sent(), end), (vec!["a".to_owned(), "b".into()], Turn::Idle));
    assert_eq!((store.units.len(), stage.position()), (1, 4));
    let counters = stage.counters();
    assert_eq!((counters.read, counters.sent, counters.dropped), (4, 2, 2));
}

#[test]
fn a_failing_record_is_retried_with_growing_waits_and_then_a_dead_letter_in_its_place() {
    let (store, stage, _, waits) = run(plan(policy(3, Then::DeadLetter)), &["a", "retry", "b"]);
    assert_eq!(waits, [1, 2, 4]);
    assert_eq!((store.sent(), store.dead()), (vec!["a".to_owned(), "b".into()], vec![(1, "asked".into(), 4)]));
    let letter = store.units.iter().flat_map(|unit| &unit.dead_letters).next().unwrap();
    assert_eq!((letter.queue, letter.reason.as_str(), letter.digest.as_str()), (3, "attempt 3", PLUGIN.digest()));
    assert_eq!((stage.counters().retries, stage.counters().dead_lettered), (3, 1));
    // What comes behind it was tried with it once, and alone in the end.
    assert_eq!(stage.steps()[0].counters.read, 3 + 3 + 1);
    let (_, calm, ..) = run(plan(policy(3, Then::DeadLetter)), &["a", "b"]);
    assert!(calm.wasted().is_zero() && !stage.wasted().is_zero(), "{:?}", stage.wasted());
}

#[test]
fn a_record_that_works_at_the_second_try_keeps_its_place() {
    let (store, _, _, waits) = run(plan(policy(3, Then::DeadLetter)), &["a", "second", "b"]);
    assert_eq!((store.sent(), waits), (vec!["a".to_owned(), "second".into(), "b".into()], vec![1]));
    assert!(store.dead().is_empty());
}

#[test]
fn the_plugins_own_word_on_a_failure_wins() {
    let (store, stage, end, waits) = run(plan(policy(3, Then::Stop)), &["dead", "skip", "a", "stop", "b"]);
    assert_eq!((store.sent(), store.dead()), (vec!["a".to_owned()], vec![(0, "asked".into(), 1)]));
    let reason = "step hostile failed on offset 3 of queue 3: asked: attempt 0";
    assert_eq!((end, waits.len(), stage.position()), (Turn::Stopped(reason.into()), 0, 3));
    assert_eq!(stage.counters().skipped, 1);
}

#[test]
fn a_trap_is_narrowed_down_to_its_record_and_the_others_go_on() {
    let mut values = vec!["a"; 200];
    (values[77], values[150]) = ("trap", "loop");
    let (store, stage, end, _) = run(plan(policy(0, Then::DeadLetter)), &values);
    assert_eq!((store.sent().len(), end), (198, Turn::Idle));
    assert_eq!(store.dead(), [(77, "trap".to_owned(), 1), (150, "deadline".to_owned(), 1)]);
    let reason = &store.units.iter().find_map(|unit| unit.dead_letters.first()).unwrap().reason;
    assert!(reason.starts_with("the plugin trapped: ") && reason.contains("explode"), "{reason}");
    assert!((10..=40).contains(&stage.counters().traps), "{} traps", stage.counters().traps);
}

#[test]
fn what_stops_the_stage_is_not_looked_for_twice() {
    let (store, stage, end, _) = run(plan(policy(0, Then::Stop)), &["a", "trap", "trap"]);
    assert!(matches!(end, Turn::Stopped(_)));
    // All three, the last two, the second.
    assert_eq!((store.sent(), stage.counters().traps), (vec!["a".to_owned()], 3));
}

#[test]
fn a_record_that_cannot_be_read_is_a_dead_letter_and_no_plugin_sees_it() {
    let mut given = records(&["a", "stop", "b"]);
    given[1].unreadable = Some("no zstd frame".into());
    let (mut store, mut queue) = (Store::default(), Queue(given));
    let mut stage = Stage::open(plan(policy(5, Then::Stop)), &mut store).unwrap();
    assert!(matches!(stage.turn(&mut queue, &mut store, 0), Turn::Progressed { read: 3, .. }));
    assert_eq!((store.sent(), stage.position()), (vec!["a".to_owned(), "b".into()], 3));
    assert_eq!(store.dead(), [(1, "unreadable".to_owned(), 1)]);
}

#[test]
fn a_busy_sink_changes_nothing() {
    let (mut store, mut queue) = (Store { busy: true, ..Store::default() }, Queue(records(&["a"])));
    let mut stage = Stage::open(plan(Policy::default()), &mut store).unwrap();
    assert!(matches!(stage.turn(&mut queue, &mut store, 0), Turn::Wait(_)));
    assert_eq!((stage.position(), stage.counters().read), (0, 0));
    assert!(matches!(stage.turn(&mut queue, &mut store, 0), Turn::Progressed { read: 1, sent: 1, .. }));
    assert_eq!(store.sent(), ["a"]);
}

#[test]
fn a_new_stage_goes_on_where_the_last_unit_ended() {
    let (mut store, ..) = run(plan(Policy::default()), &["a", "b"]);
    let mut queue = Queue(records(&["a", "b", "c"]));
    let mut stage = Stage::open(plan(Policy::default()), &mut store).unwrap();
    stage.turn(&mut queue, &mut store, 0);
    assert_eq!(store.sent(), ["a", "b", "c"]);
}

#[test]
fn a_fault_of_the_whole_batch_takes_each_of_its_records() {
    let mut plan = plan(Policy::default());
    plan.steps[0].config = mode("fault");
    let (store, ..) = run(plan, &["a", "b"]);
    assert_eq!(store.dead(), [(0, "all".to_owned(), 1), (1, "all".to_owned(), 1)]);
}

#[test]
fn steps_follow_each_other() {
    let mut plan = plan(policy(0, Then::Skip));
    plan.steps.push(Step { name: "second".into(), ..plan.steps[0].clone() });
    plan.steps[1].config = mode("now");
    let (store, ..) = run(plan, &["a", "drop", "trap", "b"]);
    assert_eq!(store.sent().len(), 2);
    assert_eq!(store.units.last().unwrap().outputs[0].record.value, "1003");
}

#[test]
fn each_step_counts_its_records_and_what_they_cost() {
    let mut plan = plan(policy(0, Then::Skip));
    plan.steps.push(Step { name: "second".into(), ..plan.steps[0].clone() });
    let (_, stage, ..) = run(plan, &["a", "drop", "trap", "b"]);
    let steps = stage.steps();
    let counts = |at: usize| {
        let of = &steps[at].counters;
        (steps[at].name.as_str(), of.read, of.sent, of.failed, of.traps)
    };
    assert_eq!((counts(0), counts(1)), (("hostile", 4, 2, 1, 3), ("second", 2, 2, 0, 0)));
    for step in &steps {
        assert_eq!(step.digest, PLUGIN.digest());
        assert!(step.counters.memory >= 64 * 1024 && step.counters.memory <= 16 << 20, "{step:?}");
        assert!(step.counters.cpu > Duration::ZERO, "{step:?}");
    }
    let [trapped, second] = [0, 1].map(|at| steps[at].counters);
    assert!(trapped.wasted > Duration::ZERO && trapped.wasted < trapped.cpu, "{trapped:?}");
    assert_eq!(second.wasted, Duration::ZERO);
    // The batch, its halves and what was left of it.
    assert_eq!(steps[0].counters.calls.counts().iter().sum::<u64>(), 5);
}

#[test]
fn a_loop_costs_the_processor_time_that_it_had() {
    let mut plan = plan(policy(0, Then::Skip));
    plan.steps[0].config = mode("loop");
    let (_, stage, ..) = run(plan, &["a"]);
    let of = stage.steps().remove(0).counters;
    // A deadline of 20 ms is at least 10 ms on the processor, however busy the machine is.
    assert!(of.cpu >= Duration::from_millis(10) && of.cpu <= of.calls.sum(), "{of:?}");
    assert_eq!((of.read, of.failed, of.traps, of.memory), (1, 1, 1, 0));
}

#[test]
fn the_time_from_storing_to_commit_is_counted_once_for_each_record_that_is_done_with() {
    let (mut store, mut queue) = (Store { busy: true, ..Store::default() }, Queue(records(&["a", "drop", "b"])));
    let mut stage = Stage::open(plan(Policy::default()), &mut store).unwrap();
    for _ in 0..2 {
        stage.turn(&mut queue, &mut store, 2000);
    }
    let latency = stage.counters().latency;
    assert_eq!(latency.counts().iter().sum::<u64>(), 3);
    assert!(latency.sum() >= Duration::from_millis(1000 + 999 + 998), "{latency:?}");
}

#[test]
fn a_plan_that_does_not_fit_together_is_refused() {
    let error = |plan| Stage::open(plan, &mut Store::default()).err().unwrap().to_string();
    assert_eq!(error(Plan { steps: vec![], ..plan(Policy::default()) }), "steps: expected 1 to 32, got 0");
    assert_eq!(error(Plan { sinks: vec![], ..plan(Policy::default()) }), "sinks: expected at least one");
}

/// The plan with the plugin in a mode.
fn in_mode(name: &str) -> Plan {
    let plan = plan(policy(5, Then::Stop));
    Plan { steps: plan.steps.iter().map(|step| Step { config: mode(name), ..step.clone() }).collect(), ..plan }
}

#[test]
fn a_step_that_makes_many_of_each_is_given_fewer_at_once() {
    let (store, stage, end, _) = run(in_mode("sixty"), &["x"; 300]);
    assert_eq!((end, stage.position()), (Turn::Idle, 300));
    let made: Vec<usize> = store.units.iter().map(|unit| unit.outputs.len() / 60).collect();
    assert!(made[0] == 64 && made[1..].iter().all(|records| *records <= 17), "records of each unit: {made:?}");
    assert_eq!(made.iter().sum::<usize>(), 300);
}

#[test]
fn a_turn_makes_as_much_as_its_sink_has_others_wait_for() {
    let units = |portion, mode, values: &[&str]| {
        let store = Store { portion: Some(portion), ..Store::default() };
        let (store, stage, end, _) = run_into(store, in_mode(mode), values);
        assert_eq!((end, stage.position()), (Turn::Idle, 300));
        store.units.iter().map(|unit| unit.outputs.len()).collect::<Vec<_>>()
    };
    let few = Portion { outputs: 120, ..Portion::default() };
    let made = units(few, "sixty", &["x"; 300]);
    assert!(made[1..].iter().all(|outputs| *outputs <= 120) && made.len() > 100, "outputs of each unit: {made:?}");
    let short = Portion { bytes: 100, ..Portion::default() };
    let made = units(short, "", &["ten bytes."; 300]);
    assert!(made[1..].iter().all(|outputs| *outputs <= 10) && made.len() > 20, "outputs of each unit: {made:?}");
    let least = Portion { outputs: 0, bytes: 0 };
    assert!(units(least, "", &["x"; 300])[1..].iter().take(90).all(|outputs| *outputs == 1), "one at a time");
}

fn side_by_side(live: Plan, candidate: Plan, position: u64) -> Shadow {
    Shadow::open(live, candidate, position, Sinks { room: Room::default(), check: |_| Ok(()) }).unwrap()
}

/// Turns until both have read the records; how many were compared, and those that differ.
fn compare(shadow: &mut Shadow, given: &[Record], next: u64, now: u64) -> Result<(u64, Vec<Difference>), String> {
    let (mut count, mut all) = (0, Vec::new());
    while shadow.position() < next {
        match shadow.turn(given, next, now) {
            Compared::On { records, differences } => {
                count += records;
                all.extend(differences);
            }
            Compared::Wait(wait) => panic!("it waits for {wait:?}"),
            Compared::Stopped(reason) => return Err(reason),
        }
    }
    Ok((count, all))
}

#[test]
fn two_versions_are_compared_record_by_record_and_failures_end_neither() {
    let mut shadow = side_by_side(in_mode(""), in_mode(""), 0);
    let values = ["a", "drop", "retry", "trap", "b"];
    assert_eq!(compare(&mut shadow, &records(&values), 5, 0), Ok((5, Vec::new())));
    let (live, candidate) = shadow.counters();
    let counts = |of: &Counters| (of.read, of.sent, of.dropped, of.dead_lettered, of.retries);
    assert_eq!((counts(&live), counts(&candidate)), ((5, 2, 1, 2, 0), (5, 2, 1, 2, 0)));

    // Here the candidate writes the time in the place of the value, and fails on what is too much.
    let differs = |mode: &str| {
        let mut shadow = side_by_side(in_mode(""), in_mode(mode), 10);
        let given = records(&["a", "drop", "b"]).into_iter().map(|r| Record { offset: r.offset + 10, ..r });
        let (count, differences) = compare(&mut shadow, &given.collect::<Vec<_>>(), 15, 7).unwrap();
        assert_eq!(count, 3);
        (differences, shadow.position())
    };
    let (changed, position) = differs("now");
    assert_eq!((changed.iter().map(|d| d.offset).collect::<Vec<_>>(), position), (vec![10, 12], 15));
    assert_ne!(changed[0].live.outputs[0].record.value, changed[0].candidate.outputs[0].record.value);
    let (failed, _) = differs("fan-out");
    assert!(failed.iter().all(|d| d.live.failed.is_none() && d.candidate.failed.is_some()), "{failed:?}");
}

#[test]
fn a_version_that_stops_ends_the_comparison_and_is_named() {
    let mut shadow = side_by_side(in_mode(""), in_mode(""), 0);
    let stopped = compare(&mut shadow, &records(&["a", "stop"]), 2, 0).unwrap_err();
    assert!(stopped.contains("the live version"), "{stopped}");
}

#[test]
fn a_comparison_keeps_no_more_than_a_turn_of_each_and_fails_what_no_sink_takes() {
    // Of 60 outputs each ten records fit into a turn.
    let sinks = Sinks { room: Room { outputs: 600, ..Room::default() }, check: |_| Ok(()) };
    let mut shadow = Shadow::open(in_mode("sixty"), in_mode(""), 0, sinks).unwrap();
    let (given, mut compared) = (records(&["x"; 300]), 0);
    while shadow.position() < 300 {
        match shadow.turn(&given, 300, 0) {
            Compared::On { records, differences } => {
                assert!(records <= 10 && differences.len() as u64 == records, "{records} at once");
                assert!(differences.iter().all(|d| (d.live.outputs.len(), d.candidate.outputs.len()) == (60, 1)));
                compared += records;
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(compared, 300);

    let sinks = Sinks {
        room: Room::default(),
        check: |record| if record.value == "b" { Err(Unfit::TooLarge("b".into())) } else { Ok(()) },
    };
    let mut shadow = Shadow::open(in_mode(""), in_mode("now"), 0, sinks).unwrap();
    let (_, differences) = compare(&mut shadow, &records(&["b"]), 1, 7).unwrap();
    assert_eq!(differences[0].live.failed.as_ref().map(|dead| dead.code.as_str()), Some("too-large"));
}
