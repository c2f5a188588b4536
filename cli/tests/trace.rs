//! One message on its way, from the command line.
#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

mod binary;
mod guests;

use std::time::{Duration, Instant};

use binary::{Dev, stderr};

#[test]
fn a_trace_is_a_table_of_places_and_steps() {
    let dev = Dev::start();
    guests::push_hostile(&dev);
    guests::push(&dev, &["json-map"]);
    for topic in ["in", "out"] {
        dev.ok(&["topic", "create", topic, "--queues", "1"]);
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    let steps = "steps: [ { plugin: json-map, config: { set: { /seen: true } } }, { plugin: hostile, config: { mode: logs } } ]";
    let spec = format!("name: p\nsource: {{ topic: in, start: earliest }}\nsinks: [ out ]\n{steps}\n");
    std::fs::write(file.path(), spec).unwrap();
    dev.ok(&["pipeline", "apply", "-f", file.path().to_str().unwrap()]);
    assert!(dev.feed(&["produce", "in", "--key", "k1"], "{\"n\":1}\n").status.success());
    let began = Instant::now();
    while !dev.ok(&["pipeline", "trace", "p", "--queue", "0", "--offset", "0"]).contains("TOPIC") {
        assert!(began.elapsed() < Duration::from_secs(20), "{}", dev.ok(&["pipeline", "describe", "p"]));
        std::thread::sleep(Duration::from_millis(20));
    }
    let text = dev.ok(&["pipeline", "trace", "p", "--queue", "0", "--offset", "0"]);
    let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    assert_eq!((field("passed "), field("position ")), (Some("true"), Some("1")), "{text}");
    let row = |step: &str, outcome: &str| {
        text.lines().any(|line| line.split_whitespace().any(|word| word == step) && line.contains(outcome))
    };
    assert!(row("json-map", "changed") && row("hostile", "kept") && row("hostile", "line 63"), "{text}");
    let traced: serde_json::Value =
        serde_json::from_str(&dev.ok(&["pipeline", "trace", "p", "--queue", "0", "--offset", "0", "-o", "json"]))
            .unwrap();
    let unique = traced["source"]["unique_key"].as_str().unwrap();
    assert_eq!(traced["sinks"][0]["unique_key"], unique);
    assert!(dev.ok(&["pipeline", "trace", "p", "--id", unique]).contains(unique));

    // One that becomes sixty: all are found, each under an id of its own.
    let steps = "steps: [ { plugin: hostile, config: { mode: sixty } } ]";
    let spec = format!("name: many\nsource: {{ topic: in, start: earliest }}\nsinks: [ out ]\n{steps}\n");
    std::fs::write(file.path(), spec).unwrap();
    dev.ok(&["pipeline", "apply", "-f", file.path().to_str().unwrap()]);
    let began = Instant::now();
    let sinks = loop {
        let traced = dev.ok(&["pipeline", "trace", "many", "--queue", "0", "--offset", "0", "-o", "json"]);
        let traced: serde_json::Value = serde_json::from_str(&traced).unwrap();
        if traced["passed"] == true {
            break traced["sinks"].as_array().unwrap().clone();
        }
        assert!(began.elapsed() < Duration::from_secs(20), "{traced}");
        std::thread::sleep(Duration::from_millis(20));
    };
    let key = |message: &serde_json::Value| message["unique_key"].as_str().unwrap().to_owned();
    let mut keys: Vec<String> = sinks.iter().map(key).collect();
    keys.sort();
    keys.dedup();
    // The other pipeline's output has the record's own key as well.
    assert_eq!((sinks.len(), keys.len()), (61, 60));
    assert!(keys[1..].iter().all(|key| key.starts_with(&format!("{unique}-"))), "{keys:?}");
    let found = dev.ok(&["pipeline", "trace", "many", "--id", unique, "-o", "json"]);
    assert!(found.contains(&keys[59]));

    let none = dev.run(&["pipeline", "trace", "p", "--queue", "0", "--offset", "7"]);
    assert!(none.status.code() == Some(1) && stderr(&none).contains("offset"), "{}", stderr(&none));
    assert_eq!(dev.run(&["pipeline", "trace", "p", "--queue", "0"]).status.code(), Some(2));
}
