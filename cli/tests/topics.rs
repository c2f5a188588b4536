//! Topics over REST, and what RocketMQ's own tools may do to them.
#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

mod binary;

use binary::{Dev, stderr, stdout};
use sluice_client::{Client, ClientConfig, Error};

#[test]
fn a_topic_is_made_shown_changed_and_deleted() {
    let dev = Dev::start();
    let made = dev.run(&["topic", "create", "orders", "--queues", "3", "--type", "fifo"]);
    assert!(made.status.success(), "{}", stderr(&made));
    let list = stdout(&dev.run(&["topic", "list"]));
    let row = list.lines().find(|line| line.starts_with("orders ")).unwrap();
    assert!(row.contains(" 3 ") && row.contains("fifo"), "{list}");

    assert!(dev.run(&["topic", "alter", "orders", "--queues", "5"]).status.success());
    let shown = dev.run(&["topic", "describe", "orders", "-o", "json"]);
    let topic: serde_json::Value = serde_json::from_slice(&shown.stdout).unwrap();
    assert_eq!((&topic["queues"], &topic["type"]), (&5.into(), &"fifo".into()));

    assert!(dev.run(&["topic", "delete", "orders"]).status.success());
    let gone = dev.run(&["topic", "describe", "orders"]);
    assert_eq!(gone.status.code(), Some(1));
    assert!(stderr(&gone).contains("orders") && stderr(&gone).contains("hint"), "{}", stderr(&gone));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_a_pipeline_uses_is_not_deleted_by_rocketmqs_tools_either() {
    let dev = Dev::start();
    for topic in ["in", "out", "free"] {
        dev.ok(&["topic", "create", topic, "--queues", "1"]);
    }
    dev.ok(&["plugin", "push", "json-filter"]);
    let spec = "name: p\nsource: { topic: in }\nsteps: [ { plugin: json-filter, config: { path: /a, equals: 1 } } ]\nsinks: [ out ]\n";
    let applied = dev.feed(&["pipeline", "apply", "-f", "-"], spec);
    assert!(applied.status.success(), "{}", stderr(&applied));
    let admin = Client::new(ClientConfig::new([dev.name_server()])).unwrap();
    let admin = admin.admin();
    for topic in ["in", "out"] {
        let Err(Error::Refused { remark, .. }) = admin.delete_topic(topic).await else { panic!("{topic} was deleted") };
        assert_eq!(remark, format!("topic \"{topic}\" is in use by pipelines: p"));
    }
    admin.delete_topic("free").await.unwrap();
    assert!(dev.ok(&["topic", "list"]).contains("out"));
}
