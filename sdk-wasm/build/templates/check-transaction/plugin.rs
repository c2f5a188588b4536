//! The plugin as the broker runs it.

use serde_json::json;
use sluice_testkit::{Kit, half, runtime::Decision};

#[test]
fn the_amount_decides() {
    let kit = Kit::build(env!("CARGO_MANIFEST_DIR")).unwrap();
    let mut run = kit.start(&json!({ "max": 100 })).unwrap();
    let mut decide = |body| run.check(&half("order-1", body)).unwrap();
    assert_eq!(decide(r#"{"amount":100}"#), Decision::Commit);
    assert_eq!(decide(r#"{"amount":101}"#), Decision::Rollback("101 is more than 100".into()));
    assert_eq!(decide("{}"), Decision::Unknown);
    assert_eq!(decide("junk"), Decision::Rollback("the body is no JSON".into()));
}
