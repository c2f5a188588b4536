//! A benchmark that needs topics of its own, from the command line.
#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

mod binary;

use binary::{Dev, stderr};
use serde_json::Value;

const IN: &str = "sluice-bench-pipeline-in";

fn names(dev: &Dev, kind: &str) -> Vec<String> {
    let list: Value = serde_json::from_str(&dev.ok(&[kind, "list", "-o", "json"])).unwrap();
    list["items"].as_array().unwrap().iter().map(|item| item["name"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn what_was_there_before_is_neither_used_nor_deleted() {
    let dev = Dev::start();
    // Once these were the benchmark's own names.
    for mine in ["bench-pipeline-in", "bench-pipeline-out", IN] {
        dev.ok(&["topic", "create", mine, "--queues", "1"]);
    }
    assert!(dev.feed(&["produce", IN], "mine\n").status.success());
    let bench = ["bench", "pipeline", "--records", "1000"];
    let refused = dev.run(&bench);
    assert_eq!(refused.status.code(), Some(1));
    assert!(stderr(&refused).contains(IN) && stderr(&refused).contains("exists already"), "{}", stderr(&refused));
    assert_eq!(dev.ok(&["consume", IN]), "mine\n");
    dev.ok(&["topic", "delete", IN]);

    let report: Value = serde_json::from_str(&dev.ok(&[&bench[..], &["-o", "json"]].concat())).unwrap();
    assert_eq!((&report["records"], &report["passed"]), (&1000.into(), &500.into()));
    let topics = names(&dev, "topic");
    assert!(topics.iter().filter(|name| name.contains("bench")).eq(["bench-pipeline-in", "bench-pipeline-out"]));
    assert!(names(&dev, "pipeline").is_empty() && names(&dev, "plugin").is_empty());
}
