//! A checker from the command line: bound, looked at, and what it decides.
#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

mod binary;
mod guests;

use binary::{Dev, stderr};
use serde_json::Value;

#[test]
fn a_checker_is_bound_shown_and_unbound() {
    let dev = Dev::start();
    guests::push(&dev, &["ledger-checker"]);
    dev.ok(&["topic", "create", "ledger"]);
    let config = r#"{"topic":"ledger"}"#;
    let apply =
        ["checker", "apply", "payments", "--plugin", "ledger-checker@1", "--config", config, "--topic", "ledger"];
    assert_eq!(dev.ok(&apply), "the checker of producer group payments is applied\n");
    let shown: Value = serde_json::from_str(&dev.ok(&["checker", "show", "payments", "-o", "json"])).unwrap();
    assert_eq!(
        (&shown["group"], &shown["policy"], &shown["topics"][0]),
        (&"payments".into(), &"plugin-first".into(), &"ledger".into())
    );
    assert!(shown["plugin_digest"].as_str().unwrap().starts_with("sha256:"), "{shown}");
    dev.ok(&["checker", "logs", "payments"]);

    let unknown = dev.run(&["checker", "apply", "payments", "--plugin", "none"]);
    assert!(unknown.status.code() == Some(1) && stderr(&unknown).contains("plugin \"none\""), "{}", stderr(&unknown));
    assert_eq!(dev.run(&["checker", "apply", "payments"]).status.code(), Some(2));

    dev.ok(&["checker", "delete", "payments"]);
    assert_eq!(dev.run(&["checker", "show", "payments"]).status.code(), Some(1));
    let file = tempfile::NamedTempFile::new().unwrap();
    let text = "plugin: ledger-checker\npolicy: plugin-only\nconfig: { topic: ledger }\ntopics: [ ledger ]\n";
    std::fs::write(&file, text).unwrap();
    dev.ok(&["checker", "apply", "payments", "-f", file.path().to_str().unwrap()]);
    let shown: Value = serde_json::from_str(&dev.ok(&["checker", "show", "payments", "-o", "json"])).unwrap();
    assert_eq!(shown["policy"], "plugin-only");
}
