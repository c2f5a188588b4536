#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use serde_json::{Value, json};
use sluice_plugins::ready_made;
use sluice_testkit::{Kit, Run, Sample, record};

fn kit() -> Kit {
    Kit::upload(ready_made("aggregate").unwrap().component).unwrap()
}

fn sale(customer: &str, amount: f64, born_at: u64) -> Sample {
    record(json!({ "customer": customer, "amount": amount }).to_string()).born_at(born_at)
}

fn made(run: &mut Run, records: &[Sample]) -> Vec<Value> {
    let done = run.process(records).unwrap();
    assert_eq!(done.failed, []);
    done.made.iter().map(|made| serde_json::from_str(&made.text()).unwrap()).collect()
}

#[test]
fn running_totals_come_with_every_record() {
    let mut run = kit().start(&json!({ "by": "/customer", "sum": "/amount" })).unwrap();
    let first = made(&mut run, &[sale("ada", 10.0, 0), sale("bob", 1.5, 0), sale("ada", 5.0, 0)]);
    let total = |key: &str, count: u64, sum: Value| json!({ "key": key, "count": count, "sum": sum });
    assert_eq!(first, [total("ada", 1, json!(10)), total("bob", 1, json!(1.5)), total("ada", 2, json!(15))]);
    assert_eq!(made(&mut run, &[sale("ada", 1.0, 0)]), [total("ada", 3, json!(16))]);
    assert!(run.look("totals", "ada").unwrap().is_some() && run.look("totals", "eve").unwrap().is_none());
}

#[test]
fn without_a_field_the_key_is_counted() {
    let mut run = kit().start(&json!({})).unwrap();
    let records = [record("no JSON").key("k"), record("").key("k")];
    assert_eq!(made(&mut run, &records)[1], json!({ "key": "k", "count": 2 }));
}

#[test]
fn windows_are_sent_when_they_are_over_and_late_records_are_dropped() {
    let kit = kit().lateness(Duration::from_millis(100));
    let mut run = kit.start(&json!({ "by": "/customer", "window-ms": 1000, "sum": "/amount" })).unwrap();
    let records = [sale("ada", 1.0, 100), sale("ada", 2.0, 900), sale("ada", 4.0, 1050), sale("ada", 8.0, 990)];
    assert_eq!(made(&mut run, &records), Vec::<Value>::new());
    let window = json!({ "key": "ada", "count": 3, "sum": 11, "start": 0, "end": 1000 });
    assert_eq!(made(&mut run, &[sale("bob", 1.0, 1100), sale("ada", 16.0, 999)]), [window]);
}

#[test]
fn what_cannot_be_counted_is_a_dead_letter() {
    let mut run = kit().start(&json!({ "by": "/customer", "sum": "/amount" })).unwrap();
    for (body, code) in
        [("{", "not-json"), ("{}", "no-key"), (r#"{"customer":null}"#, "no-key"), (r#"{"customer":1}"#, "no-number")]
    {
        let done = run.process(&[record(body)]).unwrap();
        assert_eq!(done.failed[0].1, code);
    }
}

#[test]
fn a_key_that_no_message_can_have_is_refused_when_it_comes_and_not_when_its_window_is_over() {
    for config in [json!({ "by": "/customer" }), json!({ "by": "/customer", "window-ms": 1000 })] {
        let mut run = kit().start(&config).unwrap();
        let records =
            [sale("ada", 1.0, 100), sale("a\u{1}", 1.0, 200), sale("a\u{2}b", 1.0, 300), sale("bob", 1.0, 5000)];
        let done = run.process(&records).unwrap();
        let failed: Vec<_> = done.failed.iter().map(|(index, code, _)| (*index, code.as_str())).collect();
        assert_eq!(failed, [(1, "bad-key"), (2, "bad-key")]);
        assert!(done.made[0].text().contains("ada"), "{config}");
    }
}

#[test]
fn windows_go_on_from_call_to_call() {
    let mut run = kit().start(&json!({ "by": "/customer", "window-ms": 1000 })).unwrap();
    assert_eq!(made(&mut run, &[sale("ada", 1.0, 100), sale("ada", 1.0, 2000)]).len(), 1);
    // The window was sent: what is late for it does not open it again.
    assert_eq!(made(&mut run, &[sale("ada", 1.0, 200), sale("ada", 1.0, 2100)]), Vec::<Value>::new());
}

#[test]
fn a_config_that_makes_no_sense_is_refused() {
    let cases = [
        (json!({ "by": "customer" }), "write \"/customer\""),
        (json!({ "window-ms": 0 }), "window-ms"),
        (json!({ "hop-ms": 5 }), "needs `window-ms`"),
        (json!({ "window-ms": 1000, "hop-ms": 1 }), "at most 100 windows"),
    ];
    for (config, expected) in cases {
        let problem = kit().start(&config).err().unwrap().to_string();
        assert!(problem.contains(expected), "{problem}");
    }
}
