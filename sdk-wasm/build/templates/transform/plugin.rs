//! The plugin as the broker runs it.

use serde_json::json;
use sluice_testkit::{Kit, record};

#[test]
fn a_field_is_added_and_what_is_no_object_fails() {
    let kit = Kit::build(env!("CARGO_MANIFEST_DIR")).unwrap();
    let mut run = kit.start(&json!({ "source": "web" })).unwrap();
    let done = run.transform(&[record(r#"{"id":1}"#), record("[]"), record("junk")]).unwrap();
    assert_eq!(done.made.len(), 1);
    assert_eq!(done.made[0].text(), r#"{"id":1,"source":"web"}"#);
    let codes: Vec<&str> = done.failed.iter().map(|(_, code, _)| code.as_str()).collect();
    assert_eq!(codes, ["no-object", "not-json"]);
}
