#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::LazyLock;

use serde_json::{Value, json};
use sluice_plugins::ready_made;
use sluice_testkit::{Kit, record};

/// Compiled once for all tests.
static KIT: LazyLock<Kit> = LazyLock::new(|| Kit::upload(ready_made("redact").unwrap().component).unwrap());

fn redact(config: &Value, body: &str) -> String {
    let out = KIT.start(config).unwrap().transform(&[record(body.to_owned())]).unwrap();
    out.made[0].text()
}

#[test]
fn a_name_is_masked_wherever_it_stands_and_a_place_only_there() {
    let config = json!({"fields": ["card", "/customer/name"]});
    let body =
        r#"{"card":"4111","customer":{"name":"Ada","card":{"number":4111}},"name":"order","items":[{"card":[1,2]},7]}"#;
    let expected = r#"{"card":"***","customer":{"card":"***","name":"***"},"items":[{"card":"***"},7],"name":"order"}"#;
    assert_eq!(redact(&config, body), expected);
    assert_eq!(redact(&json!({"fields": ["/items/1"], "mask": ""}), r#"{"items":[1,2]}"#), r#"{"items":[1,""]}"#);
}

#[test]
fn what_has_none_of_the_fields_passes_byte_for_byte_and_so_does_what_is_masked() {
    let config = json!({"fields": ["card", "/a/b"]});
    for body in [r#"{ "a" : 1 }"#, r#"[ "card" ]"#, r#"{ "card" : "***" }"#, " 7 "] {
        assert_eq!(redact(&config, body), body);
    }
}

#[test]
fn one_bad_body_is_a_dead_letter_and_hurts_no_other() {
    let records = ["no json", r#"{"card":7}"#].map(|body| record(body.to_owned()));
    let out = KIT.start(&json!({"fields": ["card"]})).unwrap().transform(&records).unwrap();
    assert_eq!((out.failed[0].0, out.failed[0].1.as_str()), (0, "not-json"));
    assert_eq!(out.made[0].text(), r#"{"card":"***"}"#);
}

#[test]
fn a_configuration_that_masks_nothing_is_refused() {
    for fields in [json!([]), json!([""]), json!(["/a~2"]), json!("card")] {
        assert!(KIT.start(&json!({"fields": fields})).is_err(), "{fields}");
    }
}
