#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use serde_json::{Value, json};
use sluice_plugins::ready_made;
use sluice_testkit::{Kit, Transformed, record};

fn map(config: &Value, bodies: &[&str]) -> Transformed {
    let kit = Kit::upload(ready_made("json-map").unwrap().component).unwrap();
    let records: Vec<_> = bodies.iter().map(|body| record((*body).to_owned()).key("k").header("h", "1")).collect();
    kit.start(config).unwrap().transform(&records).unwrap()
}

#[test]
fn fields_are_renamed_set_removed_and_redacted() {
    let config = json!({
        "rename": {"/cust": "/customer/name"},
        "set": {"/source": "web", "/meta/v": 2},
        "remove": ["/debug", "/items/0"],
        "redact": ["/card/number"],
    });
    let body = r#"{"cust":"Ada","debug":1,"items":[1,2],"card":{"number":"4111","brand":"v"}}"#;
    let out = map(&config, &[body]);
    let made: Value = serde_json::from_slice(&out.made[0].record.value).unwrap();
    let expected = json!({"customer": {"name": "Ada"}, "source": "web", "meta": {"v": 2}, "items": [2],
        "card": {"number": "***", "brand": "v"}});
    assert_eq!(made, expected);
    assert_eq!(
        (out.made[0].record.key.as_deref(), &out.made[0].record.headers[..]),
        (Some(&b"k"[..]), &b"h\x011\x02"[..])
    );
}

#[test]
fn what_needs_no_change_passes_byte_for_byte_and_one_bad_body_hurts_no_other() {
    let out = map(&json!({"redact": ["/card"]}), &[r#"{ "a" : 1 }"#, "no json", r#"{"card":7}"#]);
    let texts: Vec<_> = out.made.iter().map(|made| (made.from, made.text())).collect();
    assert_eq!(texts, [(0, r#"{ "a" : 1 }"#.to_owned()), (2, r#"{"card":"***"}"#.to_owned())]);
    assert_eq!((out.failed[0].0, out.failed[0].1.as_str()), (1, "not-json"));
}

#[test]
fn a_place_inside_of_a_value_is_an_error_of_that_record() {
    let out = map(&json!({"set": {"/a/b": 1}}), &[r#"{"a":5}"#]);
    assert_eq!(out.failed, [(0, "no-such-place".to_owned(), "/a/b: b is inside of a value".to_owned())]);
}
