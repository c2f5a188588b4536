use serde_json::{Value, json};

use crate::kit::World;

async fn world() -> World {
    let world = World::new().await;
    for plugin in ["json-map", "json-filter", "ledger-checker"] {
        let ready = sluice_plugins::ready_made(plugin).unwrap();
        world.send("PUT", &format!("/plugins/{plugin}"), &[], ready.component).await.expect(201);
    }
    for topic in ["in", "out", "customers"] {
        world.put(&format!("/topics/{topic}"), "{}").await.expect(201);
    }
    world.put("/groups/g", "{}").await.expect(201);
    world.send("PUT", "/secrets/api-key", &[], "hunter2").await.expect(201);
    world
}

fn step(grants: Value) -> Value {
    json!({ "plugin": "json-map", "config": { "set": { "/a": 1 } }, "grants": grants })
}

fn pipeline(grants: Value) -> Value {
    json!({ "name": "p", "source": { "topic": "in" }, "steps": [step(grants)], "sinks": ["out"] })
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_granted_is_named() {
    let world = world().await;
    let put = async |grants| world.put("/pipelines/p", pipeline(grants)).await;
    let url = |url: &str| json!({ "http": [{ "url": url }] });
    for wrong in ["api.example.com", "ftp://x/", "https://me:pw@x/", "https://x/?a=b", "https://x/v1/%2e%2e%2fa"] {
        let problem = put(url(wrong)).await.problem(400, "invalid-field", Some("steps[0].grants.http"));
        assert!(problem["detail"].as_str().unwrap().starts_with("steps[0].grants.http: expected"), "{problem}");
    }
    let method = json!({ "http": [{ "url": "https://x/", "methods": ["get"] }] });
    put(method).await.problem(400, "invalid-field", Some("steps[0].grants.http"));
    let none = put(json!({ "topics": ["none"] })).await;
    none.problem(404, "not-found", Some("steps[0].grants.topics"));
    let missing = put(json!({ "secrets": ["api-key", "other"] })).await;
    let problem = missing.problem(404, "not-found", Some("steps[0].grants.secrets"));
    assert!(problem["detail"].as_str().unwrap().contains("\"other\" does not exist"), "{problem}");
    assert!(problem["hint"].as_str().unwrap().contains("/api/v1/secrets/"), "{problem}");
    put(json!({ "secrets": ["../api-key"] })).await.problem(400, "invalid-field", Some("steps[0].grants.secrets"));
    put(json!({ "secrets": vec!["api-key"; 33] })).await.problem(400, "invalid-field", Some("steps[0].grants.secrets"));
    let unknown = put(json!({ "files": ["/"] })).await;
    assert!(unknown.expect(400).text.contains("files"));
    assert_eq!(events(&world).await, [""; 0], "nothing was granted");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_is_deleted_only_where_the_request_says_what_is_true() {
    let world = world().await;
    let delete = async |guard: (&str, &str)| world.send("DELETE", "/secrets/api-key", &[guard], "").await;
    delete(("if-match", "\"1\"")).await.problem(400, "invalid-field", Some("If-Match"));
    delete(("if-none-match", "*")).await.problem(412, "precondition-failed", Some("If-None-Match"));
    assert_eq!(world.get("/secrets").await.expect(200).json()["items"].as_array().map(Vec::len), Some(1));
    delete(("if-match", "*")).await.expect(204);
    delete(("if-match", "*")).await.problem(412, "precondition-failed", Some("If-Match"));
    world.delete("/secrets/api-key").await.problem(404, "not-found", Some("secret"));
}

#[tokio::test(flavor = "multi_thread")]
async fn on_the_way_of_producers_and_consumers_only_secrets_are_granted() {
    let world = world().await;
    let http = json!({ "http": [{ "url": "https://api.example.com/" }] });
    let topics = json!({ "topics": ["customers"] });
    let secrets = json!({ "secrets": ["api-key"] });
    let ingress = |grants: &Value| json!({ "steps": [step(grants.clone())] });
    let filter = |grants: &Value| json!({ "plugin": "json-filter", "config": { "path": "/a", "exists": true }, "grants": grants });
    for (grants, part) in [(&http, "http"), (&topics, "topics")] {
        let refused = world.put("/topics/in/ingress", ingress(grants)).await;
        let problem = refused.problem(400, "invalid-field", Some(&format!("steps[0].grants.{part}")));
        assert!(problem["detail"].as_str().unwrap().contains("producers and consumers wait"), "{problem}");
        let refused = world.put("/groups/g/filters/in", filter(grants)).await;
        refused.problem(400, "invalid-field", Some(&format!("grants.{part}")));
    }
    world.put("/topics/in/ingress", ingress(&secrets)).await.expect(201);
    world.put("/groups/g/filters/in", filter(&secrets)).await.expect(201);
    let shown = world.get("/groups/g/filters/in").await.expect(200);
    assert_eq!(shown.json()["spec"]["grants"], secrets);
    world.delete("/topics/in/ingress").await.expect(204);
    world.delete("/groups/g/filters/in").await.expect(204);
    let audit = events(&world).await;
    let expected = ["granted ingress in", "granted filter g/in", "withdrawn ingress in", "withdrawn filter g/in"];
    assert_eq!(audit, expected);
}

/// What the audit has of plugins, not of those who set secrets.
async fn of_plugins(world: &World) -> Vec<Value> {
    let audit = world.get("/audit?limit=1000").await.expect(200);
    assert!(!audit.text.contains("hunter2"), "{}", audit.text);
    let mut items = audit.json()["items"].as_array().unwrap().clone();
    items.retain(|entry| entry["event"] != "secret-set" && entry["event"] != "secret-deleted");
    items
}

/// Event, kind and name of each entry.
async fn events(world: &World) -> Vec<String> {
    let items = of_plugins(world).await;
    let word = |entry: &Value, name: &str| entry[name].as_str().unwrap().to_owned();
    items.iter().map(|entry| ["event", "kind", "name"].map(|name| word(entry, name)).join(" ")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipeline_holds_its_grants_while_it_runs() {
    let mut world = world().await;
    let grants = json!({
        "http": [{ "url": "https://api.example.com/v1/", "methods": ["GET", "POST"] }],
        "topics": ["customers"],
        "secrets": ["api-key"],
    });
    world.put("/pipelines/p", pipeline(grants.clone())).await.expect(201);
    let entry = &of_plugins(&world).await[0];
    assert_eq!((&entry["event"], &entry["step"], &entry["grants"]), (&json!("granted"), &json!("json-map"), &grants));
    let digest = world.get("/plugins/json-map").await.json()["digest"].clone();
    assert_eq!(entry["digest"], digest);
    let described = world.get("/pipelines/p").await.expect(200);
    assert_eq!(described.json()["spec"]["steps"][0]["grants"], grants);
    assert!(!described.text.contains("hunter2"));

    world.post("/pipelines/p:pause", "").await.expect(200);
    world.post("/pipelines/p:resume", "").await.expect(200);
    let fewer = json!({ "secrets": ["api-key"] });
    world.put("/pipelines/p", pipeline(fewer)).await.expect(200);
    let turns = ["granted", "withdrawn", "granted", "withdrawn", "granted"].map(|event| format!("{event} pipeline p"));
    assert_eq!(events(&world).await, turns);

    world.restart().await;
    assert_eq!(events(&world).await, ["granted pipeline p"], "what holds after a start is told again");
    let told = world.stream("/audit?follow=true", |text| text.contains("granted")).await;
    assert!(told.contains("event: entry"), "{told}");
    world.delete("/pipelines/p").await.expect(204);
    assert_eq!(events(&world).await, ["granted pipeline p", "withdrawn pipeline p"]);

    world.put("/pipelines/p", pipeline(json!({ "secrets": ["api-key"] }))).await.expect(201);
    let told = events(&world).await.len();
    world.put("/pipelines/p/candidate?mode=shadow", pipeline(json!({ "topics": ["customers"] }))).await.expect(201);
    world.delete("/pipelines/p/candidate").await.expect(204);
    let entries = world.get("/audit?limit=1000").await.json()["items"].as_array().unwrap()[told..].to_vec();
    let of = |entry: &Value| (entry["event"].as_str().unwrap().to_owned(), entry["grants"].to_string());
    let turns =
        ["withdrawn live", "granted live", "granted tried", "withdrawn live", "withdrawn tried", "granted live"];
    let turns = turns.map(|turn| match turn.split_once(' ').unwrap() {
        (event, "live") => (event.to_owned(), json!({ "secrets": ["api-key"] }).to_string()),
        (event, _) => (event.to_owned(), json!({ "topics": ["customers"] }).to_string()),
    });
    assert_eq!(entries.iter().map(of).collect::<Vec<_>>(), turns, "what a shadow holds is told as well");
    world.delete("/secrets/api-key").await.expect(204);
    world.restart().await;
    let broken = world.get("/pipelines/p").await.expect(200).json();
    assert_eq!(broken["state"], "stopped");
    assert!(broken["reason"].as_str().unwrap().starts_with("steps[0].grants.secrets: "), "{broken}");
    world.send("PUT", "/secrets/api-key", &[], "hunter2").await.expect(201);
    assert_eq!(world.post("/pipelines/p:resume", "").await.expect(200).json()["state"], "running");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checker_has_the_same_grants_and_its_topics_besides() {
    let mut world = world().await;
    let path = "/producer-groups/shop/checker";
    let spec = |grants: Value| json!({ "plugin": "ledger-checker", "config": { "topic": "in" }, "topics": ["in"], "grants": grants });
    for (grants, field) in
        [(json!({ "http": [{ "url": "nowhere" }] }), "grants.http"), (json!({ "secrets": ["a b"] }), "grants.secrets")]
    {
        world.put(path, spec(grants)).await.problem(400, "invalid-field", Some(field));
    }
    let with = |topics: Value| json!({ "plugin": "ledger-checker", "config": { "topic": "in" }, "topics": topics });
    let many: Vec<String> = (0..33).map(|number| format!("t{number}")).collect();
    for wrong in [json!(many), json!(["a b"])] {
        world.put(path, with(wrong)).await.problem(400, "invalid-field", Some("topics"));
    }
    world.put(path, with(json!(["none"]))).await.problem(404, "not-found", Some("topics"));
    world.put(path, spec(json!({ "secrets": ["none"] }))).await.problem(404, "not-found", Some("grants.secrets"));
    world.put(path, spec(json!({ "topics": ["none"] }))).await.problem(404, "not-found", Some("grants.topics"));
    let made = world.put(path, spec(json!({ "topics": ["customers", "in"] }))).await.expect(201);
    assert_eq!((&made.json()["topics"], &made.json()["state"]), (&json!(["in"]), &json!("running")));
    let same = world.put(path, spec(json!({ "topics": ["customers", "in"] }))).await.expect(200);
    assert_eq!(same.header("etag"), made.header("etag"));
    let entry = &of_plugins(&world).await[0];
    assert_eq!((&entry["kind"], &entry["name"]), (&json!("checker"), &json!("shop")));
    assert_eq!(entry["grants"], json!({ "topics": ["customers", "in"] }));
    let secrets = world.put(path, spec(json!({ "secrets": ["api-key"] }))).await.expect(200);
    let again = world.put(path, spec(json!({ "secrets": ["api-key"] }))).await.expect(200);
    assert_ne!(secrets.header("etag"), again.header("etag"), "the plugin reads its secrets anew");
    world.restart().await;
    world.delete(path).await.expect(204);
    assert_eq!(events(&world).await, ["granted checker shop", "withdrawn checker shop"]);
    world.get(path).await.problem(404, "not-found", Some("checker"));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_tries_a_plugin_says_what_it_is_granted() {
    let world = world().await;
    let try_with = async |grants: Value| {
        let messages = json!([{ "key": "o-1", "value": "{}" }]);
        let body = json!({ "config": { "topic": "customers" }, "grants": grants, "messages": messages });
        world.post("/plugins/ledger-checker:try", body).await
    };
    let without = try_with(json!({})).await.expect(200).json();
    let reason = without["results"][0]["error"]["reason"].as_str().unwrap();
    assert!(reason.contains("customers") && reason.contains("granted"), "{without}");
    try_with(json!({ "topics": ["none"] })).await.problem(404, "not-found", Some("grants.topics"));
    assert!(
        events(&world).await.iter().all(|event| event == "lookups try ledger-checker"),
        "{:?}",
        events(&world).await
    );
    let told = events(&world).await.len();
    let with = try_with(json!({ "topics": ["customers"] })).await.expect(200).json();
    assert_eq!((&with["results"][0]["decision"], &with["results"][0]["error"]), (&json!("rollback"), &Value::Null));
    let turns = ["granted", "lookups", "withdrawn"].map(|event| format!("{event} try ledger-checker"));
    assert_eq!(events(&world).await[told..], turns);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_says_what_has_to_be_granted() {
    let world = world().await;
    let needs = async |plugin: &str| {
        let report = world.get(&format!("/plugins/{plugin}")).await.expect(200).json();
        let imports = report["imports"].as_array().unwrap().clone();
        imports.iter().filter_map(|import| import["needs_grant"].as_str().map(str::to_owned)).collect::<Vec<_>>()
    };
    assert_eq!(needs("ledger-checker").await, ["topics"]);
    assert!(needs("json-map").await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_stays_while_a_plugin_may_look_messages_up_there() {
    let world = world().await;
    let used = async |by: &str| world.delete("/topics/customers").await.problem(409, "conflict", None)[by].clone();
    let granted = json!({ "topics": ["customers"] });
    world.put("/pipelines/p", pipeline(granted.clone())).await.expect(201);
    assert_eq!(used("pipelines").await, json!(["p"]));
    world.put("/pipelines/p", pipeline(json!({}))).await.expect(200);
    world.put("/pipelines/p/candidate?mode=shadow", pipeline(granted)).await.expect(201);
    assert_eq!(used("pipelines").await, json!(["p"]));
    world.delete("/pipelines/p/candidate").await.expect(204);
    let checker = json!({ "plugin": "ledger-checker", "config": { "topic": "customers" }, "topics": ["customers"] });
    world.put("/producer-groups/shop/checker", checker).await.expect(201);
    assert_eq!(used("checkers").await, json!(["shop"]));
    world.delete("/producer-groups/shop/checker").await.expect(204);
    world.delete("/topics/customers").await.expect(204);
}
