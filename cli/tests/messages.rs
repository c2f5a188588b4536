//! Messages in, messages out, over RocketMQ's protocol.

mod binary;

use binary::{Dev, sluice, stderr, stdout};

#[test]
fn what_is_produced_is_consumed() {
    let dev = Dev::start();
    let args = ["produce", "greetings", "--key", "k1", "--tag", "nice", "--property", "from=test", "-o", "json"];
    let sent = dev.feed(&args, "one\ntwo\nthree\n");
    assert!(sent.status.success(), "{}", stderr(&sent));
    assert_eq!(serde_json::from_slice::<serde_json::Value>(&sent.stdout).unwrap()["messages"], 3);

    let all = dev.run(&["consume", "greetings"]);
    let printed = stdout(&all);
    let mut bodies: Vec<_> = printed.lines().collect();
    bodies.sort_unstable();
    assert_eq!(bodies, ["one", "three", "two"], "{}", stderr(&all));

    let one = stdout(&dev.run(&["consume", "greetings", "-n", "1", "--format", "%t %k %T"]));
    assert_eq!(one, "greetings k1 nice\n");
    let json = stdout(&dev.run(&["consume", "greetings", "-n", "1", "--format", "json"]));
    let message: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(message["properties"]["from"], "test");
}

#[test]
fn a_queue_is_read_from_an_offset_and_from_a_time() {
    let dev = Dev::start();
    let input: String = (0..40).map(|n| format!("m{n}\n")).collect();
    assert!(dev.feed(&["produce", "numbers"], &input).status.success());
    let from = stdout(&dev.run(&["consume", "numbers", "--from", "1:3", "--format", "%q:%o"]));
    assert_eq!(from.lines().next(), Some("1:3"));
    assert!(from.lines().all(|line| line.starts_with("1:")), "{from}");
    let recent = stdout(&dev.run(&["consume", "numbers", "--from", "@-1h"]));
    assert_eq!(recent.lines().count(), 40);
    let none = stdout(&dev.run(&["consume", "numbers", "--from", "@2100-01-01T00:00:00Z"]));
    assert_eq!(none, "");
}

#[test]
fn the_name_server_is_that_of_the_server_when_only_that_is_given() {
    let dev = Dev::start();
    let server = format!("http://127.0.0.1:{}", 8082 + dev.offset);
    let by_server = |args: &[&str]| sluice(args).args(["--server", &server]).output().unwrap();
    assert!(dev.feed(&["produce", "greetings"], "one\n").status.success());
    let read = by_server(&["consume", "greetings"]);
    assert_eq!(stdout(&read), "one\n", "{}", stderr(&read));
    let sent = by_server(&["bench", "produce", "--messages", "3", "-o", "json"]);
    assert!(sent.status.success(), "{}", stderr(&sent));
    let nobody = sluice(&["consume", "greetings", "--server", "http://127.0.0.1:1"]).output().unwrap();
    assert_eq!(nobody.status.code(), Some(1));
    assert!(stderr(&nobody).contains("--server"), "{}", stderr(&nobody));
}

#[test]
fn an_unknown_topic_fails_with_its_name() {
    let dev = Dev::start();
    let output = dev.run(&["consume", "nowhere"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("nowhere"), "{}", stderr(&output));
}

#[test]
fn a_load_is_measured() {
    let dev = Dev::start();
    let produce = ["bench", "produce", "--messages", "500", "--producers", "2", "--in-flight", "4", "-o", "json"];
    let sent: serde_json::Value = serde_json::from_slice(&dev.run(&produce).stdout).unwrap();
    assert_eq!((&sent["messages"], &sent["failed"]), (&500.into(), &0.into()));
    assert!(sent["latency"]["p50_us"].as_f64().unwrap() > 0.0);
    let consume = ["bench", "consume", "--consumers", "2", "-o", "json"];
    let read: serde_json::Value = serde_json::from_slice(&dev.run(&consume).stdout).unwrap();
    // Each producer sent one to open its connection.
    assert_eq!(read["messages"], 502);
}
