use base64::Engine as _;
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

#[tokio::test(flavor = "multi_thread")]
async fn a_pipeline_is_applied_watched_paused_and_deleted() {
    let world = World::new().await;
    for topic in ["in", "out"] {
        world.put(&format!("/topics/{topic}"), json!({ "queues": 2 })).await.expect(201);
    }
    let filter = sluice_plugins::ready_made("json-filter").unwrap();
    world.send("PUT", "/plugins/only", &[], filter.component).await.expect(201);
    let text = "name: p\nsource: { topic: in, start: earliest }\nsinks: [ out ]\n\
                steps: [ { plugin: only, config: { path: /status, equals: paid } } ]\n";
    let yaml = [("content-type", "application/yaml")];
    let made = world.send("PUT", "/pipelines/p", &yaml, text).await.expect(201);
    assert_eq!(made.json()["state"], "running");
    let stale = [("if-match", "\"1\"")];
    world.send("PUT", "/pipelines/p", &stale, text).await.problem(412, "precondition-failed", Some("If-Match"));

    let order = |status: &str, queue: u32| json!({ "body": { "status": status }, "queue": queue });
    let orders = json!([order("paid", 0), order("new", 0), order("paid", 1), { "body": "junk", "queue": 1 }]);
    world.post("/topics/in/messages", &orders).await.expect(201);
    let done = settled(&world, |pipeline| pipeline["in"] == 4).await;
    assert_eq!(
        (&done["out"], &done["dropped"], &done["dead_lettered"], &done["lag"]),
        (&json!(2), &json!(1), &json!(1), &json!(0))
    );
    assert_eq!(done["queues"].as_array().unwrap().len(), 2);
    assert_eq!(world.get("/topics/out").await.json()["messages"], 2);
    let dead = world.get("/pipelines/p/dlq").await.expect(200).json();
    assert_eq!((&dead["items"][0]["body"], &dead["items"][0]["failure"]["source_queue"]), (&json!("junk"), &json!(1)));
    world.get("/pipelines/p/logs").await.expect(200);
    let metrics = world.get("//metrics").await.text;
    assert!(metrics.contains("sluice_pipeline_records_total{pipeline=\"p\",outcome=\"sent\"} 2"), "{metrics}");
    let step = &done["steps"][0];
    let counts = [&step["in"], &step["out"], &step["failed"], &step["traps"]].map(|count| count.as_u64().unwrap());
    assert_eq!((step["step"].as_str(), counts), (Some("only"), [4, 2, 1, 0]), "{step}");
    let digest = step["plugin_digest"].as_str().unwrap().strip_prefix("sha256:").unwrap();
    for cost in [&step["cpu_us"], &step["cpu_us_per_1000_records"], &step["memory"], &done["cpu_us_per_1000_records"]] {
        assert!(cost.as_f64().unwrap() > 0.0, "{done}");
    }
    let labels = format!("pipeline=\"p\",step=\"only\",position=\"0\",plugin=\"{}\"", &digest[..12]);
    for line in [
        format!("sluice_pipeline_step_records_total{{{labels},outcome=\"in\"}} 4\n"),
        format!("sluice_pipeline_step_records_total{{{labels},outcome=\"failed\"}} 1\n"),
        format!("sluice_pipeline_step_traps_total{{{labels}}} 0\n"),
        format!("sluice_pipeline_step_memory_bytes{{{labels}}} "),
        format!("sluice_pipeline_step_cpu_seconds_total{{{labels}}} 0.0"),
        format!("sluice_pipeline_step_call_seconds_bucket{{le=\"+Inf\",{labels}}} "),
        "sluice_pipeline_latency_seconds_count{pipeline=\"p\"} 4\n".to_owned(),
    ] {
        assert!(metrics.contains(&line), "{line}: {metrics}");
    }

    // The same bytes under another name are another plugin.
    world.send("PUT", "/plugins/alike", &[], filter.component).await.expect(201);
    world.delete("/plugins/alike").await.expect(204);
    let used = world.delete("/plugins/only").await.problem(409, "conflict", None);
    assert_eq!(used["used_by"]["pipelines"], json!(["p"]));
    world.delete("/topics/in").await.problem(409, "conflict", None);

    assert_eq!(world.post("/pipelines/p:pause", "").await.expect(200).json()["state"], "paused");
    world.post("/topics/in/messages", order("paid", 0)).await.expect(201);
    assert_eq!(world.get("/pipelines/p").await.json()["lag"], 1);
    let metrics = world.get("//metrics").await.text;
    for line in [
        "sluice_pipeline_lag{pipeline=\"p\"} 1.0\n",
        "sluice_pipeline_queue_lag{pipeline=\"p\",queue=\"0\"} 1.0\n",
        "sluice_pipeline_queue_lag{pipeline=\"p\",queue=\"1\"} 0.0\n",
    ] {
        assert!(metrics.contains(line), "{line}: {metrics}");
    }
    assert_eq!(world.post("/pipelines/p:resume", "").await.expect(200).json()["state"], "running");
    settled(&world, |pipeline| pipeline["lag"] == 0 && pipeline["out"] == 1).await;
    assert_eq!(world.get("/topics/out").await.json()["messages"], 3);

    world.delete("/pipelines/p").await.expect(204);
    world.delete("/plugins/only").await.expect(204);
    world.delete("/topics/in").await.expect(204);
}

