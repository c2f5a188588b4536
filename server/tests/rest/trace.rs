use std::time::Duration;

use serde_json::{Value, json};
use sluice_model::{Compression, Properties, SysFlag};
use sluice_protocol::ResponseCode;

use crate::{kit::World, pipelines::settled, remoting};

const SPEC: &str = "name: p\nsource: { topic: in, start: earliest, where: \"region = 'eu'\" }\nsinks: [ out ]\n\
                    steps:\n  - { plugin: only, config: { path: /status, equals: paid } }\n  \
                    - { plugin: mask, config: { redact: [ /card ] } }\n";

async fn world() -> World {
    let world = World::new().await;
    for topic in ["in", "out"] {
        world.put(&format!("/topics/{topic}"), json!({ "queues": 2 })).await.expect(201);
    }
    for (name, ready_made) in [("only", "json-filter"), ("mask", "json-map"), ("totals", "aggregate")] {
        let component = sluice_plugins::ready_made(ready_made).unwrap().component;
        world.send("PUT", &format!("/plugins/{name}"), &[], component).await.expect(201);
    }
    world
}

async fn apply(world: &World, spec: &str) {
    world.send("PUT", "/pipelines/p", &[("content-type", "application/yaml")], spec.to_owned()).await;
}

/// Sends a message; gives its unique key.
async fn send(world: &World, queue: u32, region: &str, body: Value) -> String {
    let message = json!({ "queue": queue, "body": body, "properties": { "region": region } });
    let sent = world.post("/topics/in/messages", message).await.expect(201).json();
    sent["unique_key"].as_str().unwrap().to_owned()
}

async fn trace(world: &World, queue: u32, offset: u64) -> Value {
    world.get(&format!("/pipelines/p/trace?queue={queue}&offset={offset}")).await.expect(200).json()
}

