use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Value, json};

use crate::kit::World;

/// A pipeline whose one plugin fails on bodies that are no JSON, and on those whose `a` is no object.
async fn world() -> World {
    let world = World::new().await;
    for topic in ["in", "out"] {
        world.put(&format!("/topics/{topic}"), json!({ "queues": 2 })).await.expect(201);
    }
    for plugin in ["json-map", "json-filter", "aggregate"] {
        let component = sluice_plugins::ready_made(plugin).unwrap().component;
        world.send("PUT", &format!("/plugins/{plugin}"), &[], component).await.expect(201);
    }
    world.put("/pipelines/p", spec(json!([map(json!({ "/a/b": 1 }))]))).await.expect(201);
    world
}

fn map(set: Value) -> Value {
    json!({ "plugin": "json-map", "config": { "set": set } })
}

fn spec(steps: Value) -> Value {
    json!({
        "name": "p", "source": { "topic": "in", "start": "earliest" }, "steps": steps, "sinks": ["out"],
        "on_failure": { "retries": 0 },
    })
}

/// Sends messages and waits until as many more are dead letters.
async fn fail(world: &World, bodies: &[&str]) {
    let before = letters(world, "?all=true").await.len();
    let messages: Vec<Value> = bodies
        .iter()
        .map(|body| json!({ "body": body, "queue": 1, "key": "k", "tag": "t", "properties": { "mine": "1" } }))
        .collect();
    world.post("/topics/in/messages", Value::from(messages)).await.expect(201);
    let wait = async {
        while letters(world, "?all=true").await.len() < before + bodies.len() {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), wait).await.expect("dead letters in time");
}

async fn letters(world: &World, query: &str) -> Vec<Value> {
    let page = world.get(&format!("/pipelines/p/dlq{query}")).await.expect(200).json();
    assert_eq!(page["next"], Value::Null);
    page["items"].as_array().unwrap().clone()
}

fn ids(letters: &[Value]) -> Vec<&str> {
    letters.iter().map(|letter| letter["id"].as_str().unwrap()).collect()
}

fn bodies(letters: &[Value]) -> Vec<&str> {
    letters.iter().map(|letter| letter["body"].as_str().unwrap()).collect()
}

async fn messages(world: &World, topic: &str) -> u64 {
    world.get(&format!("/topics/{topic}")).await.expect(200).json()["messages"].as_u64().unwrap()
}

async fn replay(world: &World, body: Value) -> Value {
    world.post("/pipelines/p/dlq:replay", body).await.expect(200).json()
}

fn done(replayed: u64, sent: u64, dead_lettered: u64, left: u64) -> Value {
    json!({ "replayed": replayed, "sent": sent, "dead_lettered": dead_lettered, "left": left, "stopped": null })
}

const ALL: &str = r#"{"all": true}"#;

