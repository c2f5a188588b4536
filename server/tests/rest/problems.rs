use serde_json::json;

use crate::kit::World;

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_served_is_a_problem_too() {
    let world = World::new().await;
    let unknown = world.get("/nothing").await;
    assert!(!unknown.header("x-request-id").is_empty());
    unknown.problem(404, "no-route", None);
    world.get("//elsewhere").await.problem(404, "no-route", None);
    world.send("PATCH", "/cluster", &[], "").await.problem(405, "method-not-allowed", None);
    for verb in ["/pipelines/p:explode", "/plugins/p:run", "/pipelines/p/dlq:forget"] {
        world.post(verb, "{}").await.problem(404, "no-route", None);
    }
    world.post("/pipelines/p:pause", "").await.problem(404, "not-found", Some("pipeline"));
    let foreign = [("sec-fetch-site", "cross-site")];
    world.send("PUT", "/topics/t", &foreign, "{}").await.problem(403, "denied", None);
}

#[tokio::test(flavor = "multi_thread")]
async fn monitoring_finds_what_it_asks_for() {
    let world = World::new().await;
    assert_eq!(world.get("//healthz").await.expect(200).text, "ok\n");
    assert_eq!(world.get("//readyz").await.expect(200).text, "ready\n");
    world.put("/topics/t", json!({ "queues": 1 })).await.expect(201);
    world.post("/topics/t/messages", json!([{ "body": "a" }, { "body": "b" }])).await.expect(201);
    let metrics = world.get("//metrics").await.expect(200);
    assert!(metrics.header("content-type").starts_with("application/openmetrics-text"));
    for line in
        ["rocketmq_messages_in_total{topic=\"t\"} 2", "sluice_messages_received_total 2", "sluice_connections 0"]
    {
        assert!(metrics.text.lines().any(|found| found.trim_end_matches(".0") == line), "{line} in {}", metrics.text);
    }
    assert!(metrics.text.ends_with("# EOF\n"));
    let cluster = world.get("/cluster").await.expect(200).json();
    let name = cluster["brokers"][0]["name"].as_str().unwrap();
    let broker = world.get(&format!("/brokers/{name}")).await.expect(200).json();
    assert_eq!((&broker["messages"]["in"], &broker["writable"]), (&json!(2), &json!(true)));
    world.get("/brokers/other").await.problem(404, "not-found", Some("broker"));
    assert_eq!(world.get("/transactions").await.expect(200).json(), json!({ "items": [], "next": null }));
    let decisions = world.get("/transactions/decisions").await.expect(200).json();
    assert_eq!(decisions, json!({ "items": [], "next": null }));
    world.get("/transactions/decisions?cursor=x").await.problem(400, "invalid-field", Some("cursor"));
    let document = world.get("/openapi.json").await.expect(200).json();
    assert_eq!(document["openapi"], "3.1.0");
}
