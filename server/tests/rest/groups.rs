use serde_json::json;

use crate::kit::World;

#[tokio::test(flavor = "multi_thread")]
async fn a_group_is_made_moved_and_deleted() {
    let world = World::new().await;
    world.put("/topics/t", json!({ "queues": 2 })).await.expect(201);
    for n in 0..6 {
        world.post("/topics/t/messages", json!({ "body": "x", "queue": n % 2 })).await.expect(201);
    }
    world.get("/groups/g").await.problem(404, "not-found", Some("group"));
    let made = world.put("/groups/g", json!({ "retries": 3 })).await.expect(201);
    assert_eq!((&made.json()["retries"], &made.json()["enabled"]), (&json!(3), &json!(true)));
    world.put("/groups/g", json!({ "retries": 3 })).await.expect(200);

    let to = |to: serde_json::Value| json!({ "topic": "t", "to": to });
    let moved = world.post("/groups/g/offsets:reset", to(json!("earliest"))).await.expect(200).json();
    assert_eq!(moved["queues"][1], json!({ "queue": 1, "from": null, "to": 0 }));
    let group = world.get("/groups/g").await.json();
    assert_eq!((&group["lag"], &group["topics"][0]["queues"][0]["offset"]), (&json!(6), &json!(0)));
    world.post("/groups/g/offsets:reset", to(json!("latest"))).await.expect(200);
    assert_eq!(world.get("/groups/g").await.json()["lag"], 0);
    let one = json!({ "topic": "t", "to": 2, "queue": 0 });
    world.post("/groups/g/offsets:reset", one).await.expect(200);
    assert_eq!(world.get("/groups/g").await.json()["lag"], 1);
    world.post("/groups/g/offsets:reset", to(json!("2020-01-01T00:00:00Z"))).await.expect(200);
    assert_eq!(world.get("/groups/g").await.json()["lag"], 6);

    for (body, field) in [
        (to(json!("noon")), "to"),
        (to(json!(2)), "queue"),
        (json!({ "topic": "t", "to": 9, "queue": 0 }), "to"),
        (json!({ "topic": "t", "to": "latest", "queue": 9 }), "queue"),
        (json!({ "topic": "t" }), "to"),
    ] {
        world.post("/groups/g/offsets:reset", body).await.problem(400, "invalid-field", Some(field));
    }
    let missing = json!({ "topic": "no", "to": "latest" });
    world.post("/groups/g/offsets:reset", missing).await.problem(404, "not-found", Some("topic"));
    assert_eq!(world.get("/groups").await.json()["items"][0]["name"], "g");
    world.delete("/groups/g").await.expect(204);
    world.get("/groups/g").await.problem(404, "not-found", Some("group"));
    world.put("/groups/g", json!({ "retry_queues": 0 })).await.problem(400, "invalid-field", Some("retry_queues"));
}
