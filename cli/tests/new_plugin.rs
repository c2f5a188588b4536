//! A plugin from nothing: written, built, tested, uploaded.
#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

mod binary;

use std::{path::Path, process::Output};

use binary::{Dev, sluice, stderr, stdout};
use serde_json::Value;

const ROLES: [&str; 4] = ["filter", "transform", "process", "check-transaction"];

/// Runs a command in a folder, with what cargo needs to be found.
fn run_in(dir: &Path, args: &[&str]) -> Output {
    let mut command = sluice(args);
    command.current_dir(dir);
    for name in ["PATH", "HOME", "CARGO", "CARGO_HOME", "RUSTUP_HOME", "RUSTUP_TOOLCHAIN", "CARGO_NET_OFFLINE"] {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    command.output().unwrap()
}

#[track_caller]
fn done(output: &Output) -> String {
    assert!(output.status.success(), "{}", stderr(output));
    stdout(output)
}

/// Writes and builds a plugin, and has a server check it.
#[track_caller]
fn check_new(dev: &Dev, dir: &Path, role: &str) {
    let name = format!("my-{role}");
    done(&run_in(dir, &["plugin", "new", &name, "--role", role]));
    let built = done(&run_in(dir, &["plugin", "build", &name, "-o", "json"]));
    let built: Value = serde_json::from_str(&built).unwrap();
    let file = dir.join(&name).join(format!("{name}.wasm"));
    let size = std::fs::metadata(&file).unwrap().len();
    assert_eq!((&built["items"][0]["name"], &built["items"][0]["size"]), (&name.as_str().into(), &size.into()));
    let report = done(&dev.run(&["plugin", "check", file.to_str().unwrap(), "-o", "json"]));
    let report: Value = serde_json::from_str(&report).unwrap();
    assert_eq!(report["roles"], Value::from(vec![role]));
}

#[test]
fn a_new_plugin_is_built_and_passes_the_gate() {
    let (dev, dir) = (Dev::start(), tempfile::tempdir().unwrap());
    for role in ["filter", "process"] {
        check_new(&dev, dir.path(), role);
    }
}

#[test]
fn nothing_is_overwritten_and_failures_say_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("mine")).unwrap();
    let there = run_in(dir.path(), &["plugin", "new", "mine"]);
    assert!(there.status.code() == Some(1) && stderr(&there).contains("is there already"), "{}", stderr(&there));
    assert_eq!(std::fs::read_dir(dir.path().join("mine")).unwrap().count(), 0);
    let no_sdk = run_in(dir.path(), &["plugin", "new", "other", "--sdk", "mine"]);
    assert!(no_sdk.status.code() == Some(1) && stderr(&no_sdk).contains("sdk-wasm"), "{}", stderr(&no_sdk));
    assert!(!dir.path().join("other").exists());
    for verb in ["build", "test"] {
        let none = run_in(dir.path(), &["plugin", verb, "mine"]);
        assert!(none.status.code() == Some(1) && stderr(&none).contains("Cargo.toml"), "{}", stderr(&none));
    }

    done(&run_in(dir.path(), &["plugin", "new", "broken"]));
    std::fs::write(dir.path().join("broken/Cargo.toml"), "no manifest").unwrap();
    let broken = run_in(dir.path(), &["plugin", "build", "broken"]);
    assert!(broken.status.code() == Some(1) && stderr(&broken).contains("does not compile"), "{}", stderr(&broken));
}

/// Compiles the SDK for each role and the whole runtime anew, as a user's first `sluice plugin test` does.
#[test]
#[ignore = "takes minutes: `just slow`"]
fn the_tests_of_a_new_plugin_pass_until_it_is_changed() {
    let (dev, dir) = (Dev::start(), tempfile::tempdir().unwrap());
    for role in ROLES {
        check_new(&dev, dir.path(), role);
        let name = format!("my-{role}");
        // They share what they compile: each is that of the one before.
        let config = dir.path().join(".cargo/config.toml");
        std::fs::create_dir_all(config.parent().unwrap()).unwrap();
        std::fs::write(&config, format!("[build]\ntarget-dir = {:?}\n", dir.path().join("target"))).unwrap();
        let tested = done(&run_in(&dir.path().join(&name), &["plugin", "test"]));
        assert!(tested.contains("test result: ok") && !tested.contains(" 0 passed"), "{tested}");
    }
    let source = dir.path().join("my-filter/src/lib.rs");
    let text = std::fs::read_to_string(&source).unwrap().replace("amount > cfg.min", "amount < cfg.min");
    std::fs::write(&source, text).unwrap();
    let failed = run_in(&dir.path().join("my-filter"), &["plugin", "test"]);
    assert_eq!(failed.status.code(), Some(1));
    assert!(stderr(&failed).contains("failed"), "{}", stderr(&failed));
}
