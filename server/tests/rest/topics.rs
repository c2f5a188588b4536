use serde_json::json;

use crate::kit::World;

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_is_made_replaced_changed_and_deleted() {
    let world = World::new().await;
    let made = world.put("/topics/orders", json!({ "queues": 3, "type": "fifo" })).await.expect(201);
    let topic = made.json();
    assert_eq!(
        (&topic["queues"], &topic["type"], &topic["permission"]),
        (&json!(3), &json!("fifo"), &json!("read-write"))
    );
    assert_eq!(topic["offsets"].as_array().unwrap().len(), 3);
    let again = world.put("/topics/orders", json!({ "queues": 3, "type": "fifo" })).await.expect(200);
    assert_eq!(again.header("etag"), made.header("etag"), "the same again changes nothing");

    let patch = json!({ "permission": "read", "attributes": { "team": "a" } }).to_string();
    let changed = world.send("PATCH", "/topics/orders", &[], patch).await.expect(200);
    assert_eq!((&changed.json()["queues"], &changed.json()["permission"]), (&json!(3), &json!("read")));
    let patch = json!({ "attributes": { "team": null } }).to_string();
    let changed = world.send("PATCH", "/topics/orders", &[], patch).await.expect(200);
    assert_eq!(changed.json()["attributes"], json!({}));

    world.delete("/topics/orders").await.expect(204);
    world.get("/topics/orders").await.problem(404, "not-found", Some("topic"));
    world.delete("/topics/orders").await.problem(404, "not-found", Some("topic"));
}

#[tokio::test(flavor = "multi_thread")]
async fn guards_keep_changes_apart() {
    let world = World::new().await;
    let create = [("if-none-match", "*")];
    let first = world.send("PUT", "/topics/t", &create, "{}").await.expect(201);
    world.send("PUT", "/topics/t", &create, "{}").await.problem(412, "precondition-failed", Some("If-None-Match"));
    let tag = first.header("etag").to_owned();
    let second = world.send("PUT", "/topics/t", &[("if-match", &tag)], r#"{"queues": 2}"#).await.expect(200);
    assert_ne!(second.header("etag"), tag);
    let stale = world.send("PUT", "/topics/t", &[("if-match", &tag)], r#"{"queues": 9}"#).await;
    let problem = stale.problem(412, "precondition-failed", Some("If-Match"));
    assert!(problem["hint"].is_string());
    assert_eq!(world.get("/topics/t").await.json()["queues"], 2);
    let missing = world.send("PUT", "/topics/u", &[("if-match", "*")], "{}").await;
    missing.problem(412, "precondition-failed", Some("If-Match"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_a_topic_is_named() {
    let world = World::new().await;
    for (body, field) in [
        (json!({ "queues": 0 }), "queues"),
        (json!({ "queues": 5000 }), "queues"),
        (json!({ "queues": "many" }), "queues"),
        (json!({ "type": "odd" }), "type"),
        (json!({ "permission": "all" }), "permission"),
        (json!({ "durability": "maybe" }), "durability"),
        (json!({ "retention": "soon" }), "retention"),
        (json!({ "retention": 3 }), "retention"),
        (json!({ "retention": "999ms" }), "retention"),
        (json!({ "colour": "red" }), "colour"),
    ] {
        world.put("/topics/t", &body).await.problem(400, "invalid-field", Some(field));
    }
    world.put("/topics/a.b", "{}").await.problem(400, "invalid-field", Some("topic"));
    world.put("/topics/t", "{").await.problem(400, "invalid-field", Some("body"));
    world.put("/topics/SCHEDULE_TOPIC_XXXX", "{}").await.problem(403, "denied", None);
    world.delete("/topics/TBW102").await.problem(403, "denied", None);
    world.get("/topics/t").await.problem(404, "not-found", Some("topic"));
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_come_in_pages_without_the_brokers_own() {
    let world = World::new().await;
    for name in ["c", "a", "b"] {
        world.put(&format!("/topics/{name}"), "{}").await.expect(201);
    }
    let page = world.get("/topics?limit=2").await.expect(200).json();
    let names = |page: &serde_json::Value| -> Vec<String> {
        page["items"].as_array().unwrap().iter().map(|topic| topic["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(&page), ["a", "b"]);
    let rest = world.get(&format!("/topics?limit=2&cursor={}", page["next"].as_str().unwrap())).await.json();
    assert_eq!((names(&rest), &rest["next"]), (vec!["c".to_owned()], &json!(null)));
    let all = world.get("/topics?system=true&limit=1000").await.json();
    assert!(names(&all).contains(&"TBW102".to_owned()));
    world.get("/topics?limit=0").await.problem(400, "invalid-field", Some("limit"));
    world.get("/topics?page=2").await.problem(400, "invalid-field", Some("page"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_keeps_its_messages_for_as_long_as_it_says() {
    let world = World::new().await;
    let made = world.put("/topics/short", json!({ "queues": 1, "retention": "90s" })).await.expect(201);
    assert_eq!(made.json()["retention"], "90s");
    let patch = |retention: serde_json::Value| json!({ "retention": retention }).to_string();
    let changed = world.send("PATCH", "/topics/short", &[], patch(json!(null))).await.expect(200);
    assert_eq!(changed.json()["retention"], json!(null));
    assert_ne!(changed.header("etag"), made.header("etag"));
    world.send("PATCH", "/topics/short", &[], patch(json!("1s"))).await.expect(200);
    let other = world.send("PATCH", "/topics/short", &[], r#"{ "permission": "read-write" }"#).await.expect(200);
    assert_eq!(other.json()["retention"], "1s", "what is left out stays");

    world.send("POST", "/topics/short/messages", &[], r#"{ "key": "k", "body": "gone" }"#).await.expect(201);
    world.until("/topics/short", |topic| topic["messages"] == 0).await;
    let topic = world.get("/topics/short").await.json();
    assert_eq!((&topic["offsets"][0]["min"], &topic["offsets"][0]["max"]), (&json!(1), &json!(1)));
    assert_eq!(world.get("/topics/short/messages?key=k").await.expect(200).json()["items"], json!([]));
}
