use std::time::Duration;

use serde_json::{Value, json};

use crate::kit::{World, later};

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_component_is_refused_with_the_gates_code() {
    let world = World::new().await;
    let core = wat::parse_str("(module)").unwrap();
    let empty = wat::parse_str("(component)").unwrap();
    for (bytes, code) in [(b"hello".to_vec(), "not-wasm"), (core, "core-module"), (empty, "no-role")] {
        let problem = world.send("PUT", "/plugins/p", &[], bytes.clone()).await;
        assert_eq!(problem.problem(422, "component-refused", Some("body"))["code"], code);
        let problem = world.send("POST", "/plugins/p:check", &[], bytes.clone()).await;
        assert_eq!(problem.problem(422, "component-refused", Some("body"))["code"], code);
        let problem = world.send("POST", "/plugins:check", &[], bytes).await;
        assert_eq!(problem.problem(422, "component-refused", Some("body"))["code"], code);
    }
    let large = world.send("PUT", "/plugins/p", &[], vec![0u8; 9 << 20]).await;
    assert_eq!(large.problem(422, "component-refused", Some("body"))["code"], "too-large");
    world.send("PUT", "/plugins/a%20b", &[], "").await.problem(400, "invalid-field", Some("name"));
    world.get("/plugins/p").await.problem(404, "not-found", Some("plugin"));
    world.delete("/plugins/p").await.problem(404, "not-found", Some("plugin"));
    world.get("/plugins/p/versions/1").await.problem(404, "not-found", Some("plugin"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_is_uploaded_described_tried_and_kept_while_it_is_used() {
    let mut world = World::new().await;
    let filter = sluice_plugins::ready_made("json-filter").unwrap();
    let checked = world.send("POST", "/plugins/only:check", &[], filter.component).await.expect(200).json();
    assert_eq!(checked["roles"], json!(["filter"]));
    assert_eq!(world.get("/plugins").await.json()["items"], json!([]));

    let made = world.send("PUT", "/plugins/only", &[], filter.component).await.expect(201);
    let report = made.json();
    assert_eq!((&report["digest"], &report["version"]), (&checked["digest"], &json!(filter.version)));
    assert_eq!(report["size"], filter.component.len());
    assert!(report["imports"].as_array().unwrap().iter().all(|import| import["granted"] == true));
    assert!(report["manifest"]["params"].as_array().unwrap().iter().any(|param| param["name"] == "path"));
    let again = world.send("PUT", "/plugins/only", &[], filter.component).await.expect(200);
    assert_eq!(again.header("etag"), made.header("etag"));
    let taken = [("if-none-match", "*")];
    world.send("PUT", "/plugins/only", &taken, filter.component).await.problem(
        412,
        "precondition-failed",
        Some("If-None-Match"),
    );

    let trial = json!({
        "config": { "path": "/status", "equals": "paid" },
        "messages": [{ "value": "{\"status\":\"paid\"}" }, { "value": "{\"status\":\"new\"}" }, { "value": "junk" }],
    });
    let tried = world.post("/plugins/only:try", &trial).await.expect(200).json();
    assert_eq!((&tried["results"][0], &tried["results"][1]), (&json!({ "keep": true }), &json!({ "keep": false })));
    assert_eq!(tried["results"][2]["error"]["action"], "dead-letter", "{tried}");
    // As messages are sent to a topic.
    let sent =
        json!([{ "body": { "status": "paid" }, "tag": "t", "properties": { "p": "1" } }, { "body_base64": "e30=" }]);
    let trial = json!({ "config": { "path": "/status", "equals": "paid" }, "messages": sent });
    let tried = world.post("/plugins/only:try", &trial).await.expect(200).json();
    assert_eq!(tried["results"], json!([{ "keep": true }, { "keep": false }]));
    for (message, field) in [
        (json!({ "value": "1", "body_base64": "e30=" }), "messages[0].body"),
        (json!({ "body": "1", "body_base64": "e30=" }), "messages[0].body"),
        (json!({ "body_base64": "?" }), "messages[0].body_base64"),
        (json!({ "value_base64": "?" }), "messages[0].value_base64"),
    ] {
        let bad = json!({ "config": trial["config"], "messages": [message] });
        world.post("/plugins/only:try", &bad).await.problem(400, "invalid-field", Some(field));
    }
    let bad = json!({ "config": { "colour": 1 }, "messages": [{ "value": "1" }] });
    world.post("/plugins/only:try", &bad).await.problem(400, "invalid-field", Some("config"));
    let bad = json!({ "role": "transform", "messages": [{ "value": "1" }] });
    world.post("/plugins/only:try", &bad).await.problem(400, "invalid-field", Some("role"));

    let map = sluice_plugins::ready_made("json-map").unwrap();
    world.send("PUT", "/plugins/map", &[], map.component).await.expect(201);
    let trial = json!({ "config": { "set": { "/a": 2 } }, "messages": [{ "key": "k", "value": "{\"a\":1}" }] });
    let tried = world.post("/plugins/map:try", &trial).await.expect(200).json();
    let output = &tried["results"][0]["outputs"][0];
    assert_eq!((&output["value"], &output["key"]), (&json!("{\"a\":2}"), &json!("k")), "{tried}");

    world.restart().await;
    assert_eq!(world.get("/plugins/only").await.expect(200).header("etag"), made.header("etag"));
    let digest = report["digest"].as_str().unwrap();
    world.get(&format!("/plugins/only/versions/{digest}")).await.expect(200);
    world.get("/plugins/only/versions/1").await.expect(200);

    let checker = sluice_plugins::ready_made("ledger-checker").unwrap();
    world.send("PUT", "/plugins/ledger", &[], checker.component).await.expect(201);
    world.put("/topics/books", "{}").await.expect(201);
    let spec = json!({ "plugin": "ledger", "config": { "topic": "books" }, "topics": ["books"] });
    let path = "/producer-groups/shop/checker";
    world.get(path).await.problem(404, "not-found", Some("checker"));
    let bound = world.put(path, &spec).await.expect(201);
    assert_eq!(bound.json()["policy"], "plugin-first");
    let same = world.put(path, &spec).await.expect(200).json();
    assert_eq!(same, bound.json());
    // An upload changes nothing until the checker is put again.
    let newer = world.send("PUT", "/plugins/ledger", &[], later(checker.component)).await.expect(201).json();
    world.restart().await;
    assert_eq!(world.get(path).await.expect(200).json()["plugin_digest"], same["plugin_digest"]);
    assert_eq!(world.put(path, &spec).await.expect(200).json()["plugin_digest"], newer["digest"]);
    world.get(&format!("{path}/logs")).await.expect(200);
    for (limits, field) in [
        (json!({ "deadline": "1h" }), "limits"),
        (json!({ "memory": "64KiB" }), "limits.memory"),
        (json!({ "state": "1MiB" }), "limits.state"),
    ] {
        let mut wrong = spec.clone();
        wrong["limits"] = limits;
        world.put(path, &wrong).await.problem(400, "invalid-field", Some(field));
    }
    let mut limited = spec.clone();
    limited["limits"] = json!({ "deadline": "200ms", "memory": "32MiB" });
    let shown = world.put(path, &limited).await.expect(200).json();
    assert_eq!((&shown["limits"], &shown["answers"]["commit"]), (&limited["limits"], &json!(0)));
    world.put(path, &spec).await.expect(200);
    let other = json!({ "plugin": "only" });
    world.put(path, &other).await.problem(400, "invalid-field", Some("plugin"));
    let used = world.delete("/plugins/ledger").await.problem(409, "conflict", None);
    assert_eq!(used["used_by"]["producer_groups"], json!(["shop"]));
    let stale = [("if-match", bound.header("etag"))];
    world.send("DELETE", path, &stale, "").await.problem(412, "precondition-failed", Some("If-Match"));
    let tag = world.get(path).await.expect(200).header("etag").to_owned();
    world.send("DELETE", path, &[("if-match", &tag)], "").await.expect(204);
    world.send("DELETE", path, &[("if-match", &tag)], "").await.problem(404, "not-found", Some("checker"));
    world.delete("/plugins/ledger").await.expect(204);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_is_measured_where_it_would_run() {
    let world = World::new().await;
    for plugin in ["json-filter", "aggregate", "ledger-checker"] {
        let component = sluice_plugins::ready_made(plugin).unwrap().component;
        world.send("PUT", &format!("/plugins/{plugin}"), &[], component).await.expect(201);
    }
    let messages =
        json!([{ "value": r#"{"s":"paid"}"# }, { "value": r#"{"s":"new"}"# }, { "value": "junk" }, { "value": "[]" }]);
    let config = json!({ "path": "/s", "equals": "paid" });
    let test = json!({ "config": config, "messages": messages, "seconds": 1 });
    let speed = world.post("/plugins/json-filter@1:bench", &test).await.expect(200).json();
    let count = |name: &str| speed[name].as_u64().unwrap();
    // Whole batches, the first of which have 64, 128 and 256 records; each has as many of each.
    assert!(count("records") >= 512 && count("records") % 64 == 0, "{speed}");
    assert_eq!(
        (count("sent") * 4, count("failed") * 4, count("dropped") * 2),
        (count("records"), count("records"), count("records"))
    );
    assert!(speed["cpu_us_per_1000_records"].as_f64().unwrap() > 0.0 && count("memory") > 0, "{speed}");
    assert_eq!(speed["stopped"], Value::Null);

    let kept = json!({ "config": { "by": "/s" }, "messages": [{ "value": r#"{"s":"paid"}"# }], "seconds": 1 });
    let speed = world.post("/plugins/aggregate:bench", kept).await.expect(200).json();
    assert!(speed["sent"] == speed["records"] && speed["failed"] == 0, "{speed}");

    let refuse = |plugin: &str, test: Value| {
        let (path, world) = (format!("/plugins/{plugin}:bench"), &world);
        async move { world.post(&path, test).await }
    };
    refuse("none", test.clone()).await.problem(404, "not-found", Some("plugin"));
    refuse("ledger-checker", test.clone()).await.problem(400, "invalid-field", Some("name"));
    let wide = json!({ "config": config, "messages": messages, "sinks": ["a", "b"] });
    refuse("json-filter", wide).await.problem(400, "invalid-field", Some("sinks"));
    refuse("json-filter", json!({ "messages": messages })).await.problem(400, "invalid-field", Some("config"));
    refuse("json-filter", json!({ "config": config, "messages": [] })).await.problem(
        400,
        "invalid-field",
        Some("messages"),
    );
    let long = json!({ "config": config, "messages": messages, "seconds": 11 });
    refuse("json-filter", long).await.problem(400, "invalid-field", Some("seconds"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_that_finds_no_room_is_busy_and_none_of_its_fields_is_to_blame() {
    let world = World::new().await;
    let component = sluice_plugins::ready_made("json-filter").unwrap().component;
    world.send("PUT", "/plugins/json-filter", &[], component).await.expect(201);
    // An ingress has what is left to others than pipelines, and a stage for each queue the rest: as many instances as there may be.
    for (topic, queues) in [("in", 24), ("out", 1), ("held", 1)] {
        world.put(&format!("/topics/{topic}"), json!({ "queues": queues })).await.expect(201);
    }
    let config = json!({ "path": "/s", "equals": "paid" });
    let step = json!({ "plugin": "json-filter", "config": config });
    world.put("/topics/held/ingress", json!({ "steps": vec![step; 8] })).await.expect(201);
    world.post("/topics/held/messages", json!({ "body": { "s": "paid" } })).await.expect(201);
    let pipeline = json!({
        "name": "p", "source": { "topic": "in" }, "sinks": ["out"], "steps": [{ "plugin": "json-filter", "config": config }],
    });
    world.put("/pipelines/p", pipeline).await.expect(201);
    world.post("/topics/in/messages", json!({ "queue": 0, "body": { "s": "paid" } })).await.expect(201);
    let test = json!({ "config": config, "messages": [{ "value": "{}" }] });
    world.post("/plugins/json-filter:try", &test).await.problem(429, "busy", None);
    world.post("/plugins/json-filter:bench", &test).await.problem(429, "busy", None);
    world.get("/pipelines/p/trace?queue=0&offset=0").await.problem(429, "busy", None);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_is_measured_keeps_its_turn_when_its_client_hangs_up() {
    let world = World::new().await;
    let component = sluice_plugins::ready_made("json-filter").unwrap().component;
    world.send("PUT", "/plugins/json-filter", &[], component).await.expect(201);
    let config = json!({ "path": "/s", "equals": "paid" });
    let test = |seconds| json!({ "config": config, "messages": [{ "value": "{}" }], "seconds": seconds });
    let path = "/plugins/json-filter:bench";
    let hung_up = tokio::time::timeout(Duration::from_millis(500), world.post(path, test(3))).await;
    assert!(hung_up.is_err());
    tokio::time::sleep(Duration::from_millis(500)).await;
    world.post(path, test(1)).await.problem(429, "busy", None);
}
