//! Help, usage errors and exit codes.

mod binary;

use binary::{run, stderr, stdout};

#[test]
fn every_command_has_help_with_an_example() {
    let commands: &[&[&str]] = &[
        &["dev"],
        &["demo"],
        &["namesrv"],
        &["broker"],
        &["produce"],
        &["consume"],
        &["topic", "list"],
        &["topic", "create"],
        &["topic", "describe"],
        &["topic", "alter"],
        &["topic", "delete"],
        &["group", "list"],
        &["group", "describe"],
        &["group", "reset-offset"],
        &["group", "delete"],
        &["plugin", "new"],
        &["plugin", "build"],
        &["plugin", "test"],
        &["plugin", "push"],
        &["plugin", "list"],
        &["plugin", "describe"],
        &["plugin", "check"],
        &["plugin", "delete"],
        &["pipeline", "apply"],
        &["pipeline", "list"],
        &["pipeline", "describe"],
        &["pipeline", "pause"],
        &["pipeline", "resume"],
        &["pipeline", "logs"],
        &["pipeline", "delete"],
        &["dlq", "list"],
        &["dlq", "show"],
        &["dlq", "replay"],
        &["dlq", "purge"],
        &["bench", "produce"],
        &["bench", "consume"],
        &["completions"],
    ];
    for command in commands {
        let output = run(&[command, &["--help"][..]].concat());
        assert_eq!(output.status.code(), Some(0), "{command:?}");
        assert!(stdout(&output).contains("Example:\n  "), "{command:?}");
    }
}

#[test]
fn wrong_usage_is_2_and_failure_is_1() {
    assert_eq!(run(&["--help"]).status.code(), Some(0));
    assert_eq!(run(&[]).status.code(), Some(2));
    assert_eq!(run(&["toipc"]).status.code(), Some(2));
    assert_eq!(run(&["topic", "list", "-o", "xml"]).status.code(), Some(2));
    assert_eq!(run(&["dlq", "replay", "p"]).status.code(), Some(2));
    assert_eq!(run(&["dlq", "replay", "p", "id", "--all"]).status.code(), Some(2));
    assert_eq!(run(&["dlq", "purge", "p"]).status.code(), Some(2));
    assert_eq!(run(&["plugin", "new", "../mine"]).status.code(), Some(2));
    let delay = run(&["produce", "t", "--delay", "4d"]);
    assert_eq!(delay.status.code(), Some(2));
    assert!(stderr(&delay).contains("at most 3d"), "{}", stderr(&delay));
    let nobody = run(&["topic", "list", "--server", "http://127.0.0.1:1"]);
    assert_eq!(nobody.status.code(), Some(1));
    assert!(stderr(&nobody).contains("sluice dev"), "{}", stderr(&nobody));
}

#[test]
fn shells_complete_it() {
    for shell in ["bash", "zsh", "fish"] {
        let script = run(&["completions", shell]);
        assert!(script.status.success() && stdout(&script).contains("reset-offset"), "{shell}");
    }
}
