//! A processor in the kit does over several calls what it would do in a pipeline.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::time::Duration;

use serde_json::json;
use sluice_testkit::{
    Error, Kit, Run, Sample, Transformed, record,
    runtime::{Failure, Limits},
};

fn keeper() -> Kit {
    Kit::build(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../runtime/tests/keeper")).unwrap()
}

fn run() -> Run {
    keeper().start(&json!({})).unwrap()
}

fn of(key: &str, value: &str) -> Sample {
    record(value.to_owned()).key(key)
}

fn said(run: &mut Run, records: &[Sample]) -> Vec<String> {
    run.process(records).unwrap().made.iter().map(sluice_testkit::Made::text).collect()
}

#[test]
fn windows_close_over_calls_as_over_batches() {
    let records = [("a", 3), ("a", 12), ("b", 5), ("a", 15), ("b", 31), ("a", 19)];
    let records: Vec<Sample> = records.iter().map(|(key, born)| of(key, "ten").born_at(*born)).collect();
    let expected = ["a 0..10 1", "a 10..20 2"];
    assert_eq!(said(&mut run(), &records), expected);
    let mut run = run();
    let one_by_one: Vec<String> =
        records.iter().flat_map(|record| said(&mut run, std::slice::from_ref(record))).collect();
    assert_eq!(one_by_one, expected);
}

#[test]
fn a_record_that_fails_leaves_nothing_behind_and_the_others_go_on_without_it() {
    let mut run = run();
    let done = run.process(&[of("a", "count"), of("a", "add-then fail"), of("a", "count")]).unwrap();
    assert_eq!(done.failed, [(1, "told".to_owned(), "as told".to_owned())]);
    assert_eq!(
        done.made.iter().map(|made| (made.from, made.text())).collect::<Vec<_>>(),
        [(0, "a 1".to_owned()), (2, "a 2".to_owned())]
    );
    assert_eq!(run.look("totals", "a").unwrap(), Some(2_i64.to_le_bytes().to_vec()));
    let trapped = run.process(&[of("a", "count"), of("a", "add-then trap")]);
    assert!(matches!(trapped, Err(Error::Failed(Failure::Trap { .. }))));
    assert_eq!(run.look("totals", "a").unwrap(), Some(2_i64.to_le_bytes().to_vec()));
}

#[test]
fn a_record_says_that_it_is_tried_for_the_first_time() {
    assert_eq!(said(&mut run(), &[of("a", "tries"), of("b", "tries")]), ["0", "0"]);
}

#[test]
fn what_earlier_calls_wrote_does_not_count_for_this_one() {
    let limits = Limits { output: 64 * 1024, deadline: Duration::from_secs(1), ..Limits::default() };
    let mut run = keeper().limits(limits).start(&json!({})).unwrap();
    for at in 0..30 {
        let key = "k".repeat(4_000);
        run.process(&[of("v", &format!("put {at}{key}"))]).unwrap();
    }
}

#[test]
fn timers_by_the_clock_fire_when_the_test_says_what_time_it_is() {
    let (mut run, start) = (run(), 1_700_000_000_000_u64);
    let wake = |key: &str, at: u64| of(key, &format!("wake-at {}", start + at));
    assert_eq!(said(&mut run, &[wake("b", 20), wake("a", 10), wake("tell hello", 5), wake("c", 99)]), [""; 0]);
    assert_eq!(run.fire_timers(start + 4).unwrap(), Transformed::default());
    let fired = run.fire_timers(start + 20).unwrap();
    let made = fired.made.iter().map(|made| (made.from, made.record.key.as_deref(), made.text()));
    let woke = |at: u64| format!("woke at {}", start + at);
    let expected: [(usize, Option<&[u8]>, String); 3] =
        [(0, Some(b"tell hello"), "hello".into()), (1, Some(b"a"), woke(10)), (2, Some(b"b"), woke(20))];
    assert_eq!((made.collect::<Vec<_>>(), fired.failed), (expected.to_vec(), vec![]));
    assert_eq!(run.look("totals", "told").unwrap(), Some(1_i64.to_le_bytes().to_vec()));
    // One that sets itself again is due the next millisecond, so this comes to an end.
    run.process(&[wake("again", 50), wake("again x", 50)]).unwrap();
    assert_eq!(run.fire_timers(start + 60).unwrap().made.len(), 1);
    assert_eq!(run.fire_timers(start + 200).unwrap().made.len(), 1);
}

#[test]
fn a_timer_that_fails_leaves_nothing_behind_and_one_that_traps_is_due_as_before() {
    let mut run = run();
    run.process(&[of("flaky", "wake-at 10"), of("tell hello", "wake-at 10")]).unwrap();
    let fired = run.fire_timers(10).unwrap();
    assert_eq!((fired.made.len(), fired.failed.len()), (1, 1), "{fired:?}");
    assert_eq!(fired.failed[0].1, "flaky");
    assert_eq!(run.look("totals", "told").unwrap(), Some(1_i64.to_le_bytes().to_vec()));
    run.process(&[of("trap", "wake-at 10")]).unwrap();
    assert!(matches!(run.fire_timers(10), Err(Error::Failed(Failure::Trap { .. }))));
}

#[test]
fn what_is_no_processor_has_no_timers_to_fire() {
    let filter = Kit::build(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../plugins/json-filter")).unwrap();
    let mut run = filter.start(&json!({ "path": "/a", "equals": "b" })).unwrap();
    let told = run.fire_timers(10).unwrap_err().to_string();
    assert!(told.contains("no processor"), "{told}");
    let told = run.process(&[of("a", "b")]).unwrap_err().to_string();
    assert!(told.contains("no processor"), "{told}");
}
