use serde_json::{Value, json};

use crate::kit::World;

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
    for (spec, field) in [
        (json!({}), "plugin"),
        (json!({ "plugin": "json-map", "config": { "set": { "/a": 1 } } }), "plugin"),
        (json!({ "plugin": "json-filter" }), "config"),
        (json!({ "plugin": "json-filter", "colour": 1 }), "colour"),
        (json!({ "plugin": "json-filter", "on_failure": "reject" }), "on_failure"),
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
