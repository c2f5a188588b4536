//! Changes of a pipeline that come to nothing: they are refused before what runs is touched, or leave it as it was.

use serde_json::{Value, json};

use crate::{kit::World, pipelines::settled};

async fn begin() -> World {
    let world = World::new().await;
    for (topic, queues) in [("in", 2), ("out", 1), ("out2", 1), ("wide", 40)] {
        world.put(&format!("/topics/{topic}"), json!({ "queues": queues })).await.expect(201);
    }
    let filter = sluice_plugins::ready_made("json-filter").unwrap().component;
    world.send("PUT", "/plugins/only", &[], filter).await.expect(201);
    world
}

/// A pipeline with something else in it.
fn spec(name: &str, field: &str, value: Value) -> Value {
    let step = json!({ "plugin": "only", "config": { "path": "/status", "equals": "paid" } });
    let source = json!({ "topic": "in", "start": "earliest" });
    let mut spec = json!({ "name": name, "source": source, "steps": [step], "sinks": ["out"] });
    spec[field] = value;
    spec
}

/// What a client sees of a pipeline that does not change.
fn stands(pipeline: &Value) -> [Value; 4] {
    ["state", "revision", "version", "spec"].map(|name| pipeline[name].clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_cannot_run_is_refused_and_what_runs_goes_on() {
    let mut world = begin().await;
    world.put("/pipelines/p", spec("p", "on_failure", json!({ "then": "skip" }))).await.expect(201);
    let before = world.get("/pipelines/p").await.expect(200).json();
    assert_eq!(before["state"], "running");
    for (field, value, named) in
        [("sinks", json!(["out", "out2"]), "sinks"), ("limits", json!({ "memory": "64KiB" }), "limits.memory")]
    {
        for path in ["", "/candidate?mode=shadow", "/candidate?mode=canary&queues=1"] {
            let refused = world.put(&format!("/pipelines/p{path}"), spec("p", field, value.clone())).await;
            refused.problem(400, "invalid-field", Some(named));
        }
        world.put("/pipelines/q", spec("q", field, value)).await.problem(400, "invalid-field", Some(named));
        world.get("/pipelines/q").await.problem(404, "not-found", Some("pipeline"));
    }
    // What only a start can tell: there are not so many instances.
    let wide = json!({ "topic": "wide", "start": "earliest" });
    for name in ["p", "q"] {
        let path = format!("/pipelines/{name}");
        world.put(&path, spec(name, "source", wide.clone())).await.problem(429, "busy", None);
    }
    world.get("/pipelines/q").await.problem(404, "not-found", Some("pipeline"));
    for _ in 0..2 {
        let after = world.get("/pipelines/p").await.expect(200).json();
        assert_eq!(stands(&after), stands(&before), "{after}");
        world.post("/topics/in/messages", json!({ "body": { "status": "paid" } })).await.expect(201);
        settled(&world, |pipeline| pipeline["lag"] == 0 && pipeline["out"] == 1).await;
        world.restart().await;
        world.get("/pipelines/q").await.problem(404, "not-found", Some("pipeline"));
    }
    assert_eq!(world.get("/topics/out").await.json()["messages"], 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_pipeline_that_cannot_start_stays_paused() {
    let world = begin().await;
    world.put("/pipelines/p", spec("p", "sinks", json!(["out"]))).await.expect(201);
    world.post("/pipelines/p:pause", "").await.expect(200);
    let wide = json!({ "topic": "wide", "start": "earliest" });
    world.put("/pipelines/p", spec("p", "source", wide)).await.expect(200);
    let before = world.get("/pipelines/p").await.expect(200).json();
    world.post("/pipelines/p:resume", "").await.problem(429, "busy", None);
    let after = world.get("/pipelines/p").await.expect(200).json();
    assert_eq!((&after["state"], stands(&after)), (&json!("paused"), stands(&before)));
}
