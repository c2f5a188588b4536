use std::time::Duration;

use serde_json::{Value, json};
use sluice_model::{GroupName, RecordView, Timestamp, TopicName};
use sluice_protocol::{ResponseCode, request::PopMessage};
use sluice_transport::Connection;

use crate::kit::{Nobody, World};

const PATH: &str = "/groups/g/filters/t";

async fn with_plugins(names: &[&str]) -> World {
    let world = World::new().await;
    for name in names {
        let plugin = sluice_plugins::ready_made(name).unwrap();
        world.send("PUT", &format!("/plugins/{name}"), &[], plugin.component).await.expect(201);
    }
    world.put("/topics/t", "{}").await.expect(201);
    world.put("/groups/g", "{}").await.expect(201);
    world
}

fn paid() -> Value {
    json!({ "plugin": "json-filter", "config": { "path": "/status", "equals": "paid" } })
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_a_filter_is_named() {
    let world = with_plugins(&["json-filter", "json-map"]).await;
    world.get(PATH).await.problem(404, "not-found", Some("filter"));
    world.delete(PATH).await.problem(404, "not-found", Some("filter"));
    world.get("/groups/g/filters/t/logs").await.problem(404, "not-found", Some("filter"));
    world.put("/groups/no/filters/t", paid()).await.problem(404, "not-found", Some("group"));
    world.put("/groups/g/filters/no", paid()).await.problem(404, "not-found", Some("topic"));
    world.put(PATH, json!({ "plugin": "none" })).await.problem(404, "not-found", Some("plugin"));
    let mut small = paid();
    small["limits"] = json!({ "memory": "64KiB" });
    for (spec, field) in [
        (json!({}), "plugin"),
        (json!({ "plugin": "json-map", "config": { "set": { "/a": 1 } } }), "plugin"),
        (json!({ "plugin": "json-filter" }), "config"),
        (json!({ "plugin": "json-filter", "colour": 1 }), "colour"),
        (json!({ "plugin": "json-filter", "on_failure": "reject" }), "on_failure"),
        (small, "limits.memory"),
    ] {
        world.put(PATH, &spec).await.problem(400, "invalid-field", Some(field));
    }
    world.put("/groups/g/filters/TBW102", paid()).await.problem(400, "invalid-field", Some("topic"));
    world.put("/groups/g/filters/%25RETRY%25g", paid()).await.problem(400, "invalid-field", Some("topic"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_is_kept_over_restarts_and_goes_with_its_group_or_topic() {
    let mut world = with_plugins(&["json-filter"]).await;
    let made = world.put(PATH, paid()).await.expect(201);
    let view = made.json();
    let mut spec = paid();
    (spec["on_failure"], spec["limits"]) = (json!("deliver"), json!({}));
    assert_eq!((&view["state"], &view["spec"], &view["in"]), (&json!("running"), &spec, &json!(0)));
    let stale = [("if-match", "\"1\"")];
    let text = paid().to_string();
    world.send("PUT", PATH, &stale, text.clone()).await.problem(412, "precondition-failed", Some("If-Match"));
    world.send("PUT", PATH, &[("if-match", made.header("etag"))], text).await.expect(200);
    world.restart().await;
    let view = world.get(PATH).await.expect(200).json();
    assert_eq!((&view["state"], &view["spec"]), (&json!("running"), &spec));
    assert_eq!(view["plugins"][0]["version"], "json-filter@1.0.0");
    let metrics = world.get("//metrics").await.text;
    let line = "sluice_filter_messages_total{consumer_group=\"g\",topic=\"t\",outcome=\"sent\"} 0";
    assert!(metrics.contains(line), "{metrics}");
    let used = world.delete("/plugins/json-filter").await.problem(409, "conflict", None);
    assert_eq!(used["used_by"]["filters"], json!(["g/t"]));
    world.send("DELETE", PATH, &stale, "").await.problem(412, "precondition-failed", Some("If-Match"));
    let tag = world.get(PATH).await.expect(200).header("etag").to_owned();
    world.send("DELETE", PATH, &[("if-match", &tag)], "").await.expect(204);
    world.put(PATH, paid()).await.expect(201);

    world.delete("/groups/g").await.expect(204);
    world.put("/groups/g", "{}").await.expect(201);
    world.get(PATH).await.problem(404, "not-found", Some("filter"));
    world.put(PATH, paid()).await.expect(201);
    world.delete("/topics/t").await.expect(204);
    world.put("/topics/t", "{}").await.expect(201);
    world.get(PATH).await.problem(404, "not-found", Some("filter"));
    world.put(PATH, paid()).await.expect(201);
    world.delete(PATH).await.expect(204);
    world.delete("/plugins/json-filter").await.expect(204);
    world.restart().await;
    world.get(PATH).await.problem(404, "not-found", Some("filter"));
}

/// Code and bodies of one pop of any queue.
async fn pop(connection: &Connection<Nobody>, poll_ms: i64) -> (ResponseCode, Vec<String>) {
    let request = PopMessage {
        group: GroupName::parse("g").unwrap(),
        topic: TopicName::parse("t").unwrap(),
        queue: -1,
        max_messages: 8,
        invisible_ms: 60_000,
        poll_ms,
        born_at: Timestamp(0),
        init_mode: 0,
        expression_type: None,
        expression: Some("wanted".to_owned()),
        order: false,
        attempt: None,
    };
    let answer = connection.invoke(request.encode(), Duration::from_secs(10)).await.unwrap();
    let (mut bodies, mut rest) = (Vec::new(), answer.body.as_ref());
    while !rest.is_empty() {
        let record = RecordView::parse(rest).unwrap();
        bodies.push(String::from_utf8(record.body().to_vec()).unwrap());
        rest = &rest[record.bytes().len()..];
    }
    (answer.header.code.into(), bodies)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pop_leases_only_what_the_filter_keeps() {
    let world = with_plugins(&["json-filter"]).await;
    world.put(PATH, paid()).await.expect(201);
    let order = |n: usize| {
        let status = if n.is_multiple_of(10) { "paid" } else { "new" };
        let tag = if n == 50 { "other" } else { "wanted" };
        json!({ "tag": tag, "body": { "n": n, "status": status } })
    };
    let orders: Vec<Value> = (0..100).map(order).collect();
    world.post("/topics/t/messages", json!({ "messages": orders })).await.expect(201);
    let connection = world.connect();
    let mut seen = Vec::new();
    while seen.len() < 9 {
        let (code, bodies) = pop(&connection, 5_000).await;
        assert_eq!(code, ResponseCode::Success, "{seen:?}");
        seen.extend(bodies);
    }
    seen.sort();
    let wanted = (0..10).filter(|n| *n != 5).map(|n| format!("{{\"n\":{},\"status\":\"paid\"}}", n * 10));
    let mut wanted: Vec<String> = wanted.collect();
    wanted.sort();
    assert_eq!(seen, wanted);
    let leased = |metrics: &str| metrics.lines().any(|line| line == "sluice_messages_leased 9.0");
    assert!(leased(&world.get("//metrics").await.text));
    assert_eq!(pop(&connection, 200).await, (ResponseCode::PollingTimeout, Vec::new()));
    assert_eq!(world.get("/groups/g").await.json()["lag"], 0, "what was dropped counts as consumed");
    assert!(leased(&world.get("//metrics").await.text));

    // A pop that waits goes on waiting behind what is dropped.
    let (popped, ()) = tokio::join!(pop(&connection, 8_000), async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        for n in 1..=10 {
            world.post("/topics/t/messages", order(n)).await.expect(201);
        }
    });
    assert_eq!(popped.1, [r#"{"n":10,"status":"paid"}"#]);
}
