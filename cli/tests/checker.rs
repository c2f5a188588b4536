//! A checker from the command line: bound, looked at, and what it decides.
#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

mod binary;
mod guests;

use std::time::{Duration, Instant};

use binary::{Dev, stderr};
use serde_json::Value;
use sluice_client::{Client, ClientConfig, Decision, Message, Topic};

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

/// How often the checker of the group said this.
fn answers(dev: &Dev, answer: &str) -> u64 {
    let line = format!("sluice_checker_answers_total{{producer_group=\"bank\",answer=\"{answer}\"}} ");
    let metrics = dev.metrics();
    let found = metrics.lines().find_map(|found| found.strip_prefix(&line));
    found.unwrap_or_else(|| panic!("{line}")).parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checker_that_fails_on_everything_is_not_asked_for_a_while_but_the_producers_are() {
    const HALVES: u64 = 200;
    let dev = Dev::start();
    guests::push_hostile(&dev);
    dev.ok(&["checker", "apply", "bank", "--plugin", "hostile"]);
    let client = Client::new(ClientConfig::new([dev.name_server()])).unwrap();
    client.admin().create_topic(&Topic::new("payments", 1)).await.unwrap();
    let producer = client.producer("bank").unwrap().transactional(|_| Decision::Commit);
    for _ in 0..HALVES {
        let half = Message::new("payments", "trap").property("CHECK_IMMUNITY_TIME_IN_SECONDS", "1");
        producer.send(half, async |_| Decision::Unknown).await.unwrap();
    }
    let began = Instant::now();
    let consumer = client.pull_consumer("reader").unwrap();
    let queue = consumer.queues("payments").await.unwrap().remove(0);
    while consumer.max_offset(&queue).await.unwrap() < HALVES as i64 {
        assert!(began.elapsed() < Duration::from_secs(45), "the producer is not asked about all of them");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let (failed, unasked) = (answers(&dev, "failed"), answers(&dev, "unasked"));
    assert!(failed >= 32 && unasked > 0 && failed + unasked >= HALVES, "{failed} failed, {unasked} unasked");
}

fn get(dev: &Dev, path: &str) -> Value {
    let url = format!("http://127.0.0.1:{}/api/v1{path}", 8082 + dev.offset);
    serde_json::from_str(&ureq::get(url).call().unwrap().into_body().read_to_string().unwrap()).unwrap()
}

/// How often this was decided.
fn decided(dev: &Dev, decision: &str) -> usize {
    let decisions = get(dev, "/transactions/decisions");
    decisions["items"].as_array().unwrap().iter().filter(|of| of["decision"] == decision).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_half_message_expires_when_its_checker_was_really_asked_so_often() {
    const HALVES: u64 = 5;
    const CHECKS: u64 = 2;
    let dev = Dev::start_with(&format!("transaction_checks = {CHECKS}\ntransaction_interval = \"1s\""));
    guests::push_hostile(&dev);
    dev.ok(&["checker", "apply", "bank", "--plugin", "hostile", "--policy", "plugin-only"]);
    let client = Client::new(ClientConfig::new([dev.name_server()])).unwrap();
    client.admin().create_topic(&Topic::new("payments", 1)).await.unwrap();
    let producer = client.producer("bank").unwrap().transactional(|_| Decision::Commit);
    let half = |body: &'static str| Message::new("payments", body).property("CHECK_IMMUNITY_TIME_IN_SECONDS", "1");
    for _ in 0..HALVES {
        // It takes its deadline for each, and rests much longer: it is behind all the time.
        producer.send(half("loop"), async |_| Decision::Unknown).await.unwrap();
    }
    // The last one waits behind the others until its producer decides it.
    let asked_about_one = async |_| {
        while answers(&dev, "failed") == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Decision::Rollback
    };
    producer.send(half("loop"), asked_about_one).await.unwrap();

    let began = Instant::now();
    while decided(&dev, "expired") < HALVES as usize {
        let waiting = get(&dev, "/transactions");
        let checks: u64 =
            waiting["items"].as_array().unwrap().iter().map(|half| half["checks"].as_u64().unwrap()).sum();
        let asked = answers(&dev, "failed");
        assert!(checks <= asked, "{checks} questions counted, {asked} put");
        assert!(began.elapsed() < Duration::from_secs(90), "{waiting}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!((answers(&dev, "failed"), decided(&dev, "rollback")), (HALVES * CHECKS, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checker_gives_up_at_the_last_question_and_not_before() {
    let dev = Dev::start_with("transaction_checks = 2\ntransaction_interval = \"1s\"");
    guests::push(&dev, &["ledger-checker"]);
    dev.ok(&["topic", "create", "ledger"]);
    let config = r#"{"topic":"ledger"}"#;
    let apply = ["checker", "apply", "bank", "--plugin", "ledger-checker", "--config", config, "--topic", "ledger"];
    dev.ok(&apply);
    let client = Client::new(ClientConfig::new([dev.name_server()])).unwrap();
    client.admin().create_topic(&Topic::new("payments", 1)).await.unwrap();
    let producer = client.producer("bank").unwrap().transactional(|_| Decision::Unknown);
    let half = Message::new("payments", "{}").key("o-1").property("CHECK_IMMUNITY_TIME_IN_SECONDS", "1");
    producer.send(half, async |_| Decision::Unknown).await.unwrap();
    let began = Instant::now();
    while decided(&dev, "rollback") == 0 {
        assert!(began.elapsed() < Duration::from_secs(30), "{}", get(&dev, "/transactions"));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!((answers(&dev, "unknown"), answers(&dev, "rollback")), (1, 1));
    let decision = get(&dev, "/transactions/decisions")["items"][0].clone();
    assert!(decision["reason"].as_str().is_some_and(|reason| reason.contains("ledger")), "{decision}");
}
