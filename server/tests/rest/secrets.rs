use serde_json::{Value, json};

use crate::kit::World;

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_is_taken_and_never_given_back() {
    let mut world = World::new().await;
    assert_eq!(world.get("/secrets").await.expect(200).json(), json!({ "items": [], "next": null }));
    let made = world.send("PUT", "/secrets/api-key", &[], "hunter2").await.expect(201);
    assert_eq!(made.json(), json!({ "name": "api-key" }));
    world.send("PUT", "/secrets/api-key", &[], "hunter3").await.expect(200);
    world.send("PUT", "/secrets/b", &[], "b").await.expect(201);
    world.send("PUT", "/secrets/.b", &[], "b").await.expect(400);
    world.send("PUT", "/secrets/c", &[], "hunter4").await.expect(201);
    world.delete("/secrets/c").await.expect(204);
    world.delete("/secrets/c").await.expect(404);
    let audit = world.get("/audit").await.expect(200);
    assert!(!audit.text.contains("hunter"), "{}", audit.text);
    let audit = audit.json();
    let entry = |entry: &Value| (entry["event"].clone(), entry["secret"].clone(), entry["name"].clone());
    let entries: Vec<_> = audit["items"].as_array().unwrap().iter().map(entry).collect();
    let set = |name: &str| (json!("secret-set"), json!(name), Value::Null);
    let deleted = (json!("secret-deleted"), json!("c"), Value::Null);
    assert_eq!(entries, [set("api-key"), set("api-key"), set("b"), set("c"), deleted]);
    world.restart().await;
    let page = world.get("/secrets?limit=1").await.expect(200);
    assert!(!page.text.contains("hunter"), "{}", page.text);
    assert_eq!((&page.json()["items"][0]["name"], &page.json()["next"]), (&json!("api-key"), &json!("api-key")));
    world.get("/secrets/api-key").await.problem(405, "method-not-allowed", None);
    world.delete("/secrets/api-key").await.expect(204);
    world.delete("/secrets/api-key").await.problem(404, "not-found", Some("secret"));
    assert_eq!(world.get("/secrets").await.json()["items"].as_array().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_secret_is_refused_without_showing_it() {
    let world = World::new().await;
    let large = world.send("PUT", "/secrets/s", &[], "hunter2".repeat(10_000)).await;
    large.problem(413, "body-too-large", Some("body"));
    let bytes = world.send("PUT", "/secrets/s", &[], b"hunter2\xff".to_vec()).await;
    let problem = bytes.problem(400, "invalid-field", Some("body"));
    assert!(!problem.to_string().contains("hunter"), "{problem}");
    for name in ["..", "a%2Fb", ".hidden", "a%20b"] {
        let put = world.send("PUT", &format!("/secrets/{name}"), &[], "x").await;
        assert!(put.status == 400 || put.status == 404, "{name}: {}", put.status);
    }
    assert!(!world.dir.path().join("secrets").exists());
    world.send("PUT", "/secrets/s", &[], "x".repeat(64 << 10)).await.expect(201);
}