fn all() -> Value {
    serde_json::from_str(ALL).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_are_replayed_once_and_past_everybody_else() {
    let mut world = world().await;
    assert_eq!(replay(&world, all()).await, done(0, 0, 0, 0));
    fail(&world, &[r#"{"a":1}"#, "junk", r#"{"a":2}"#]).await;
    // The pipeline is mended for some of them.
    world.put("/pipelines/p", spec(json!([map(json!({ "/c": 1 }))]))).await.expect(200);
    assert_eq!(replay(&world, all()).await, done(3, 2, 1, 1));
    assert_eq!((messages(&world, "in").await, messages(&world, "out").await), (3, 2));

    let sent = world.get("/topics/out/messages").await.json()["items"].clone();
    assert_eq!((&sent[0]["body"], &sent[1]["body"]), (&json!(r#"{"a":1,"c":1}"#), &json!(r#"{"a":2,"c":1}"#)));
    let first = &sent[0];
    assert_eq!((&first["queue"], &first["key"], &first["tag"]), (&json!(1), &json!("k"), &json!("t")));
    assert_eq!(first["properties"], json!({ "mine": "1" }));

    let waiting = letters(&world, "").await;
    assert_eq!((bodies(&waiting), &waiting[0]["dealt_with"]), (vec!["junk"], &json!(false)));
    let failure = &waiting[0]["failure"];
    assert_eq!((&failure["code"], &failure["tries"]), (&json!("not-json"), &json!(2)));
    assert_eq!(
        (&failure["source_topic"], &failure["source_queue"], &failure["source_offset"]),
        (&json!("in"), &json!(1), &json!(1))
    );
    assert_eq!(waiting[0]["properties"]["mine"], "1");
    assert_eq!(letters(&world, "?all=true").await.iter().filter(|letter| letter["dealt_with"] == true).count(), 3);

    world.restart().await;
    assert_eq!(replay(&world, all()).await, done(1, 0, 1, 1));
    assert_eq!(letters(&world, "").await[0]["failure"]["tries"], 3);
    // What is kept about them is the pipeline's own, as its positions are.
    assert_eq!(world.get("/groups").await.json()["items"], json!([]));
    world.delete("/groups/pipeline-p%7Cdlq").await.problem(409, "conflict", None);
    assert_eq!(messages(&world, "out").await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn single_letters_are_replayed_out_of_order_and_again_only_when_told() {
    let mut world = world().await;
    let texts = [r#"{"a":0}"#, r#"{"a":1}"#, r#"{"a":2}"#, r#"{"a":3}"#, r#"{"a":4}"#];
    fail(&world, &texts).await;
    world.put("/pipelines/p", spec(json!([map(json!({ "/c": 1 }))]))).await.expect(200);
    let found = letters(&world, "").await;
    let id = ids(&found);
    assert_eq!(replay(&world, json!({ "ids": [id[3], id[1], id[3]] })).await, done(2, 2, 0, 3));
    assert_eq!(bodies(&letters(&world, "").await), [texts[0], texts[2], texts[4]]);
    assert_eq!(bodies(&letters(&world, "?key=k").await).len(), 3);
    // One that is named is shown in any case.
    assert_eq!(letters(&world, &format!("?id={}", id[1])).await[0]["dealt_with"], true);

    world.restart().await;
    let twice = json!({ "ids": [id[0], id[1]] });
    let refused = world.post("/pipelines/p/dlq:replay", twice).await.problem(409, "conflict", Some("ids[1]"));
    assert!(refused["detail"].as_str().unwrap().contains("again"), "{refused}");
    assert_eq!(messages(&world, "out").await, 2);
    assert_eq!(replay(&world, json!({ "ids": [id[1]], "again": true })).await, done(1, 1, 0, 3));
    // What stands between them is passed over.
    assert_eq!(replay(&world, all()).await, done(3, 3, 0, 0));
    assert_eq!(replay(&world, all()).await, done(0, 0, 0, 0));
    assert_eq!(messages(&world, "out").await, 6);
    // A page shows what it says, with replayed letters before and between.
    let page = world.get("/pipelines/p/dlq?all=true&limit=2").await.json();
    assert_eq!(page["items"].as_array().unwrap().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn letters_are_grouped_by_error_and_replayed_by_code() {
    let world = world().await;
    assert_eq!(letters(&world, "?group_by=error").await, [] as [Value; 0]);
    fail(&world, &["junk", r#"{"a":1}"#, "more junk", r#"{"a":2}"#, "junk"]).await;
    let groups = letters(&world, "?group_by=error").await;
    let (code, count) = (|at: usize| groups[at]["code"].as_str().unwrap(), |at: usize| groups[at]["count"].clone());
    assert_eq!((code(0), count(0), code(1), count(1)), ("not-json", json!(3), "no-such-place", json!(2)));
    let last = letters(&world, "").await.pop().unwrap();
    assert_eq!((&groups[0]["sample"], &groups[0]["last"]), (&last["id"], &last["stored_at"]));
    assert_eq!(groups[0]["step"], "json-map");
    assert_eq!(groups[0]["plugin_digest"], last["failure"]["plugin_digest"]);

    world.put("/pipelines/p", spec(json!([map(json!({ "/c": 1 }))]))).await.expect(200);
    let some = replay(&world, json!({ "all": true, "code": "no-such-place" })).await;
    assert_eq!(some, done(2, 2, 0, 3));
    let groups = letters(&world, "?group_by=error").await;
    assert_eq!((groups.len(), &groups[0]["count"]), (1, &json!(3)));
    assert_eq!(letters(&world, "?group_by=error&all=true").await.len(), 2);
    let page = |query: &'static str| world.get(query);
    page("/pipelines/p/dlq?group_by=code").await.problem(400, "invalid-field", Some("group_by"));
    page("/pipelines/p/dlq?group_by=error&key=k").await.problem(400, "invalid-field", Some("key"));
    page("/pipelines/p/dlq?group_by=error&cursor=x").await.problem(400, "invalid-field", Some("cursor"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_purged_waits_no_longer() {
    let mut world = world().await;
    fail(&world, &["a", "b"]).await;
    let first = letters(&world, "").await[0].clone();
    let early = json!({ "before": first["stored_at"] });
    assert_eq!(world.post("/pipelines/p/dlq:purge", early).await.json(), json!({ "purged": 0, "left": 2 }));
    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    fail(&world, &["c"]).await;
    let last = letters(&world, "").await[2].clone();
    let before = json!({ "before": last["stored_at"] });
    assert_eq!(world.post("/pipelines/p/dlq:purge", before).await.json(), json!({ "purged": 2, "left": 1 }));
    world.restart().await;
    assert_eq!(bodies(&letters(&world, "").await), ["c"]);
    assert_eq!(world.post("/pipelines/p/dlq:purge", ALL).await.json(), json!({ "purged": 1, "left": 0 }));
    assert_eq!(letters(&world, "").await, [] as [Value; 0]);
    assert_eq!(letters(&world, "?all=true").await.len(), 3);
    let again = json!({ "ids": [first["id"]] });
    world.post("/pipelines/p/dlq:replay", again).await.problem(409, "conflict", Some("ids[0]"));

    // Another topic under the old name has letters of its own.
    world.delete("/topics/%25DLQ%25pipeline-p").await.expect(204);
    fail(&world, &["d"]).await;
    assert_eq!(bodies(&letters(&world, "").await), ["d"]);
    assert_eq!(replay(&world, all()).await, done(1, 0, 1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn letters_are_purged_by_id_or_by_code() {
    let mut world = world().await;
    fail(&world, &["junk", r#"{"a":1}"#, "more junk", r#"{"a":2}"#, "junk"]).await;
    let found = letters(&world, "").await;
    let id = ids(&found);
    let purge = async |body: Value| world.post("/pipelines/p/dlq:purge", body).await.expect(200).json();
    let early = json!({ "before": found[0]["stored_at"], "code": "not-json" });
    assert_eq!(purge(early).await, json!({ "purged": 0, "left": 5 }));
    assert_eq!(purge(json!({ "ids": [id[2], id[2]] })).await, json!({ "purged": 1, "left": 4 }));
    assert_eq!(purge(json!({ "ids": [id[2]] })).await, json!({ "purged": 0, "left": 4 }));
    assert_eq!(purge(json!({ "all": true, "code": "no-such-place" })).await, json!({ "purged": 2, "left": 2 }));
    world.restart().await;
    assert_eq!(bodies(&letters(&world, "").await), ["junk", "junk"]);
    let purge = |body: Value| world.post("/pipelines/p/dlq:purge", body);
    assert_eq!(purge(json!({ "all": true, "code": "none" })).await.json(), json!({ "purged": 0, "left": 2 }));
    for (body, field) in [
        (json!({ "ids": [] }), "ids"),
        (json!({ "ids": ["x"] }), "ids[0]"),
        (json!({ "ids": ["x"], "code": "c" }), "code"),
        (json!({ "ids": ["x"], "all": true }), "before"),
        (json!({ "code": "c" }), "before"),
    ] {
        purge(body).await.problem(400, "invalid-field", Some(field));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_version_of_a_plugin_is_tried_without_replacing_the_pipeline() {
    let world = world().await;
    fail(&world, &["junk"]).await;
    let old = letters(&world, "").await[0]["failure"]["plugin_digest"].clone();
    // The same plugin with another digest: a custom section more.
    let mut component = sluice_plugins::ready_made("json-map").unwrap().component.to_vec();
    component.extend_from_slice(b"\0\x02\x01x");
    let report = world.send("PUT", "/plugins/json-map", &[], component).await.expect(201).json();
    let new = report["digest"].as_str().unwrap().strip_prefix("sha256:").unwrap();
    assert_ne!(old, new);
    // What came since is not what the pipeline runs.
    assert_eq!(replay(&world, all()).await, done(1, 0, 1, 1));
    assert_eq!(letters(&world, "").await[0]["failure"]["plugin_digest"], old);
    let plugin = format!("json-map@sha256:{new}");
    assert_eq!(replay(&world, json!({ "all": true, "plugin": plugin })).await, done(1, 0, 1, 1));
    let failure = letters(&world, "").await[0]["failure"].clone();
    assert_eq!((&failure["plugin_digest"], &failure["plugin"]), (&json!(new), &json!(plugin)));
    let with = |plugin: &str| world.post("/pipelines/p/dlq:replay", json!({ "all": true, "plugin": plugin }));
    with("json-filter@0").await.problem(400, "invalid-field", Some("plugin"));
    with("json-map@7").await.problem(404, "not-found", Some("plugin"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_replayed_is_refused_with_the_reason() {
    let world = world().await;
    fail(&world, &["junk"]).await;
    let replay = |body: Value| world.post("/pipelines/p/dlq:replay", body);
    let invalid = |body: Value, field: &'static str| async move {
        replay(body).await.problem(400, "invalid-field", Some(field));
    };
    invalid(json!({}), "ids").await;
    invalid(json!({ "ids": [] }), "ids").await;
    invalid(json!({ "ids": vec!["x"; 1001] }), "ids").await;
    invalid(json!({ "ids": ["x"] }), "ids[0]").await;
    invalid(json!({ "ids": ["x"], "all": true }), "ids").await;
    invalid(json!({ "ids": ["x"], "code": "c" }), "code").await;
    invalid(json!({ "all": true, "again": true }), "again").await;
    invalid(json!({ "all": true, "colour": 1 }), "colour").await;
    let other = world.get("/topics/in/messages").await.json()["items"][0]["id"].clone();
    replay(json!({ "ids": [other] })).await.problem(404, "not-found", Some("ids[0]"));
    let purge = |body: Value| world.post("/pipelines/p/dlq:purge", body);
    purge(json!({})).await.problem(400, "invalid-field", Some("before"));
    purge(json!({ "before": "noon" })).await.problem(400, "invalid-field", Some("before"));
    purge(json!({ "before": "2026-01-01T00:00:00Z", "all": true })).await.problem(400, "invalid-field", Some("before"));
    for path in ["/pipelines/q/dlq:replay", "/pipelines/q/dlq:purge"] {
        world.post(path, ALL).await.problem(404, "not-found", Some("pipeline"));
    }
}

/// Waits until so many outputs and waiting letters are there.
async fn came(world: &World, outputs: u64, waiting: usize) {
    let wait = async {
        while messages(world, "out").await < outputs || letters(world, "").await.len() < waiting {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), wait).await.expect("outputs and dead letters in time");
}

/// What the pipeline kept of a customer: how many records.
async fn count_of(world: &World, who: &str) -> u64 {
    let entry = world.get(&format!("/pipelines/p/state/totals/{who}?queue=0")).await.expect(200).json();
    let bytes = BASE64_STANDARD.decode(entry["value_base64"].as_str().unwrap()).unwrap();
    u64::from_le_bytes(bytes[..8].try_into().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_letter_is_replayed_with_what_the_pipeline_keeps_and_counts_there() {
    let mut world = world().await;
    let sums = |config: Value| spec(json!([{ "plugin": "aggregate", "config": config }]));
    world.put("/pipelines/p", sums(json!({ "by": "/who", "sum": "/n" }))).await.expect(200);
    let sale = |body: &str, queue: u32| json!({ "body": body, "queue": queue });
    // Each queue has an ada of its own.
    let sales = [r#"{"who":"ada","n":200}"#, r#"{"who":"ada"}"#, r#"{"who":"ada","n":300}"#];
    world.post("/topics/in/messages", json!([sale(r#"{"who":"ada","n":1}"#, 0)])).await.expect(201);
    world.post("/topics/in/messages", json!(sales.map(|body| sale(body, 1)))).await.expect(201);
    came(&world, 3, 1).await;

    world.post("/pipelines/p:pause", "").await.expect(200);
    world.post("/pipelines/p/dlq:replay", ALL).await.problem(409, "conflict", None);
    world.post("/pipelines/p:resume", "").await.expect(200);
    assert_eq!(replay(&world, all()).await, done(1, 0, 1, 1));
    world.put("/pipelines/p", sums(json!({ "by": "/who" }))).await.expect(200);
    assert_eq!(replay(&world, all()).await, done(1, 1, 0, 0));
    let out = world.get("/topics/out/messages?queue=1&offset=0").await.json()["items"].clone();
    assert_eq!(out[2]["body"], r#"{"count":3,"key":"ada"}"#);

    world.restart().await;
    assert_eq!(count_of(&world, "ada").await, 1, "of queue 0");
    world.post("/topics/in/messages", json!([sale(r#"{"who":"ada"}"#, 1)])).await.expect(201);
    came(&world, 5, 0).await;
    let out = world.get("/topics/out/messages?queue=1&offset=0").await.json()["items"].clone();
    assert_eq!(out[3]["body"], r#"{"count":4,"key":"ada"}"#);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_runs_again_runs_as_its_queue_does() {
    let world = world().await;
    fail(&world, &[r#"{"a":1}"#]).await;
    world.post("/topics/in/messages", json!({ "body": { "a": 1 }, "queue": 0 })).await.expect(201);
    while letters(&world, "").await.len() < 2 {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let canary = spec(json!([map(json!({ "/c": 1 }))]));
    world.put("/pipelines/p/candidate?mode=canary&queues=1", canary).await.expect(201);
    let outcome = async |queue: u32| {
        let trace = world.get(&format!("/pipelines/p/trace?queue={queue}&offset=0")).await.expect(200).json();
        trace["explanation"][0]["records"][0]["outcome"].clone()
    };
    assert_eq!((outcome(0).await, outcome(1).await), (json!("failed"), json!("changed")));
    assert_eq!(replay(&world, all()).await, done(2, 1, 1, 1));
    let page = world.get("/topics/out/messages").await.expect(200).json();
    assert_eq!(page["items"][0]["body"], r#"{"a":1,"c":1}"#);
    assert_eq!(letters(&world, "").await[0]["failure"]["source_queue"], 0);
}
