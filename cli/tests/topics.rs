//! Topics over REST.

mod binary;

use binary::{Dev, stderr, stdout};

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
