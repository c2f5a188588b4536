//! Streams, in the form that is asked for.
#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

mod binary;

use std::{
    io::{BufRead, BufReader},
    process::{Child, Stdio},
};

use binary::{Dev, sluice};
use serde_json::Value;

/// A command that goes on, ended when it is dropped.
struct Follow {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Follow {
    fn audit(dev: &Dev, form: &[&str]) -> Self {
        let mut command = sluice(&[&["audit", "--follow"][..], form].concat());
        command.env("SLUICE_SERVER", format!("http://127.0.0.1:{}", 8082 + dev.offset));
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    fn line(&mut self) -> String {
        self.lines.next().unwrap().unwrap()
    }
}

impl Drop for Follow {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn events_are_rows_json_or_yaml() {
    let dev = Dev::start();
    assert!(dev.feed(&["secret", "set", "token"], "hunter2").status.success());
    let mut rows = Follow::audit(&dev, &[]);
    assert!(rows.line().starts_with("AT  EVENT  KIND"));
    let row = rows.line();
    assert!(row.contains("  secret-set  ") && row.contains("  token  "), "{row}");
    let event: Value = serde_json::from_str(&Follow::audit(&dev, &["-o", "json"]).line()).unwrap();
    assert_eq!((&event["event"], &event["secret"]), (&"secret-set".into(), &"token".into()));
    let mut yaml = Follow::audit(&dev, &["-o", "yaml"]);
    assert_eq!(yaml.line(), "---");
    let fields: Vec<String> = (0..event.as_object().unwrap().len()).map(|_| yaml.line()).collect();
    assert!(fields.iter().any(|field| field == "event: secret-set"), "{fields:?}");
}
