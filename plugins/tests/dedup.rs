#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::LazyLock;

use serde_json::{Value, json};
use sluice_plugins::ready_made;
use sluice_testkit::{Kit, Run, Sample, record};

const START: u64 = 1_700_000_000_000;

/// Compiled once for all tests.
static KIT: LazyLock<Kit> = LazyLock::new(|| Kit::upload(ready_made("dedup").unwrap().component).unwrap());

fn start(config: &Value) -> Run {
    KIT.start(config).unwrap()
}

fn payment(id: &str, at: u64) -> Sample {
    record(json!({ "payment": id }).to_string()).header("attempt", id).key(id).stored_at(START + at)
}

/// Which of the records pass, by their places.
fn passed(run: &mut Run, records: &[Sample]) -> Vec<usize> {
    let done = run.process(records).unwrap();
    assert_eq!(done.failed, []);
    done.made.iter().map(|made| made.from).collect()
}

#[test]
fn what_comes_again_soon_is_dropped_whatever_tells_it_apart() {
    for config in [
        json!({ "by": "/payment", "within-ms": 1000 }),
        json!({ "header": "attempt", "within-ms": 1000 }),
        json!({ "within-ms": 1000 }),
    ] {
        let mut run = start(&config);
        let records = [payment("a", 0), payment("b", 1), payment("a", 2), payment("a", 3)];
        assert_eq!(passed(&mut run, &records), [0, 1], "{config}");
        assert_eq!(
            passed(&mut run, &[payment("b", 999), payment("c", 999)]),
            [1],
            "what earlier batches brought counts"
        );
    }
}

#[test]
fn the_time_runs_from_the_first_and_then_it_is_new_again() {
    let mut run = start(&json!({ "by": "/payment", "within-ms": 1000 }));
    let records = [payment("a", 0), payment("a", 900), payment("a", 1001), payment("a", 1900), payment("a", 2002)];
    assert_eq!(passed(&mut run, &records), [0, 2, 4]);
    assert_eq!(passed(&mut run, &[payment("a", 9_000)]), [0]);
}

#[test]
fn what_passes_is_as_it_came() {
    let mut run = start(&json!({ "within-ms": 1000 }));
    let sample = payment("a", 0).tag("t");
    let done = run.process(std::slice::from_ref(&sample)).unwrap();
    assert_eq!(done.made[0].record, sample.into_record());
}

#[test]
fn what_cannot_be_told_apart_is_a_dead_letter() {
    let bare = || record("{}").stored_at(START);
    for (config, body, code, reason) in [
        (json!({ "by": "/payment", "within-ms": 1 }), record("{"), "not-json", ""),
        (json!({ "by": "/payment", "within-ms": 1 }), bare(), "no-key", "no field /payment"),
        (json!({ "header": "attempt", "within-ms": 1 }), bare(), "no-key", "no property attempt"),
        (json!({ "within-ms": 1 }), bare(), "no-key", "no key"),
    ] {
        let failed = start(&config).process(&[body]).unwrap().failed;
        assert!(failed[0].1 == code && failed[0].2.contains(reason), "{config}: {failed:?}");
    }
}

#[test]
fn a_config_that_makes_no_sense_is_refused() {
    for (config, expected) in [
        (json!({}), "within-ms"),
        (json!({ "within-ms": 0 }), "at least 1"),
        (json!({ "by": "payment", "within-ms": 1 }), "write \"/payment\""),
        (json!({ "by": "/a", "header": "b", "within-ms": 1 }), "either"),
    ] {
        let problem = KIT.start(&config).err().unwrap().to_string();
        assert!(problem.contains(expected), "{problem}");
    }
}
