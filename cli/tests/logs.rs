//! What plugins log and measure, from the outside.
#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

mod binary;
mod guests;

use std::time::{Duration, Instant};

use binary::{Dev, stderr};
use serde_json::Value;
use sluice_client::{Client, ClientConfig};
use sluice_model::QueueOffset;

/// Applies a pipeline over `in` and `out` whose one plugin misbehaves in this mode; gives what is said against it.
fn apply(dev: &Dev, mode: &str, more: &str) -> String {
    let file = tempfile::NamedTempFile::new().unwrap();
    let steps = format!("steps: [ {{ plugin: hostile, config: {{ mode: {mode} }} }} ]");
    let spec = format!("name: p\nsource: {{ topic: in, start: earliest }}\nsinks: [ out ]\n{steps}\n{more}\n");
    std::fs::write(file.path(), spec).unwrap();
    stderr(&dev.run(&["pipeline", "apply", "-f", file.path().to_str().unwrap()]))
}

/// The pipeline as soon as it has done with so many records.
fn after(dev: &Dev, records: u64) -> Value {
    let began = Instant::now();
    loop {
        let found: Value = serde_json::from_str(&dev.ok(&["pipeline", "describe", "p", "-o", "json"])).unwrap();
        if found["in"] == records && found["lag"] == 0 {
            return found;
        }
        assert!(began.elapsed() < Duration::from_secs(20), "{found}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn world(queues: &str) -> Dev {
    let dev = Dev::start();
    guests::push_hostile(&dev);
    for topic in ["in", "out", "lines"] {
        dev.ok(&["topic", "create", topic, "--queues", queues]);
    }
    dev
}

#[test]
fn lines_become_messages_of_a_topic_and_what_waits_is_sent_before_the_end() {
    let dev = world("1");
    assert!(apply(&dev, "logs", "logs: { topic: none }").contains("logs.topic: topic \"none\""));
    assert!(apply(&dev, "logs", "logs: { topic: in }").contains("logs.topic: topic \"in\" is the source as well"));
    assert!(apply(&dev, "logs", "logs: { level: loud }").contains("expected one of"));
    assert_eq!(apply(&dev, "logs", "logs: { topic: lines }"), "");
    let refused = dev.run(&["topic", "delete", "lines"]);
    assert!(!refused.status.success() && stderr(&refused).contains('p'), "{}", stderr(&refused));

    assert!(dev.feed(&["produce", "in"], "a\nb\n").status.success());
    let found = after(&dev, 2);
    let written = found["log_lines"]["written"].as_u64().unwrap();
    assert!(written >= 65, "{found}");
    dev.ok(&["pipeline", "pause", "p"]);
    let messages = dev.ok(&["consume", "lines", "--from", "earliest", "-n", "1000", "--format", "json"]);
    let messages: Vec<Value> = messages.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(messages.len() as u64, written);
    let (first, last) = (&messages[0], &messages[64]);
    assert_eq!((&first["key"], &first["tag"], &last["tag"]), (&"p".into(), &"info".into(), &"warn".into()), "{first}");
    let body: Value = serde_json::from_str(first["body"].as_str().unwrap()).unwrap();
    let fixed = serde_json::json!({ "level": "info", "pipeline": "p", "step": "hostile", "queue": 0, "message": "line 0", "fields": {} });
    for (field, value) in fixed.as_object().unwrap() {
        assert_eq!(&body[field], value, "{body}");
    }
    assert_eq!(body["plugin"], found["steps"][0]["plugin_digest"]);
    assert!(body["time"].as_str().unwrap().ends_with('Z'), "{body}");

    // A line below the level is not even written. Those before it stay.
    assert_eq!(apply(&dev, "logs", "logs: { topic: lines, level: warn }"), "");
    dev.ok(&["pipeline", "resume", "p"]);
    assert!(dev.feed(&["produce", "in"], "c\n").status.success());
    assert_eq!(after(&dev, 1)["log_lines"]["written"], written);
}

#[test]
fn what_plugins_measure_is_summed_over_queues_for_whoever_scrapes() {
    let dev = world("2");
    assert_eq!(apply(&dev, "measure", ""), "");
    assert!(dev.feed(&["produce", "in"], "a\nbb\nccc\ndddd\n").status.success());
    after(&dev, 4);
    let metrics = dev.metrics();
    let labels = "pipeline=\"p\",step=\"hostile\"";
    for line in [
        format!("sluice_plugin_counter_total{{{labels},name=\"records\"}} 4.0\n"),
        format!("sluice_plugin_histogram_sum{{{labels},name=\"sizes\"}} 10.0\n"),
        format!("sluice_plugin_histogram_count{{{labels},name=\"sizes\"}} 4\n"),
        format!("sluice_plugin_histogram_bucket{{le=\"2.5\",{labels},name=\"sizes\"}} 2\n"),
        "sluice_plugin_metric_values_refused_total{pipeline=\"p\"} 0\n".to_owned(),
        "sluice_pipeline_log_lines_total{pipeline=\"p\",outcome=\"lost\"} 0\n".to_owned(),
    ] {
        assert!(metrics.contains(&line), "{line}: {metrics}");
    }
    // Each queue ends with one of the two longest, or a queue had none.
    let gauge = format!("sluice_plugin_gauge{{{labels},name=\"last_size\"}} ");
    let gauge = metrics.lines().find_map(|line| line.strip_prefix(&gauge)).unwrap();
    assert!(["4.0", "7.0"].contains(&gauge), "{gauge}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_plugins_of_an_ingress_and_a_filter_measure_is_told_with_their_place() {
    let dev = world("1");
    let spec = "steps: [ { plugin: hostile, config: { mode: measure } } ]";
    let bound = dev.feed(&["topic", "ingress", "apply", "in", "-f", "-"], spec);
    assert!(bound.status.success(), "{}", stderr(&bound));
    let consumer = Client::new(ClientConfig::new([dev.name_server()])).unwrap().pull_consumer("g").unwrap();
    let queue = consumer.queues("in").await.unwrap().remove(0);
    consumer.commit(&queue, QueueOffset(0)).await.unwrap();
    let config = r#"{"mode":"measure"}"#;
    dev.ok(&["group", "filter", "apply", "g", "in", "--plugin", "hostile", "--config", config]);
    assert!(dev.feed(&["produce", "in"], "a\nbb\nccc\n").status.success());
    assert!(dev.feed(&["produce", "out"], "not asked about\n").status.success());
    assert_eq!(consumer.pull(&queue, "*", 0, 32, Duration::ZERO).await.unwrap().messages.len(), 3);
    let metrics = dev.metrics();
    for line in [
        "sluice_plugin_counter_total{ingress=\"in\",step=\"hostile\",name=\"records\"} 3.0\n",
        "sluice_plugin_histogram_sum{ingress=\"in\",step=\"hostile\",name=\"sizes\"} 6.0\n",
        "sluice_ingress_messages_total{topic=\"in\",outcome=\"sent\"} 3\n",
        "sluice_plugin_counter_total{filter=\"g\",topic=\"in\",step=\"hostile\",name=\"records\"} 3.0\n",
        "sluice_filter_messages_total{consumer_group=\"g\",topic=\"in\",outcome=\"sent\"} 3\n",
    ] {
        assert!(metrics.contains(line), "{line}: {metrics}");
    }
}
