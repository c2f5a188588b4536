#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::LazyLock;

use serde_json::{Value, json};
use sluice_plugins::ready_made;
use sluice_testkit::{Kit, Run, record};

/// Compiled once for all tests.
static KIT: LazyLock<Kit> = LazyLock::new(|| Kit::upload(ready_made("json-filter").unwrap().component).unwrap());

fn start(config: &Value) -> Result<Run, sluice_testkit::Error> {
    KIT.start(config)
}

fn kept(config: &Value, bodies: &[&str]) -> Vec<bool> {
    let records: Vec<_> = bodies.iter().map(|body| record((*body).to_owned())).collect();
    start(config).unwrap().filter(&records).unwrap()
}

const ORDERS: [&str; 4] = [
    r#"{"id":1,"status":"paid","amount":120.5,"tags":["gift","eu"]}"#,
    r#"{"id":2,"status":"open","amount":80,"tags":[]}"#,
    r#"{"id":3,"status":"paid-later","amount":"120.5"}"#,
    r#"{"id":4}"#,
];

#[test]
fn every_operator_keeps_what_it_says() {
    let cases = [
        (json!({"path": "/status", "equals": "paid"}), [true, false, false, false]),
        (json!({"path": "/status", "not-equals": "paid"}), [false, true, true, false]),
        (json!({"path": "/amount", "greater": 80}), [true, false, false, false]),
        (json!({"path": "/amount", "at-least": 80}), [true, true, false, false]),
        (json!({"path": "/amount", "less": 80}), [false, false, false, false]),
        (json!({"path": "/amount", "at-most": 80.0}), [false, true, false, false]),
        (json!({"path": "/amount", "equals": 80.0}), [false, true, false, false]),
        (json!({"path": "/tags", "contains": "eu"}), [true, false, false, false]),
        (json!({"path": "/status", "contains": "aid"}), [true, false, true, false]),
        (json!({"path": "/status", "starts-with": "paid"}), [true, false, true, false]),
        (json!({"path": "/id", "one-of": [1, 4]}), [true, false, false, true]),
        (json!({"path": "/status", "exists": true}), [true, true, true, false]),
        (json!({"path": "/status", "exists": false}), [false, false, false, true]),
        (json!({"path": "/amount", "at-least": 80, "less": 100}), [false, true, false, false]),
    ];
    for (config, expected) in cases {
        assert_eq!(kept(&config, &ORDERS), expected, "{config}");
    }
}

#[test]
fn a_body_that_is_no_json_goes_where_the_config_says() {
    let config = |choice: &str| json!({"path": "/a", "exists": true, "on-invalid": choice});
    assert_eq!(kept(&config("drop"), &["{"]), [false]);
    assert_eq!(kept(&config("keep"), &["{"]), [true]);
    let error = start(&config("dead-letter")).unwrap().filter(&[record("{")]).unwrap_err().to_string();
    assert!(error.starts_with("record 0 failed: not-json: EOF while parsing"), "{error}");
}

#[test]
fn a_wrong_config_is_named() {
    let error = |config: Value| start(&config).err().unwrap().to_string();
    assert_eq!(error(json!({})), "config `path`: missing, json-filter requires it");
    assert!(error(json!({"path": "/a"})).contains("give at least one of equals"));
    assert!(error(json!({"path": "a", "equals": 1})).contains(r#"write "/a""#));
    assert_eq!(error(json!({"path": "/a", "greater": "x"})), "config `greater`: expected a number, got \"x\"");
    assert!(
        error(json!({"path": "/a", "equal": 1}))
            .starts_with("config `equal`: json-filter has no such parameter; it has: path, equals")
    );
}
