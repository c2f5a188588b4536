//! `If-Match` and `If-None-Match`, and parameters that nobody reads.

use std::{sync::mpsc, time::Duration};

use serde_json::{Value, json};

use crate::kit::{Reply, World, later};

fn spec(status: &str) -> String {
    let step = json!({ "plugin": "only", "config": { "path": "/status", "equals": status } });
    json!({ "name": "p", "source": { "topic": "in" }, "steps": [step], "sinks": ["out"] }).to_string()
}

async fn begin() -> World {
    let world = World::new().await;
    for topic in ["in", "out"] {
        world.put(&format!("/topics/{topic}"), json!({ "queues": 2 })).await.expect(201);
    }
    let filter = sluice_plugins::ready_made("json-filter").unwrap().component;
    world.send("PUT", "/plugins/only", &[], filter).await.expect(201);
    world.put("/pipelines/p", spec("paid")).await.expect(201);
    world
}

async fn tag(world: &World, path: &str) -> String {
    world.get(path).await.expect(200).header("etag").to_owned()
}

async fn matching(world: &World, method: &str, path: &str, tag: &str) -> Reply {
    world.send(method, path, &[("if-match", tag)], "").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_a_pipeline_that_is_another_by_now_is_refused() {
    let world = begin().await;
    let first = tag(&world, "/pipelines/p").await;
    world.put("/pipelines/p", spec("new")).await.expect(200);
    let verbs = ["pause", "resume", "reset", "rollback"].map(|verb| ("POST", format!("/pipelines/p:{verb}")));
    for (method, path) in verbs.into_iter().chain([("DELETE", "/pipelines/p".to_owned())]) {
        let before = tag(&world, "/pipelines/p").await;
        for (wrong, field) in [("if-match", "If-Match"), ("if-none-match", "If-None-Match")] {
            let value = if wrong == "if-match" { first.as_str() } else { "*" };
            let refused = world.send(method, &path, &[(wrong, value)], "").await;
            refused.problem(412, "precondition-failed", Some(field));
        }
        assert_eq!(tag(&world, "/pipelines/p").await, before, "{path}");
        assert!(matching(&world, method, &path, &before).await.status < 300, "{path}");
    }
    world.get("/pipelines/p").await.expect(404);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_pipeline_does_not_go_on_from_somebody_elses_positions() {
    let world = begin().await;
    let mut other: Value = serde_json::from_str(&spec("paid")).unwrap();
    other["name"] = json!("q");
    world.put("/groups/pipeline-q", json!({})).await.expect(201);
    world.post("/groups/pipeline-q/offsets:reset", json!({ "topic": "in", "to": "latest" })).await.expect(200);
    let refused = world.put("/pipelines/q", other.clone()).await.problem(409, "conflict", Some("name"));
    assert!(refused["detail"].as_str().unwrap().contains("group \"pipeline-q\" has positions already"), "{refused}");
    world.get("/pipelines/q").await.expect(404);
    world.delete("/groups/pipeline-q").await.expect(204);
    for _ in 0..2 {
        world.put("/pipelines/q", other.clone()).await.expect(201);
        world.delete("/pipelines/q").await.expect(204);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_candidate_that_was_looked_at_is_promoted_or_given_up() {
    let world = begin().await;
    let path = "/pipelines/p/candidate?mode=shadow";
    let shown = "/pipelines/p/candidate";
    world.put(path, spec("new")).await.expect(201);
    let first = tag(&world, shown).await;
    assert_eq!(first, tag(&world, "/pipelines/p").await);
    world.delete(shown).await.expect(204);
    world.put(path, spec("open")).await.expect(201);
    let stale = |method: &'static str, path: &'static str| matching(&world, method, path, &first);
    stale("POST", "/pipelines/p:promote").await.problem(412, "precondition-failed", Some("If-Match"));
    stale("DELETE", shown).await.problem(412, "precondition-failed", Some("If-Match"));
    assert_eq!(world.get("/pipelines/p").await.json()["revision"], 1);
    let second = tag(&world, shown).await;
    let live = matching(&world, "POST", "/pipelines/p:promote", &second).await.expect(200).json();
    assert_eq!(live["spec"]["steps"][0]["config"]["equals"], "open");
    world.put(path, spec("new")).await.expect(201);
    matching(&world, "DELETE", shown, &tag(&world, shown).await).await.expect(204);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_a_group_or_a_secret_that_is_another_by_now_stays() {
    let world = begin().await;
    let filter = sluice_plugins::ready_made("json-filter").unwrap().component;
    world.send("PUT", "/plugins/spare", &[], filter).await.expect(201);
    let first = tag(&world, "/plugins/spare").await;
    world.send("PUT", "/plugins/spare", &[], later(filter)).await.expect(201);
    let refused = matching(&world, "DELETE", "/plugins/spare", &first).await;
    refused.problem(412, "precondition-failed", Some("If-Match"));
    let refused = matching(&world, "DELETE", "/plugins/spare/versions/2", &first).await;
    refused.problem(412, "precondition-failed", Some("If-Match"));
    let versions = world.get("/plugins/spare").await.json()["versions"].clone();
    assert_eq!(versions.as_array().unwrap().len(), 2);
    matching(&world, "DELETE", "/plugins/spare/versions/1", &first).await.expect(204);
    let second = tag(&world, "/plugins/spare").await;
    matching(&world, "DELETE", "/plugins/spare", &second).await.expect(204);

    world.put("/groups/g", json!({ "retries": 3 })).await.expect(201);
    let first = tag(&world, "/groups/g").await;
    world.put("/groups/g", json!({ "retries": 4 })).await.expect(200);
    let refused = matching(&world, "DELETE", "/groups/g", &first).await;
    refused.problem(412, "precondition-failed", Some("If-Match"));
    matching(&world, "DELETE", "/groups/g", &tag(&world, "/groups/g").await).await.expect(204);

    let secret = async |name: &str, value: &str| world.send("PUT", "/secrets/s", &[(name, value)], "x").await;
    secret("if-match", "*").await.problem(412, "precondition-failed", Some("If-Match"));
    secret("if-none-match", "*").await.expect(201);
    secret("if-none-match", "*").await.problem(412, "precondition-failed", Some("If-None-Match"));
    secret("if-match", "*").await.expect(200);
    secret("if-match", "\"1\"").await.problem(400, "invalid-field", Some("If-Match"));
}

#[tokio::test(flavor = "multi_thread")]
async fn parameters_that_nobody_reads_are_refused() {
    let world = begin().await;
    for (method, path, field) in [
        ("GET", "/pipelines/p?foo=1", "foo"),
        ("DELETE", "/pipelines/p?force", "force"),
        ("POST", "/pipelines/p:pause?dry%20run=1", "dry run"),
        ("POST", "/plugins/only:check?foo=1", "foo"),
        ("GET", "/plugins/only?foo=1&bar=2", "foo"),
        ("PUT", "/topics/in?queues=3", "queues"),
        ("DELETE", "/groups/g?foo=1", "foo"),
        ("GET", "/cluster?foo=1", "foo"),
        ("GET", "/pipelines?foo=1", "foo"),
        ("GET", "/pipelines/p/state/totals/k?foo=1", "foo"),
    ] {
        world.send(method, path, &[], "").await.problem(400, "invalid-field", Some(field));
    }
    assert_eq!(world.get("/pipelines/p?").await.expect(200).json()["state"], "running");
    world.send("PATCH", "/pipelines/p?foo=1", &[], "").await.problem(405, "method-not-allowed", None);
    let document = world.get("/openapi.json").await.expect(200).json();
    let described: &Value = &document["paths"]["/pipelines/{name}:promote"]["post"]["parameters"];
    assert!(described.as_array().unwrap().iter().any(|of| of["name"] == "If-Match"), "{described}");
}

/// The same plugin, deleted and put to use at the same time: one of them comes first.
#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_is_not_deleted_under_who_puts_it_to_use() {
    let world = std::sync::Arc::new(begin().await);
    world.delete("/pipelines/p").await.expect(204);
    let filter = sluice_plugins::ready_made("json-filter").unwrap().component;
    for _ in 0..5 {
        world.send("PUT", "/plugins/only", &[], filter).await;
        let (told, tell) = mpsc::channel();
        let its = world.clone();
        let apply = tokio::spawn(async move {
            told.send(()).unwrap();
            its.put("/pipelines/p", spec("paid")).await.status
        });
        tell.recv_timeout(Duration::from_secs(10)).unwrap();
        let deleted = world.delete("/plugins/only").await.status;
        match (apply.await.unwrap(), deleted) {
            (201, 409) => world.delete("/pipelines/p").await.expect(204),
            (404, 204) => world.get("/pipelines/p").await.expect(404),
            other => panic!("{other:?}"),
        };
    }
}
