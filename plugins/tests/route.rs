#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use serde_json::json;
use sluice_plugins::ready_made;
use sluice_testkit::{Kit, record};

fn kit() -> Kit {
    Kit::upload(ready_made("route").unwrap().component).unwrap().sinks(&["orders-eu", "orders-us"])
}

#[test]
fn a_header_decides() {
    let config = json!({"header": "region", "routes": {"eu": "orders-eu", "us": "orders-us"}, "otherwise": "drop"});
    let region = |region: &str| record("x").header("other", "us").header("region", region);
    let out =
        kit().start(&config).unwrap().transform(&[region("us"), region("eu"), region("mars"), region("us")]).unwrap();
    let went: Vec<_> = out.made.iter().map(|made| (made.from, made.sink)).collect();
    assert_eq!(went, [(0, 1), (1, 0), (3, 1)]);
    assert!(out.failed.is_empty());
}

#[test]
fn a_field_decides_and_a_value_without_a_route_is_a_dead_letter() {
    let config = json!({"field": "/to/zone", "routes": {"1": "orders-eu", "true": "orders-us"}});
    let bodies = [r#"{"to":{"zone":1}}"#, r#"{"to":{"zone":true}}"#, r#"{"to":{"zone":"x"}}"#, "{}", "["];
    let records: Vec<_> = bodies.iter().map(|body| record(*body)).collect();
    let out = kit().start(&config).unwrap().transform(&records).unwrap();
    assert_eq!(out.made.iter().map(|made| made.sink).collect::<Vec<_>>(), [0, 1]);
    let failed: Vec<_> = out.failed.iter().map(|(i, code, reason)| (*i, code.as_str(), reason.as_str())).collect();
    assert_eq!(failed[0], (2, "no-route", "no route for \"x\", and no `otherwise`"));
    assert_eq!(failed[1], (3, "no-route", "no route for no value, and no `otherwise`"));
    assert_eq!((failed[2].0, failed[2].1), (4, "not-json"));
}

#[test]
fn a_topic_that_is_no_sink_keeps_the_pipeline_from_starting() {
    let config = json!({"header": "region", "routes": {"eu": "orders-mars"}});
    let error = kit().start(&config).err().unwrap().to_string();
    assert!(error.contains("orders-mars is no sink of this pipeline; its sinks are orders-eu, orders-us"), "{error}");
}