fn outcomes(trace: &Value) -> Vec<Vec<&str>> {
    let outcomes = |step: &'_ Value| step["records"].as_array().unwrap().len();
    let steps = trace["explanation"].as_array().unwrap();
    let of = |step: usize| {
        (0..outcomes(&steps[step])).map(move |at| steps[step]["records"][at]["outcome"].as_str().unwrap())
    };
    (0..steps.len()).map(|step| of(step).collect()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_is_followed_through_the_steps_to_its_sink_or_its_dead_letter() {
    let world = world().await;
    apply(&world, SPEC).await;
    let card = json!({ "status": "paid", "card": "4711" });
    let unique = send(&world, 0, "eu", card.clone()).await;
    send(&world, 0, "eu", json!({ "status": "new" })).await;
    send(&world, 0, "us", card.clone()).await;
    send(&world, 1, "eu", json!("junk")).await;
    let before = settled(&world, |pipeline| pipeline["in"] == 3 && pipeline["lag"] == 0).await;

    let paid = trace(&world, 0, 0).await;
    assert_eq!((&paid["passed"], &paid["wanted"], &paid["position"]), (&json!(true), &json!(true), &json!(3)));
    assert_eq!((paid["sinks"].as_array().unwrap().len(), paid["dead_letters"].as_array().unwrap().len()), (1, 0));
    assert_eq!((&paid["sinks"][0]["topic"], &paid["sinks"][0]["unique_key"]), (&json!("out"), &json!(unique)));
    assert_eq!(outcomes(&paid), [["kept"], ["changed"]]);
    let output = &paid["explanation"][1]["records"][0]["outputs"][0];
    let size = paid["sinks"][0]["size"].clone();
    assert_eq!(output, &json!({ "sink": "out", "changed": ["value"], "size": size }));
    assert_eq!(paid["explanation"][0]["plugin_digest"], before["steps"][0]["plugin_digest"]);
    let by_id = world.get(&format!("/pipelines/p/trace?id={unique}")).await.expect(200).json();
    assert_eq!((&by_id["source"], outcomes(&by_id)), (&paid["source"], outcomes(&paid)));

    let new = trace(&world, 0, 1).await;
    assert_eq!((new["sinks"].as_array().unwrap().len(), outcomes(&new)), (0, vec![vec!["dropped"], vec![]]));
    let foreign = trace(&world, 0, 2).await;
    assert_eq!((&foreign["wanted"], &foreign["passed"], outcomes(&foreign).len()), (&json!(false), &json!(true), 0));
    let junk = trace(&world, 1, 0).await;
    assert_eq!(junk["dead_letters"][0]["failure"]["code"], "not-json", "{junk}");
    assert_eq!(outcomes(&junk), [vec!["failed"], vec![]]);
    let error = &junk["explanation"][0]["records"][0]["error"];
    assert_eq!((&error["code"], &error["action"]), (&json!("not-json"), &json!("dead-letter")));

    let after = world.get("/pipelines/p").await.json();
    assert_eq!((&after["in"], &after["out"], &after["steps"]), (&before["in"], &before["out"], &before["steps"]));
    assert_eq!(world.get("/topics/out").await.json()["messages"], 1);

    world.post("/pipelines/p:pause", "").await.expect(200);
    send(&world, 0, "eu", card).await;
    let waiting = trace(&world, 0, 3).await;
    assert_eq!((&waiting["passed"], outcomes(&waiting).len()), (&json!(false), 2));
    assert!(waiting["sinks"].as_array().unwrap().is_empty(), "{waiting}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_that_keeps_state_is_not_run_again_nor_what_is_behind_it() {
    let world = world().await;
    let steps = "steps: [ { plugin: mask, config: { redact: [ /card ] } }, { plugin: totals }, { plugin: only, config: { path: /a, equals: b } } ]";
    apply(&world, &format!("name: p\nsource: {{ topic: in, start: earliest }}\nsinks: [ out ]\n{steps}\n")).await;
    send(&world, 0, "eu", json!({ "n": 1 })).await;
    settled(&world, |pipeline| pipeline["in"] == 1).await;
    let traced = trace(&world, 0, 0).await;
    assert_eq!(outcomes(&traced), [vec!["kept"], vec![], vec![]]);
    for step in [1, 2] {
        let why = traced["explanation"][step]["not_run"].as_str().unwrap();
        assert!(why.contains("keeps state"), "{traced}");
    }
    assert_eq!(traced["explanation"][0]["not_run"], Value::Null);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_nobody_can_read_is_explained() {
    let world = world().await;
    apply(&world, &SPEC.replace(", where: \"region = 'eu'\"", "")).await;
    let zlib = SysFlag::default().with_compression(Compression::Zlib);
    let junk = remoting::send("in", 0, zlib, Properties::default(), b"not compressed at all".to_vec());
    let sent = world.connect().invoke(junk.encode(), Duration::from_secs(10)).await.unwrap();
    assert_eq!(ResponseCode::from(sent.header.code), ResponseCode::Success);
    settled(&world, |pipeline| pipeline["dead_lettered"] == 1).await;
    let traced = trace(&world, 0, 0).await;
    assert_eq!((&traced["wanted"], &traced["passed"]), (&json!(true), &json!(true)));
    let (why, failure) = (&traced["unreadable"], &traced["dead_letters"][0]["failure"]);
    assert_eq!((&failure["code"], &failure["reason"]), (&json!("unreadable"), why), "{traced}");
    assert!(why.as_str().unwrap().contains("cannot be read"), "{traced}");
    assert_eq!(outcomes(&traced).len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_a_trace_is_named() {
    let world = world().await;
    world.get("/pipelines/p/trace?queue=0&offset=0").await.problem(404, "not-found", Some("pipeline"));
    apply(&world, SPEC).await;
    let get = |query: &'static str| world.get(query);
    get("/pipelines/p/trace").await.problem(400, "invalid-field", Some("queue"));
    get("/pipelines/p/trace?queue=0").await.problem(400, "invalid-field", Some("offset"));
    get("/pipelines/p/trace?queue=0&offset=0&id=x").await.problem(400, "invalid-field", Some("id"));
    get("/pipelines/p/trace?queue=2&offset=0").await.problem(400, "invalid-field", Some("queue"));
    get("/pipelines/p/trace?queue=1&offset=0").await.problem(404, "not-found", Some("offset"));
    get("/pipelines/p/trace?id=nobody").await.problem(404, "not-found", Some("id"));
}
