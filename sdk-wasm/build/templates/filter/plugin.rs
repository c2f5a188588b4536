//! The plugin as the broker runs it.

use serde_json::json;
use sluice_testkit::{Kit, record};

#[test]
fn only_large_amounts_are_kept() {
    let kit = Kit::build(env!("CARGO_MANIFEST_DIR")).unwrap();
    let mut run = kit.start(&json!({ "min": 10 })).unwrap();
    let amount = |amount| record("").header("amount", amount);
    assert_eq!(run.filter(&[amount("11"), amount("9"), record("")]).unwrap(), [true, false, false]);
}

#[test]
fn a_limit_is_needed() {
    let kit = Kit::build(env!("CARGO_MANIFEST_DIR")).unwrap();
    assert!(kit.start(&json!({})).is_err());
}
