//! Where a broker's settings come from, and how wrong ones are refused.
#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

mod binary;

use std::path::Path;

use binary::{run, sluice, stderr, stdout};

fn file(folder: &Path, name: &str, text: &str) -> String {
    let path = folder.join(name);
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn flags_win_over_the_environment_and_that_over_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let config = file(folder.path(), "sluice.toml", "name = 'file'\ncluster = 'file'\nport = 1111\nretention = '3d'\n");
    let output = sluice(&["broker", "--config", &config, "--print-config", "--name", "flag"])
        .env("SLUICE_NAME", "environment")
        .env("SLUICE_CLUSTER", "environment")
        .output()
        .unwrap();
    let printed = stdout(&output);
    for line in
        ["name = \"flag\"", "cluster = \"environment\"", "port = 1111", "retention = \"3d\"", "flush = \"sync\""]
    {
        assert!(printed.lines().any(|printed| printed == line), "{line} in\n{printed}");
    }
}

#[test]
fn an_unknown_key_is_refused_by_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let config = file(folder.path(), "sluice.toml", "prot = 1111\n");
    let output = run(&["broker", "--config", &config, "--print-config"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("prot"), "{}", stderr(&output));
}

#[test]
fn rocketmqs_own_file_is_read_and_unknown_keys_are_warned_about() {
    let folder = tempfile::tempdir().unwrap();
    let text =
        "brokerClusterName = C\nbrokerName=b\nlistenPort=10921\nflushDiskType=ASYNC_FLUSH\nbrokerRole=ASYNC_MASTER\n";
    let config = file(folder.path(), "broker.conf", text);
    let output = run(&["broker", "-c", &config, "--print-config"]);
    let printed = stdout(&output);
    for line in ["name = \"b\"", "cluster = \"C\"", "port = 10921", "flush = \"async\""] {
        assert!(printed.lines().any(|printed| printed == line), "{line} in\n{printed}");
    }
    assert!(stderr(&output).contains("brokerRole"), "{}", stderr(&output));
}
