//! The plugin as the broker runs it.

use serde_json::{Value, json};
use sluice_testkit::{Kit, record};

#[test]
fn every_second_record_of_a_key_tells_their_number() {
    let kit = Kit::build(env!("CARGO_MANIFEST_DIR")).unwrap();
    let mut run = kit.start(&json!({ "every": 2 })).unwrap();
    let of = |key| record("").key(key);
    let done = run.process(&[of("a"), of("b"), of("a"), of("a")]).unwrap();
    assert_eq!(done.failed, []);
    let sent: Vec<Value> = done.made.iter().map(|made| serde_json::from_str(&made.text()).unwrap()).collect();
    assert_eq!(sent, [json!({ "key": "a", "count": 2 })]);
    // It is kept from one batch to the next.
    assert_eq!(run.process(&[of("b")]).unwrap().made.len(), 1);
}
