use serde_json::{Value, json};

use crate::kit::{World, later};

const PATH: &str = "/topics/t/ingress";

async fn with_plugins(names: &[&str]) -> World {
    let world = World::new().await;
    for name in names {
        let plugin = sluice_plugins::ready_made(name).unwrap();
        world.send("PUT", &format!("/plugins/{name}"), &[], plugin.component).await.expect(201);
    }
    for topic in ["t", "eu", "us"] {
        world.put(&format!("/topics/{topic}"), json!({ "queues": 1 })).await.expect(201);
    }
    world
}

fn paid() -> Value {
    json!({ "steps": [{ "plugin": "json-filter", "config": { "path": "/status", "equals": "paid" } }] })
}

async fn bodies(world: &World, topic: &str) -> Vec<String> {
    let page = world.get(&format!("/topics/{topic}/messages")).await.expect(200).json();
    let text = |message: &Value| message["body"].as_str().unwrap().to_owned();
    page["items"].as_array().unwrap().iter().map(text).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_an_ingress_is_named() {
    let world = with_plugins(&["json-filter", "route", "ledger-checker"]).await;
    world.get(PATH).await.problem(404, "not-found", Some("ingress"));
    world.delete(PATH).await.problem(404, "not-found", Some("ingress"));
    world.get("/topics/t/ingress/logs").await.problem(404, "not-found", Some("ingress"));
    let missing = json!({ "steps": [{ "plugin": "none" }] });
    world.put(PATH, &missing).await.problem(404, "not-found", Some("steps[0].plugin"));
    world.put("/topics/no/ingress", paid()).await.problem(404, "not-found", Some("topic"));
    let with = |field: &str, value: Value| {
        let mut spec = paid();
        spec[field] = value;
        spec
    };
    for (spec, field) in [
        (with("colour", json!(1)), "colour"),
        (json!({}), "steps"),
        (json!({ "steps": [] }), "steps"),
        (json!({ "steps": [{ "plugin": "json-filter", "colour": 1 }] }), "steps[0].colour"),
        (json!({ "steps": [{ "plugin": "json-filter" }] }), "steps[0].config"),
        (json!({ "steps": [{ "plugin": "ledger-checker" }] }), "steps[0].plugin"),
        (with("sinks", json!(["eu", "us"])), "sinks"),
        (with("sinks", json!(["TBW102"])), "sinks"),
        (with("on_failure", json!("panic")), "on_failure"),
        (with("limits", json!({ "deadline": "1h" })), "limits"),
        (with("limits", json!({ "memory": "much" })), "limits.memory"),
        (with("limits", json!({ "memory": "64KiB" })), "limits.memory"),
    ] {
        world.put(PATH, &spec).await.problem(400, "invalid-field", Some(field));
    }
    world.put(PATH, with("sinks", json!(["no"]))).await.problem(404, "not-found", Some("sinks"));
    for own in ["TBW102", "%25RETRY%25g"] {
        let refused = world.put(&format!("/topics/{own}/ingress"), paid()).await;
        assert!(matches!(refused.status, 400 | 404), "{own}: {}", refused.text);
    }
    world.send("PUT", PATH, &[], "steps: [").await.problem(400, "invalid-field", Some("steps"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ingress_refuses_with_a_reason_over_restarts_until_it_is_deleted() {
    let mut world = with_plugins(&["json-filter"]).await;
    world.post("/topics/t/messages", json!({ "body": "before" })).await.expect(201);
    let text = "steps: [ { plugin: json-filter, config: { path: /status, equals: paid } } ]\n";
    let made = world.send("PUT", PATH, &[("content-type", "application/yaml")], text).await.expect(201);
    let view = made.json();
    assert_eq!((&view["state"], &view["spec"]), (&json!("running"), &with_defaults(paid())));
    let digest = &world.get("/plugins/json-filter").await.json()["digest"];
    assert_eq!((&view["plugins"][0]["version"], &view["plugins"][0]["digest"]), (&json!("json-filter@1.0.0"), digest));
    let stale = [("if-match", "\"1\"")];
    world.send("PUT", PATH, &stale, text).await.problem(412, "precondition-failed", Some("If-Match"));
    let absent = [("if-none-match", "*")];
    world.send("PUT", PATH, &absent, text).await.problem(412, "precondition-failed", Some("If-None-Match"));
    let current = [("if-match", made.header("etag"))];
    world.send("PUT", PATH, &current, text).await.expect(200);

    for _ in 0..2 {
        let order = |status: &str| json!({ "body": { "status": status } });
        world.post("/topics/t/messages", order("paid")).await.expect(201);
        let refused = world.post("/topics/t/messages", order("new")).await;
        let refused = refused.problem(422, "message-refused", Some("ingress"));
        let said = "ingress of topic \"t\": plugin json-filter@1.0.0 rejects the message: filtered";
        assert_eq!(refused["detail"], said);
        let junk = world.post("/topics/t/messages", json!({ "body": "junk" })).await;
        let junk = junk.problem(422, "message-refused", Some("ingress"));
        assert!(junk["detail"].as_str().unwrap().contains("rejects the message: not-json: "), "{junk}");
        let many = world.post("/topics/t/messages", json!([order("paid"), order("new")])).await;
        let many = many.problem(422, "message-refused", Some("ingress"));
        assert!(many["detail"].as_str().unwrap().starts_with("messages[1]: "), "{many}");
        assert_eq!(many["sent"].as_array().unwrap().len(), 1);
        let counts = world.get(PATH).await.json();
        assert_eq!(
            (&counts["in"], &counts["out"], &counts["rejected"], &counts["failed"]),
            (&json!(5), &json!(2), &json!(3), &json!(0))
        );
        let metrics = world.get("//metrics").await.text;
        let line = "sluice_ingress_messages_total{topic=\"t\",outcome=\"rejected\"} 3";
        assert!(metrics.contains(line), "{metrics}");
        world.restart().await;
    }
    assert_eq!(world.get("/topics/t").await.json()["messages"], 5);

    let used = world.delete("/plugins/json-filter").await.problem(409, "conflict", None);
    assert_eq!(used["used_by"]["ingress"], json!(["t"]));
    world.delete(PATH).await.expect(204);
    world.post("/topics/t/messages", json!({ "body": "anything" })).await.expect(201);
    world.delete("/plugins/json-filter").await.expect(204);
    world.restart().await;
    world.get(PATH).await.problem(404, "not-found", Some("ingress"));
}

fn with_defaults(mut spec: Value) -> Value {
    spec["on_failure"] = json!("reject");
    spec["limits"] = json!({});
    spec
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ingress_changes_and_routes_and_its_sinks_are_kept() {
    let world = with_plugins(&["json-map", "route"]).await;
    let steps = json!([
        { "plugin": "json-map", "config": { "set": { "/seen": true } } },
        { "plugin": "route", "config": { "field": "/region", "routes": { "eu": "eu", "us": "us", "here": "t" } } },
    ]);
    let spec = json!({ "steps": steps, "sinks": ["eu", "us", "t"] });
    world.put(PATH, &spec).await.expect(201);
    let message =
        |region: &str| json!({ "key": "k", "tag": "g", "properties": { "a": "1" }, "body": { "region": region } });
    world.post("/topics/t/messages", json!([message("us"), message("eu"), message("here")])).await.expect(201);
    for (topic, region) in [("us", "us"), ("eu", "eu"), ("t", "here")] {
        assert_eq!(bodies(&world, topic).await, [format!("{{\"region\":\"{region}\",\"seen\":true}}")]);
        let found = world.get(&format!("/topics/{topic}/messages?key=k")).await.expect(200).json();
        let found = &found["items"][0];
        assert_eq!((&found["tag"], &found["properties"]), (&json!("g"), &json!({ "a": "1" })));
    }
    world.post("/topics/t/messages", message("mars")).await.problem(422, "message-refused", Some("ingress"));
    let used = world.delete("/topics/eu").await.problem(409, "conflict", None);
    assert_eq!(used["ingress"], json!(["t"]));
    // It goes with its topic, and another topic of the name has none.
    world.delete("/topics/t").await.expect(204);
    world.put("/topics/t", "{}").await.expect(201);
    world.get(PATH).await.problem(404, "not-found", Some("ingress"));
    world.post("/topics/t/messages", json!({ "body": "plain" })).await.expect(201);
    world.delete("/topics/eu").await.expect(204);
}

/// Why a message is refused that the filter does not keep.
async fn refused(world: &World) -> String {
    let refused = world.post("/topics/t/messages", json!({ "body": { "status": "new" } })).await;
    refused.problem(422, "message-refused", Some("ingress"))["detail"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_changes_no_ingress_until_it_is_put_again() {
    let mut world = with_plugins(&["json-filter"]).await;
    let step = json!({ "plugin": "json-filter", "config": { "path": "/status", "equals": "paid" } });
    let spec = json!({ "steps": [step] });
    world.put(PATH, &spec).await.expect(201);
    let component = sluice_plugins::ready_made("json-filter").unwrap().component;
    world.send("PUT", "/plugins/json-filter", &[], later(component)).await.expect(201);
    world.restart().await;
    assert!(refused(&world).await.contains("json-filter@1.0.0 rejects"));
    // What is bound cannot go, and what is not may.
    world.delete("/plugins/json-filter/versions/1.0.0").await.problem(409, "conflict", None);
    world.put(PATH, &spec).await.expect(200);
    assert!(refused(&world).await.contains("json-filter@2.0.0 rejects"));
    world.delete("/plugins/json-filter/versions/1.0.0").await.expect(204);
}
