//! Changes of a pipeline that come to nothing: they are refused before what runs is touched, or leave it as it was.

use serde_json::{Value, json};

use crate::{
    kit::World,
    pipelines::{TOTALS, settled},
};

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

/// Sends a paid order to each queue.
async fn order(world: &World) {
    let orders = [0, 1].map(|queue| json!({ "body": { "status": "paid" }, "queue": queue }));
    world.post("/topics/in/messages", json!(orders)).await.expect(201);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_candidate_that_does_not_run_after_a_restart_does_not_stop_the_live_version() {
    let mut world = begin().await;
    world.put("/pipelines/p", spec("p", "sinks", json!(["out"]))).await.expect(201);
    for (mode, moved) in [("shadow", [1, 1]), ("canary&queues=1", [2, 1])] {
        world.send("PUT", "/secrets/key", &[], "hunter2").await.expect(201);
        let mut candidate = spec("p", "sinks", json!(["out"]));
        candidate["steps"][0]["grants"] = json!({ "secrets": ["key"] });
        world.put(&format!("/pipelines/p/candidate?mode={mode}"), candidate).await.expect(201);
        let running = world.get("/pipelines/p/candidate").await.expect(200).json();
        assert_eq!(running["stopped"], Value::Null, "{running}");
        world.delete("/secrets/key").await.expect(204);
        world.restart().await;
        order(&world).await;
        let at = |pipeline: &Value, queue: usize| pipeline["queues"][queue]["position"].clone();
        let stands =
            settled(&world, |pipeline| [0, 1].map(|queue| at(pipeline, queue)) == moved.map(Value::from)).await;
        let shown = world.get("/pipelines/p/candidate").await.expect(200).json();
        let reason = shown["stopped"].as_str().unwrap();
        assert!(reason.starts_with("steps[0].grants.secrets: "), "{shown}");
        match mode {
            "shadow" => assert_eq!(stands["state"], "running"),
            _ => assert_eq!(
                (&stands["queues"][1]["stopped"], &stands["queues"][1]["revision"]),
                (&json!(reason), &shown["revision"])
            ),
        }
        // Given up, its queues go on where they stand.
        world.delete("/pipelines/p/candidate").await.expect(204);
        settled(&world, |pipeline| pipeline["state"] == "running" && pipeline["lag"] == 0).await;
    }
    assert_eq!(world.get("/topics/out").await.json()["messages"], 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shadow_for_which_there_are_no_instances_is_not_tried() {
    let world = begin().await;
    world.put("/topics/twelve", json!({ "queues": 12 })).await.expect(201);
    let spec = spec("p", "source", json!({ "topic": "twelve" }));
    world.put("/pipelines/p", &spec).await.expect(201);
    let before = world.get("/pipelines/p").await.expect(200).json();
    // It would run both versions, beside the live one.
    world.put("/pipelines/p/candidate?mode=shadow", &spec).await.problem(429, "busy", None);
    world.get("/pipelines/p/candidate").await.problem(404, "not-found", Some("candidate"));
    assert_eq!(stands(&world.get("/pipelines/p").await.json()), stands(&before));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_queue_is_served_as_soon_as_there_is_an_instance_with_a_state_of_its_own() {
    let world = begin().await;
    world.put("/topics/many", json!({ "queues": 22 })).await.expect(201);
    let aggregate = sluice_plugins::ready_made("aggregate").unwrap().component;
    world.send("PUT", "/plugins/totals", &[], aggregate).await.expect(201);
    // All that comes into a new queue is for it, wherever it began itself.
    let totals = TOTALS.replace("earliest", "latest");
    world.send("PUT", "/pipelines/p", &[("content-type", "application/yaml")], totals).await.expect(201);
    world.put("/pipelines/q", spec("q", "source", json!({ "topic": "many" }))).await.expect(201);

    world.put("/topics/in", json!({ "queues": 4 })).await.expect(200);
    let sale = |queue: u32| json!({ "body": "1", "key": format!("k{queue}"), "queue": queue, "properties": { "region": "eu" } });
    world.post("/topics/in/messages", json!([sale(0), sale(1), sale(2), sale(3)])).await.expect(201);
    let stands = settled(&world, |pipeline| pipeline["out"] == 2 && pipeline["queues"][3].is_object()).await;
    for queue in [2, 3] {
        let shown = &stands["queues"][queue];
        assert!(shown["stopped"].as_str().unwrap().contains("needs 1 plugin instances"), "{stands}");
        assert_eq!((&shown["position"], &shown["lag"]), (&json!(0), &json!(1)));
    }
    assert_eq!((&stands["lag"], &stands["lost"], &stands["state"]), (&json!(2), &json!(0), &json!("stopped")));
    // It looks for an instance in vain for some rounds.
    tokio::time::sleep(std::time::Duration::from_millis(1_700)).await;
    world.delete("/pipelines/q").await.expect(204);
    settled(&world, |pipeline| pipeline["out"] == 4 && pipeline["lag"] == 0).await;
    for queue in 0..4 {
        let entry = world.get(&format!("/pipelines/p/state/totals/k{queue}")).await.expect(200).json();
        assert_eq!(entry["queue"], queue, "{entry}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_queue_is_served_while_the_others_have_more_to_read() {
    let world = begin().await;
    // Enough to do for some seconds.
    let mut slow = spec("p", "sinks", json!(["out"]));
    slow["steps"] = json!(vec![slow["steps"][0].clone(); 8]);
    world.put("/pipelines/p", slow).await.expect(201);
    world.post("/pipelines/p:pause", "").await.expect(200);
    let paid = |queue: u32| json!({ "body": { "status": "paid", "of": vec!["x"; 100] }, "queue": queue });
    let many = json!(vec![paid(0); 1_000]).to_string();
    for _ in 0..40 {
        world.post("/topics/in/messages", &many).await.expect(201);
    }
    world.post("/pipelines/p:resume", "").await.expect(200);
    world.put("/topics/in", json!({ "queues": 3 })).await.expect(200);
    world.post("/topics/in/messages", paid(2)).await.expect(201);
    let served = settled(&world, |pipeline| pipeline["queues"][2]["position"] == 1).await;
    assert!(served["queues"][0]["lag"].as_u64().unwrap() > 0, "{served}");
}

#[tokio::test(flavor = "multi_thread")]
async fn all_of_a_queue_that_came_while_a_pipeline_was_paused_is_read() {
    let world = begin().await;
    let source = json!({ "topic": "in" });
    world.put("/pipelines/p", spec("p", "source", source.clone())).await.expect(201);
    let paid = |queue: u32| json!({ "body": { "status": "paid" }, "queue": queue });
    // What is sent before a pipeline is made is not for it.
    world.post("/pipelines/p:pause", "").await.expect(200);
    world.put("/topics/in", json!({ "queues": 3 })).await.expect(200);
    world.post("/topics/in/messages", paid(2)).await.expect(201);
    world.post("/pipelines/p:resume", "").await.expect(200);
    settled(&world, |pipeline| pipeline["out"] == 1 && pipeline["lag"] == 0).await;

    world.post("/pipelines/p:pause", "").await.expect(200);
    world.put("/topics/in", json!({ "queues": 4 })).await.expect(200);
    world.post("/topics/in/messages", paid(3)).await.expect(201);
    let mut other = spec("p", "source", source);
    other["on_failure"] = json!({ "retries": 1 });
    world.put("/pipelines/p", other).await.expect(200);
    world.post("/pipelines/p:resume", "").await.expect(200);
    settled(&world, |pipeline| pipeline["out"] == 1 && pipeline["lag"] == 0).await;
    assert_eq!(world.get("/topics/out").await.json()["messages"], 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_finds_no_instance_after_a_restart_costs_only_itself() {
    let mut world = begin().await;
    world.put("/topics/many", json!({ "queues": 20 })).await.expect(201);
    // The first to be started, which grows beyond what there was when it was applied.
    world.put("/pipelines/a", spec("a", "source", json!({ "topic": "many" }))).await.expect(201);
    world.put("/pipelines/p", spec("p", "sinks", json!(["out"]))).await.expect(201);
    let mut candidate = spec("p", "sinks", json!(["out"]));
    candidate["steps"] = json!(vec![candidate["steps"][0].clone(); 3]);
    world.put("/pipelines/p/candidate?mode=canary&queues=1", candidate).await.expect(201);
    world.put("/topics/many", json!({ "queues": 23 })).await.expect(200);
    world.restart().await;
    order(&world).await;
    let stands = settled(&world, |pipeline| pipeline["queues"][0]["position"] == 1).await;
    let shown = &stands["queues"][1];
    assert!(shown["stopped"].as_str().unwrap().contains("needs 3 plugin instances"), "{stands}");
    assert_eq!((&shown["lag"], &stands["queues"][0]["stopped"]), (&json!(1), &Value::Null));
    let a = world.get("/pipelines/a").await.expect(200).json();
    assert_eq!((&a["state"], a["queues"].as_array().unwrap().len()), (&json!("running"), 23));

    // Both versions and the numbers are named where it is refused.
    let problem = world.post("/pipelines/p:promote", "").await.problem(429, "busy", None);
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.contains("needs 6 plugin instances") && detail.contains("there are 1:"), "{detail}");
    world.delete("/pipelines/a").await.expect(204);
    settled(&world, |pipeline| pipeline["state"] == "running" && pipeline["lag"] == 0).await;
    assert_eq!(world.get("/topics/out").await.json()["messages"], 2);
}
