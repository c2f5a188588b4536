use serde_json::{Value, json};

use crate::kit::World;

async fn with_topic(queues: u32) -> World {
    let world = World::new().await;
    world.put("/topics/t", json!({ "queues": queues })).await.expect(201);
    world
}

fn bodies(page: &Value) -> Vec<&str> {
    page["items"].as_array().unwrap().iter().map(|message| message["body"].as_str().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_is_sent_and_found_by_place_key_and_id() {
    let world = with_topic(2).await;
    let message = json!({ "key": "k1", "tag": "red", "properties": { "a": "1" }, "body": "héllo", "queue": 1 });
    let sent = world.post("/topics/t/messages", &message).await.expect(201).json();
    assert_eq!((&sent["queue"], &sent["offset"]), (&json!(1), &json!(0)));
    let unique = sent["unique_key"].as_str().unwrap();
    for query in
        ["queue=1&offset=0", "key=k1", &format!("id={}", sent["id"].as_str().unwrap()), &format!("id={unique}")]
    {
        let page = world.get(&format!("/topics/t/messages?{query}")).await.expect(200).json();
        let found = &page["items"][0];
        assert_eq!(page["items"].as_array().unwrap().len(), 1, "{query}");
        assert_eq!(
            (&found["body"], &found["key"], &found["tag"]),
            (&json!("héllo"), &json!("k1"), &json!("red")),
            "{query}"
        );
        assert_eq!((&found["properties"], &found["id"]), (&json!({ "a": "1" }), &sent["id"]), "{query}");
        assert!(found["stored_at"].as_str().unwrap().ends_with('Z'));
    }
    let none = world.get("/topics/t/messages?id=7F0000010000000000000000000FFFFF").await.expect(200).json();
    assert_eq!(none["items"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_come_as_text_base64_json_and_raw() {
    let world = with_topic(1).await;
    let many = json!([{ "body": "text" }, { "body_base64": "/wA=" }, { "body": { "n": 1 } }]);
    let sent = world.post("/topics/t/messages", &many).await.expect(201).json();
    assert_eq!(sent["items"].as_array().unwrap().len(), 3);
    let headers = [("x-message-key", "k"), ("x-message-tag", "g"), ("x-message-property-a", "1")];
    world.send("POST", "/topics/t/messages", &headers, "raw {").await.expect(201);
    let octets = [("content-type", "application/octet-stream")];
    world.send("POST", "/topics/t/messages", &octets, "plain").await.expect(201);
    let page = world.get("/topics/t/messages").await.expect(200).json();
    let items = page["items"].as_array().unwrap();
    assert_eq!(items[0]["body"], "text");
    assert_eq!((&items[1]["body"], &items[1]["body_base64"]), (&json!(null), &json!("/wA=")));
    assert_eq!(items[2]["body"], r#"{"n":1}"#);
    assert_eq!((&items[3]["body"], &items[3]["key"], &items[3]["tag"]), (&json!("raw {"), &json!("k"), &json!("g")));
    assert_eq!((&items[3]["properties"]["a"], &items[4]["body"]), (&json!("1"), &json!("plain")));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_a_message_is_named_and_none_is_sent() {
    let world = with_topic(1).await;
    for (body, field) in [
        (json!({ "key": "k" }), "body"),
        (json!({ "body": "a", "body_base64": "YQ==" }), "body"),
        (json!({ "body_base64": "?" }), "body_base64"),
        (json!({ "body": "a", "colour": 1 }), "colour"),
        (json!({ "body": "a", "queue": 1 }), "queue"),
        (json!({ "body": "a", "delay": "4d" }), "delay"),
        (json!({ "body": "a", "properties": { "KEYS": "k" } }), "properties.KEYS"),
        (json!([{ "body": "a" }, { "body": "b", "queue": 7 }]), "messages[1].queue"),
        (json!({ "messages": [] }), "messages"),
    ] {
        world.post("/topics/t/messages", &body).await.problem(400, "invalid-field", Some(field));
    }
    assert_eq!(world.get("/topics/t").await.json()["messages"], 0);
    world.post("/topics/no/messages", json!({ "body": "a" })).await.problem(404, "not-found", Some("topic"));
    let huge = vec![b'x'; 7 << 20];
    let raw = [("content-type", "application/octet-stream")];
    world.send("POST", "/topics/t/messages", &raw, huge).await.problem(413, "body-too-large", Some("body"));
    world.put("/topics/t", json!({ "permission": "read" })).await.expect(200);
    world.post("/topics/t/messages", json!({ "body": "a" })).await.problem(403, "denied", None);
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_go_through_all_queues_without_gap_or_repeat() {
    let world = with_topic(3).await;
    let many: Vec<Value> = (0..50).map(|n| json!({ "body": n.to_string() })).collect();
    world.post("/topics/t/messages", json!({ "messages": many })).await.expect(201);
    let (mut seen, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = world.get(&format!("/topics/t/messages?limit=7{cursor}")).await.expect(200).json();
        seen.extend(bodies(&page).iter().map(|body| body.parse::<u32>().unwrap()));
        let Some(next) = page["next"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    seen.sort_unstable();
    assert_eq!(seen, (0..50).collect::<Vec<_>>());
    world.get("/topics/t/messages?cursor=1.2").await.problem(400, "invalid-field", Some("cursor"));
    world.get("/topics/t/messages?offset=1").await.problem(400, "invalid-field", Some("offset"));
    world.get("/topics/t/messages?from=noon").await.problem(400, "invalid-field", Some("from"));
    let later = world.get("/topics/t/messages?from=2999-01-01T00:00:00Z").await.expect(200).json();
    assert_eq!(later["items"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tail_goes_on_where_it_was_cut() {
    let mut world = with_topic(2).await;
    for n in 0..4 {
        world.post("/topics/t/messages", json!({ "body": format!("m{n}"), "queue": n % 2 })).await.expect(201);
    }
    let text = world.stream("/topics/t/tail?from=earliest", |text| text.matches("event: message").count() >= 4).await;
    assert_eq!((0..4).filter(|n| text.contains(&format!("\"m{n}\""))).count(), 4, "{text}");
    assert!(text.contains("id: 2.2"), "{text}");
    // An open stream does not keep the server from stopping.
    let (_open, stop) =
        tokio::join!(world.send_open("/topics/t/tail"), tokio::time::sleep(std::time::Duration::from_millis(1)));
    let () = stop;
    tokio::time::timeout(std::time::Duration::from_secs(10), world.restart()).await.expect("it stops");
    assert_eq!(world.get("/topics/t").await.json()["messages"], 4);
}
