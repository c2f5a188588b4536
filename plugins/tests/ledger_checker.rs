#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use serde_json::{Value, json};
use sluice_plugins::ready_made;
use sluice_testkit::runtime::{Decision, HalfMessage};
use sluice_testkit::{Kit, Topics, half};

fn decide(more: &Value, message: &HalfMessage) -> Decision {
    let ledger = Topics::default()
        .message("ledger", "o-1", r#"{"state":"open","amount":5}"#)
        .message("ledger", "o-1", r#"{"state":"paid","amount":5}"#)
        .message("ledger", "o-2", r#"{"state":"cancelled"}"#)
        .message("ledger", "o-3", r#"{"state":"open"}"#);
    let mut config = json!({"topic": "ledger", "amount": "/amount"});
    config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let kit = Kit::upload(ready_made("ledger-checker").unwrap().component).unwrap().topics(ledger);
    kit.start(&config).unwrap().check(message).unwrap()
}

fn rollback(reason: &str) -> Decision {
    Decision::Rollback(reason.into())
}

#[test]
fn the_ledgers_newest_word_decides() {
    let none = json!({});
    assert_eq!(decide(&none, &half("o-1", r#"{"amount":5}"#)), Decision::Commit);
    assert_eq!(decide(&none, &half("o-2", r#"{"amount":5}"#)), rollback("the ledger says cancelled"));
    assert_eq!(decide(&none, &half("o-3", r#"{"amount":5}"#)), Decision::Unknown);
    let wait = json!({"ask-again-ms": 2500});
    assert_eq!(decide(&wait, &half("o-9", r#"{"amount":5}"#)), Decision::AskAgainAfter(Duration::from_millis(2500)));
}

#[test]
fn the_messages_own_content_decides_first() {
    let none = json!({});
    let wrong = rollback("the amount is not a number above 0");
    assert_eq!(decide(&none, &half("o-1", r#"{"amount":-5}"#)), wrong);
    assert_eq!(decide(&none, &half("o-1", r#"{"amount":"5"}"#)), wrong);
    assert_eq!(decide(&none, &half("o-1", "x")), rollback("the body is no JSON"));
    let by_body = json!({"key": "/order"});
    assert_eq!(decide(&by_body, &half("other", r#"{"order":"o-1","amount":1}"#)), Decision::Commit);
    assert_eq!(decide(&by_body, &half("o-1", r#"{"amount":1}"#)), rollback("the message has no key to look up"));
    let booked = json!({"entry-amount": "/amount"});
    assert_eq!(decide(&booked, &half("o-1", r#"{"amount":5.0}"#)), Decision::Commit);
    assert_eq!(decide(&booked, &half("o-1", r#"{"amount":6}"#)), rollback("the ledger has amount 5, the message 6"));
}

#[test]
fn the_last_check_gives_up_unless_told_otherwise() {
    let last = HalfMessage { attempt: 14, ..half("o-3", r#"{"amount":5}"#) };
    assert_eq!(decide(&json!({}), &last), rollback("ledger says nothing of o-3 after 15 checks"));
    assert_eq!(decide(&json!({"give-up": false}), &last), Decision::Unknown);
}

#[test]
fn a_topic_that_was_not_granted_is_named() {
    let kit = Kit::upload(ready_made("ledger-checker").unwrap().component).unwrap();
    let mut run = kit.start(&json!({"topic": "secrets"})).unwrap();
    let error = run.check(&half("k", "{}")).unwrap_err().to_string();
    assert_eq!(error, "the plugin failed: topic secrets is not granted to this plugin; granted: none");
}
