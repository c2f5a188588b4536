//! A plugin built for WASI 0.2 runs as well, with what it prints in its log.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;

use serde_json::json;
use sluice_testkit::{Kit, Target, record};

#[test]
fn a_component_for_wasip2_is_accepted() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let built = match sluice_guest_build::Guests::at(root).package("json-filter").target(Target::Wasip2).build() {
        Ok(built) => built,
        // Only rustup has this target. Where it cannot get it, there is nothing to test.
        Err(e @ sluice_guest_build::Error::NoToolchain { .. }) => return eprintln!("not tested: {e}"),
        Err(e) => panic!("{e}"),
    };
    let kit = Kit::upload(&built[0].component).unwrap();
    let imports = &kit.report().imports;
    assert!(imports.iter().any(|name| name.starts_with("wasi:")), "{imports:?}");
    let mut run = kit.start(&json!({"path": "/a", "equals": 1})).unwrap();
    assert_eq!(run.filter(&[record(r#"{"a":1}"#), record(r#"{"a":2}"#)]).unwrap(), [true, false]);
}