pub const TOTALS: &str = "name: p\nsource: { topic: in, start: earliest, where: \"region = 'eu'\" }\n\
                      sinks: [ out ]\nsteps: [ { plugin: totals } ]\n";

/// Sends so many records of each key, in the queue of the key, and as many that the pipeline does not want.
async fn sell(world: &World, counts: &[(&str, u32)]) {
    for (key, count) in counts {
        let sale = |region: &str| {
            let queue = u32::from(key.as_bytes()[0] % 2);
            json!({ "body": "1", "key": key, "queue": queue, "properties": { "region": region } })
        };
        let sales: Vec<_> = (0..*count).flat_map(|_| [sale("eu"), sale("us")]).collect();
        world.post("/topics/in/messages", json!(sales)).await.expect(201);
    }
}

async fn count_of(world: &World, key: &str) -> u64 {
    let entry = world.get(&format!("/pipelines/p/state/totals/{key}")).await.expect(200).json();
    let bytes = entry["value_base64"].as_str().map(|text| base64::prelude::BASE64_STANDARD.decode(text).unwrap());
    let bytes = bytes.unwrap_or_else(|| entry["value"].as_str().unwrap().as_bytes().to_vec());
    u64::from_le_bytes(bytes[..8].try_into().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_processor_keeps_is_seen_survives_a_restart_and_ends_with_a_reset() {
    let mut world = World::new().await;
    for topic in ["in", "out"] {
        world.put(&format!("/topics/{topic}"), json!({ "queues": 2 })).await.expect(201);
    }
    let aggregate = sluice_plugins::ready_made("aggregate").unwrap();
    world.send("PUT", "/plugins/totals", &[], aggregate.component).await.expect(201);
    let yaml = [("content-type", "application/yaml")];
    world.send("PUT", "/pipelines/p", &yaml, TOTALS).await.expect(201);
    sell(&world, &[("ada", 3), ("bob", 2)]).await;
    settled(&world, |pipeline| pipeline["out"] == 5 && pipeline["lag"] == 0).await;
    assert_eq!((count_of(&world, "ada").await, count_of(&world, "bob").await), (3, 2));
    let stores = world.get("/pipelines/p/state").await.expect(200).json();
    assert_eq!(stores["items"].as_array().unwrap()[0]["name"], "aggregate/totals");
    let page = world.get("/pipelines/p/state/totals?limit=1").await.expect(200).json();
    assert_eq!(page["items"][0]["key"], "ada");
    let next = page["next"].as_str().unwrap();
    let second = world.get(&format!("/pipelines/p/state/totals?limit=1&cursor={next}")).await.expect(200).json();
    assert_eq!(second["items"][0]["key"], "bob");
    world.get("/pipelines/p/state/totals/eve").await.problem(404, "not-found", Some("key"));
    world.get("/pipelines/p/state/sums").await.problem(404, "not-found", Some("store"));

    world.restart().await;
    sell(&world, &[("ada", 1)]).await;
    settled(&world, |pipeline| pipeline["out"] == 1 && pipeline["lag"] == 0).await;
    assert_eq!(count_of(&world, "ada").await, 4);

    world.post("/pipelines/p:pause", "").await.expect(200);
    world.get("/pipelines/p/state").await.problem(409, "conflict", None);
    world.post("/pipelines/p:reset", json!({ "start": "soon" })).await.problem(400, "invalid-field", Some("start"));
    world.post("/pipelines/p:reset", json!({ "start": "earliest" })).await.expect(200);
    world.post("/pipelines/p:resume", "").await.expect(200);
    settled(&world, |pipeline| pipeline["out"] == 6 && pipeline["lag"] == 0).await;
    assert_eq!((count_of(&world, "ada").await, count_of(&world, "bob").await), (4, 2));

    world.delete("/pipelines/p").await.expect(204);
    assert_eq!(std::fs::read_dir(world.dir.path().join("states")).unwrap().count(), 0);
    // A pipeline that gets the name of a deleted one has none of its state.
    world.send("PUT", "/pipelines/p", &yaml, TOTALS.replace("earliest", "latest")).await.expect(201);
    sell(&world, &[("ada", 1)]).await;
    settled(&world, |pipeline| pipeline["out"] == 1 && pipeline["lag"] == 0).await;
    assert_eq!(count_of(&world, "ada").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_of_several_queues_is_told_apart_and_one_that_is_no_text_is_asked_for() {
    let world = World::new().await;
    for topic in ["in", "out"] {
        world.put(&format!("/topics/{topic}"), json!({ "queues": 3 })).await.expect(201);
    }
    let aggregate = sluice_plugins::ready_made("aggregate").unwrap();
    world.send("PUT", "/plugins/totals", &[], aggregate.component).await.expect(201);
    let source = json!({ "topic": "in", "start": "earliest" });
    let spec = json!({ "name": "p", "source": source, "steps": [{ "plugin": "totals" }], "sinks": ["out"] });
    world.put("/pipelines/p", spec).await.expect(201);
    let sale = |key: &str, queue: u32| json!({ "body": "1", "key": key, "queue": queue });
    world.post("/topics/in/messages", json!([sale("ada", 0), sale("ada", 2), sale("bob", 1)])).await.expect(201);
    settled(&world, |pipeline| pipeline["out"] == 3).await;
    let path = "/pipelines/p/state/totals";
    let several = world.get(&format!("{path}/ada")).await.problem(409, "conflict", Some("queue"));
    assert_eq!(several["queues"], json!([0, 2]));
    assert_eq!(world.get(&format!("{path}/ada?queue=2")).await.expect(200).json()["queue"], 2);
    world.get(&format!("{path}/ada?queue=1")).await.problem(404, "not-found", Some("key"));
    assert_eq!(world.get(&format!("{path}/bob")).await.expect(200).json()["queue"], 1);
    let base64 = |text: &str| base64::prelude::BASE64_STANDARD.encode(text).replace('=', "%3D");
    let bob = world.get(&format!("{path}/{}?encoding=base64", base64("bob"))).await.expect(200).json();
    assert_eq!((&bob["key"], &bob["queue"]), (&json!("bob"), &json!(1)));
    let page = world.get(&format!("{path}?encoding=base64&prefix={}", base64("ad"))).await.expect(200).json();
    assert_eq!(page["items"].as_array().unwrap().len(), 2, "{page}");
    world.get(&format!("{path}/b*b?encoding=base64")).await.problem(400, "invalid-field", Some("key"));
    world.get(&format!("{path}?encoding=base64&prefix=a")).await.problem(400, "invalid-field", Some("prefix"));
    world.get(&format!("{path}/bob?encoding=hex")).await.problem(400, "invalid-field", Some("encoding"));
}

/// The pipeline as soon as it is as wanted.
pub async fn settled(world: &World, wanted: impl Fn(&serde_json::Value) -> bool) -> serde_json::Value {
    let wait = async {
        loop {
            let pipeline = world.get("/pipelines/p").await.expect(200).json();
            if wanted(&pipeline) {
                return pipeline;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    let wait = tokio::time::timeout(std::time::Duration::from_secs(20), wait).await;
    match wait {
        Ok(pipeline) => pipeline,
        Err(_) => panic!("not in time: {}", world.get("/pipelines/p").await.text),
    }
}
