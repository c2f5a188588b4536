//! A checker from the command line: bound, looked at, and what it decides.
#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

mod binary;
mod guests;

use binary::{Dev, stderr, stdout};
use serde_json::Value;

#[track_caller]
fn run(dev: &Dev, args: &[&str]) -> String {
    let output = dev.run(args);
    assert!(output.status.success(), "{args:?}: {}", stderr(&output));
    stdout(&output)
}

#[test]
fn a_checker_is_bound_shown_and_unbound() {
    let dev = Dev::start();
    guests::push(&dev, &["ledger-checker"]);
    run(&dev, &["topic", "create", "ledger"]);
    let config = r#"{"topic":"ledger"}"#;
    let apply =
        ["checker", "apply", "payments", "--plugin", "ledger-checker@1", "--config", config, "--topic", "ledger"];
    assert_eq!(run(&dev, &apply), "the checker of producer group payments is applied\n");
    let shown: Value = serde_json::from_str(&run(&dev, &["checker", "show", "payments", "-o", "json"])).unwrap();
    assert_eq!(
        (&shown["group"], &shown["policy"], &shown["topics"][0]),
        (&"payments".into(), &"plugin-first".into(), &"ledger".into())
    );
    assert!(shown["plugin_digest"].as_str().unwrap().starts_with("sha256:"), "{shown}");
    run(&dev, &["checker", "logs", "payments"]);

    let unknown = dev.run(&["checker", "apply", "payments", "--plugin", "none"]);
    assert!(unknown.status.code() == Some(1) && stderr(&unknown).contains("plugin \"none\""), "{}", stderr(&unknown));
    assert_eq!(dev.run(&["checker", "apply", "payments"]).status.code(), Some(2));

    run(&dev, &["checker", "delete", "payments"]);
    assert_eq!(dev.run(&["checker", "show", "payments"]).status.code(), Some(1));
    let file = tempfile::NamedTempFile::new().unwrap();
    let text = "plugin: ledger-checker\npolicy: plugin-only\nconfig: { topic: ledger }\ntopics: [ ledger ]\n";
    std::fs::write(&file, text).unwrap();
    run(&dev, &["checker", "apply", "payments", "-f", file.path().to_str().unwrap()]);
    let shown: Value = serde_json::from_str(&run(&dev, &["checker", "show", "payments", "-o", "json"])).unwrap();
    assert_eq!(shown["policy"], "plugin-only");
}
