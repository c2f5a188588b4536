//! The plugin in the broker's own runtime, without a broker and without the API.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;

use serde_json::json;
use sluice_testkit::{Kit, Servers, Topics, record};

const API: &str = "https://crm.example.com/customers/";

#[test]
fn an_order_gets_its_customer_from_the_topic_or_from_the_api() {
    let servers =
        Servers::default().grant(API, &["GET"]).answer("GET", &format!("{API}bob"), 200, r#"{"city":"Bern"}"#);
    let servers = Arc::new(servers.answer("GET", &format!("{API}eve"), 404, ""));
    let customers = Topics::default().message("customers", "ada", r#"{"city":"Rome"}"#);
    let kit = Kit::build(env!("CARGO_MANIFEST_DIR")).unwrap();
    let kit = kit.topics(customers).servers(&servers).secret("crm", "hunter2");
    let mut run = kit.start(&json!({ "topic": "customers", "api": API, "token": "crm" })).unwrap();

    let order = |customer: &str| record(json!({ "customer": customer }).to_string());
    let done = run.transform(&[order("ada"), order("bob"), order("eve"), order("zoe"), order("../admin")]).unwrap();
    let made: Vec<String> = done.made.iter().map(sluice_testkit::Made::text).collect();
    assert_eq!(made, [r#"{"customer":{"city":"Rome"}}"#, r#"{"customer":{"city":"Bern"}}"#]);
    let failed: Vec<(usize, &str)> = done.failed.iter().map(|(index, code, _)| (*index, code.as_str())).collect();
    assert_eq!(failed, [(2, "unknown-customer"), (3, "unavailable"), (4, "no-customer")]);

    let asked = servers.asked();
    assert_eq!(asked.len(), 3, "the topic is asked first");
    assert_eq!(asked[0].headers, [("authorization".to_owned(), "Bearer hunter2".to_owned())]);
}

#[test]
fn what_is_not_granted_is_refused() {
    let kit = Kit::build(env!("CARGO_MANIFEST_DIR")).unwrap();
    let mut run = kit.start(&json!({ "topic": "customers" })).unwrap();
    let done = run.transform(&[record(r#"{"customer":"ada"}"#)]).unwrap();
    let expected = "topic customers is not granted to this plugin; granted: none";
    assert_eq!(done.failed, [(0, "unavailable".to_owned(), expected.to_owned())]);
}
