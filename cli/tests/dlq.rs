//! Dead letters of a pipeline, from the command line.
#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

mod binary;

use std::time::{Duration, Instant};

use binary::{Dev, stderr};
use serde_json::Value;

#[track_caller]
fn json(dev: &Dev, args: &[&str]) -> Value {
    serde_json::from_str(&dev.ok(&[args, &["-o", "json"]].concat())).unwrap()
}

/// Applies the pipeline with this configuration of its one plugin.
fn apply(dev: &Dev, on_invalid: &str) {
    let files = tempfile::tempdir().unwrap();
    let file = files.path().join("p.yaml");
    let config = format!("{{ path: /status, equals: paid, on-invalid: {on_invalid} }}");
    let spec = format!(
        "name: p\nsource: {{ topic: in, start: earliest }}\nsinks: [ out ]\nsteps: [ {{ plugin: only, config: {config} }} ]\n"
    );
    std::fs::write(&file, spec).unwrap();
    dev.ok(&["pipeline", "apply", "-f", file.to_str().unwrap()]);
}

#[test]
fn dead_letters_are_listed_shown_replayed_and_purged() {
    let dev = Dev::start();
    let files = tempfile::tempdir().unwrap();
    let component = files.path().join("only.wasm");
    std::fs::write(&component, sluice_plugins::ready_made("json-filter").unwrap().component).unwrap();
    dev.ok(&["plugin", "push", component.to_str().unwrap()]);
    for topic in ["in", "out"] {
        dev.ok(&["topic", "create", topic, "--queues", "1"]);
    }
    apply(&dev, "dead-letter");
    assert!(dev.feed(&["produce", "in", "--key", "k1"], "one\ntwo\nthree\n").status.success());
    let began = Instant::now();
    let letters = loop {
        let letters = json(&dev, &["dlq", "list", "p"]);
        if letters["items"].as_array().unwrap().len() == 3 {
            break letters;
        }
        assert!(began.elapsed() < Duration::from_secs(20), "{letters}");
        std::thread::sleep(Duration::from_millis(20));
    };
    let id = letters["items"][1]["id"].as_str().unwrap();
    let table = dev.ok(&["dlq", "list", "p"]);
    assert!(table.lines().count() == 4 && table.contains(id) && table.contains("not-json"), "{table}");
    let groups = dev.ok(&["dlq", "list", "p", "--by-error"]);
    assert!(groups.lines().nth(1).is_some_and(|row| row.starts_with("not-json  only  3  ")), "{groups}");
    let shown = dev.ok(&["dlq", "show", "p", id]);
    assert!(shown.contains("failure.code") && shown.contains("two") && !shown.contains("SLUICE_"), "{shown}");

    apply(&dev, "keep");
    assert_eq!(json(&dev, &["dlq", "replay", "p", id])["left"], 2);
    assert_eq!(dev.ok(&["consume", "out"]), "two\n");
    let twice = dev.run(&["dlq", "replay", "p", id]);
    assert!(twice.status.code() == Some(1) && stderr(&twice).contains("again"), "{}", stderr(&twice));
    let all = json(&dev, &["dlq", "replay", "p", "--all", "--code", "not-json"]);
    assert_eq!((&all["replayed"], &all["sent"], &all["left"]), (&2.into(), &2.into(), &0.into()));
    assert_eq!(dev.ok(&["consume", "out"]), "two\none\nthree\n");
    assert_eq!(json(&dev, &["dlq", "list", "p"])["items"], Value::Array(Vec::new()));
    let page = dev.run(&["dlq", "list", "p", "--all", "-n", "2"]);
    assert!(stderr(&page).contains("--cursor 2"), "{}", stderr(&page));
    assert_eq!(dev.ok(&["dlq", "list", "p", "--all", "--cursor", "2"]).lines().count(), 2);

    let none = json(&dev, &["dlq", "purge", "p", "--all"]);
    assert_eq!((&none["purged"], &none["left"]), (&0.into(), &0.into()));
    let unknown = dev.run(&["dlq", "show", "p", "nothing"]);
    assert!(unknown.status.code() == Some(1) && stderr(&unknown).contains("sluice dlq list p"), "{}", stderr(&unknown));
}
