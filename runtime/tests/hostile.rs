//! Plugins that misbehave end their instance, never the host, and the failure says what happened.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::{PLUGIN, RUNTIME, records, setup};
use sluice_runtime::{
    Batch, Decision, Error, Failure, HalfMessage, Level, Limits, LogLine, Observation, Observer, Output, Setup,
};

fn batch(values: &[&str]) -> Batch {
    let mut batch = Batch::new(PLUGIN.manifest().needs, 3);
    for record in records(values) {
        assert!(batch.push(&record, 0));
    }
    batch
}

fn transform(mode: &str, values: &[&str]) -> Result<Output, Failure> {
    PLUGIN.instance(setup(mode)).unwrap().transform(&batch(values), 2)
}

#[test]
fn an_endless_loop_ends_at_its_deadline() {
    let mut instance = PLUGIN.instance(setup("loop")).unwrap();
    let start = Instant::now();
    let failure = instance.filter(&batch(&["a"])).unwrap_err();
    assert_eq!(failure.to_string(), "the plugin ran longer than its deadline of 20 ms");
    assert!(start.elapsed() >= Duration::from_millis(10), "ended after {:?}", start.elapsed());
    assert!(instance.is_dead());
    assert_eq!(instance.filter(&batch(&["a"])).unwrap_err(), Failure::Dead);
}

#[test]
fn a_memory_bomb_hits_its_limit() {
    let mut setup = setup("memory");
    setup.limits.deadline = Duration::from_secs(10);
    let failure = PLUGIN.instance(setup).unwrap().filter(&batch(&["a"])).unwrap_err();
    assert_eq!(failure.to_string(), "the plugin asked for more than its 16384 KiB of memory");
}

#[test]
fn a_panic_tells_where_it_happened() {
    let Failure::Trap { stack, .. } = transform("", &["a", "trap"]).unwrap_err() else { panic!("no trap") };
    assert!(stack.iter().any(|name| name.contains("explode")), "{stack:?}");
}

#[test]
fn too_much_output_is_cut_off() {
    let mut setup = setup("output");
    setup.limits.output = 1 << 20;
    let failure = PLUGIN.instance(setup).unwrap().transform(&batch(&["a"]), 1).unwrap_err();
    assert_eq!(failure, Failure::TooMuch { limit: 1 << 20 });
}

#[test]
fn answers_that_break_the_contract_are_named() {
    let nonsense = |mode| transform(mode, &["a", "b"]).unwrap_err().to_string();
    let starts = "the plugin's answer makes no sense: ";
    assert_eq!(nonsense("origin"), format!("{starts}origin[0] is 2, but the batch has 2 records"));
    assert_eq!(nonsense("fan-out"), format!("{starts}2000 outputs from 2 records, but the limit is 64 for each"));
    assert_eq!(nonsense("columns"), format!("{starts}values: end 0 is 9, after 0 and with 4 bytes of data"));
    let bitmap = PLUGIN.instance(setup("bitmap")).unwrap().filter(&batch(&["a"])).unwrap_err().to_string();
    assert_eq!(bitmap, format!("{starts}keep: expected 1 bytes for 1 records (or none), got 2"));
}

#[test]
fn an_unregistered_metric_traps() {
    let failure = transform("metric", &["a"]).unwrap_err().to_string();
    assert_eq!(failure, "the plugin trapped: metrics.observe: 77 was not registered");
}

#[test]
fn a_plugin_that_does_not_start_says_why() {
    let error = |mode: &str| PLUGIN.instance(setup(mode)).err().unwrap();
    assert_eq!(error("refuse").to_string(), "plugin hostile refuses its config: no such mode");
    assert!(
        error("start-loop").to_string().contains("does not start: the plugin ran longer than its deadline of 200 ms")
    );
    assert!(error("start-trap").to_string().contains("does not start: the plugin trapped"));
}

#[test]
fn limits_out_of_range_are_refused() {
    let limits = Limits { memory: 1 << 40, ..Limits::default() };
    let error = PLUGIN.instance(Setup { limits, ..setup("") }).err().unwrap();
    assert!(matches!(error, Error::Limit { limit: "memory", .. }), "{error}");
    assert!(RUNTIME.config().memory < 1 << 40);
}

#[test]
fn time_is_the_batchs_own() {
    let mut instance = PLUGIN.instance(setup("now")).unwrap();
    let mut tell = || instance.transform(&batch(&["a", "b"]), 1).unwrap().produced[0].value.clone().unwrap();
    assert_eq!((tell(), tell()), ("1001".into(), "1001".into()));
}

#[test]
fn a_checker_that_misbehaves_ends_alone() {
    let check = |body: &str| {
        let message = HalfMessage { transaction_id: "t".into(), body: body.into(), ..HalfMessage::default() };
        PLUGIN.instance(setup("")).unwrap().check(&message)
    };
    assert!(matches!(check("loop"), Err(Failure::Deadline { .. })));
    assert!(matches!(check("trap"), Err(Failure::Trap { .. })));
    assert_eq!(check("x"), Err(Failure::Check("cannot decide t".into())));
    assert_eq!(check("late"), Ok(Decision::AskAgainAfter(Duration::from_secs(24 * 60 * 60))));
}

#[derive(Default)]
struct Lines(Mutex<Vec<String>>);

impl Observer for Lines {
    fn enabled(&self, _: Level) -> bool {
        true
    }
    fn log(&self, line: &LogLine<'_>) {
        self.0.lock().unwrap().push(line.message.to_owned());
    }
    fn metric(&self, _: &Observation<'_>) {}
}

#[test]
fn a_flood_of_log_lines_is_cut_and_says_so() {
    let lines = Arc::new(Lines::default());
    let observer = Arc::<Lines>::clone(&lines);
    PLUGIN.instance(Setup { observer, ..setup("logs") }).unwrap().filter(&batch(&["a"])).unwrap();
    let lines = lines.0.lock().unwrap();
    assert_eq!(lines.len(), 65);
    assert_eq!(lines[63], "line 63");
    assert_eq!(lines[64], "more than 64 lines in one call, the rest is dropped");
}
