use serde_json::json;

use crate::kit::World;

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_a_pipeline_is_named() {
    let world = World::new().await;
    world.put("/topics/in", "{}").await.expect(201);
    world.put("/topics/out", "{}").await.expect(201);
    let spec = |change: &dyn Fn(&mut serde_json::Value)| {
        let mut spec = json!({
            "name": "p", "source": { "topic": "in" }, "steps": [{ "plugin": "none" }], "sinks": ["out"],
        });
        change(&mut spec);
        spec
    };
    let missing = world.put("/pipelines/p", spec(&|_| {})).await.problem(404, "not-found", Some("steps[0].plugin"));
    assert!(missing["hint"].as_str().unwrap().contains("/plugins/"));
    let topic = spec(&|spec| spec["source"]["topic"] = json!("no"));
    world.put("/pipelines/p", topic).await.problem(404, "not-found", Some("source.topic"));
    world.put("/pipelines/q", spec(&|_| {})).await.problem(400, "invalid-field", Some("name"));
    let unknown = spec(&|spec| spec["colour"] = json!(1));
    world.put("/pipelines/p", unknown).await.problem(400, "invalid-field", Some("colour"));
    let yaml = [("content-type", "application/yaml")];
    let text = "name: p\nsource: { topic: in }\nsteps: [ { plugin: none } ]\nsinks: [ out ]\nsinkz: 1\n";
    world.send("PUT", "/pipelines/p", &yaml, text).await.problem(400, "invalid-field", Some("sinkz"));
    world.get("/pipelines/p").await.problem(404, "not-found", Some("pipeline"));
    world.get("/pipelines/p/dlq").await.problem(404, "not-found", Some("pipeline"));
    world.get("/pipelines/p/logs").await.problem(404, "not-found", Some("pipeline"));
    assert_eq!(world.get("/pipelines").await.expect(200).json(), json!({ "items": [], "next": null }));
}
