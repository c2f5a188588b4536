//! What runs under a pipeline's name is tried, replaced and brought back.

use serde_json::{Value, json};

use crate::kit::{World, later};

/// The ready-made filter, and another version of it.
fn versions() -> (Vec<u8>, Vec<u8>) {
    let first = sluice_plugins::ready_made("json-filter").unwrap().component;
    (first.to_vec(), later(first))
}

fn text(plugin: &str, status: &str) -> String {
    format!(
        "name: p\nsource: {{ topic: in, start: earliest }}\nsinks: [ out ]\n\
         steps: [ {{ plugin: {plugin}, config: {{ path: /status, equals: {status} }} }} ]\n"
    )
}

async fn apply(world: &World, path: &str, text: String, status: u16) -> Value {
    world.send("PUT", path, &[("content-type", "application/yaml")], text).await.expect(status).json()
}

async fn begin() -> World {
    let world = World::new().await;
    for topic in ["in", "out"] {
        world.put(&format!("/topics/{topic}"), json!({ "queues": 2 })).await.expect(201);
    }
    world.send("PUT", "/plugins/only", &[], versions().0).await.expect(201);
    world
}

/// Sends one order of each status to each queue.
async fn order(world: &World, statuses: &[&str]) {
    let of = |status: &&str| [0, 1].map(|queue| json!({ "body": { "status": status }, "queue": queue }));
    let orders: Vec<Value> = statuses.iter().flat_map(of).collect();
    world.post("/topics/in/messages", json!(orders)).await.expect(201);
}

/// The pipeline as soon as it read so many records of each queue.
async fn done(world: &World, each: u64) -> Value {
    let read = |queue: &Value| queue["position"] == each;
    world.until("/pipelines/p", |pipeline| pipeline["queues"].as_array().unwrap().iter().all(read)).await
}

async fn out(world: &World) -> Value {
    world.get("/topics/out").await.json()["messages"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_changes_nothing_that_runs_until_it_is_applied_and_can_be_taken_back() {
    let mut world = begin().await;
    let first = apply(&world, "/pipelines/p", text("only", "paid"), 201).await;
    assert_eq!(first["revision"], 1);
    order(&world, &["paid", "new"]).await;
    done(&world, 2).await;
    let upload = world.send("PUT", "/plugins/only", &[], versions().1).await.expect(201).json();
    assert_eq!(upload["version"], "2.0.0");

    // What is no JSON fails, and its dead letter says on which version.
    world.restart().await;
    world
        .post("/topics/in/messages", json!([{ "body": "{", "queue": 0 }, { "body": "{", "queue": 1 }]))
        .await
        .expect(201);
    let same = done(&world, 3).await;
    assert_eq!((&same["plugins"], &same["revision"]), (&first["plugins"], &json!(1)));
    let dead = world.get("/pipelines/p/dlq").await.expect(200).json();
    let digest = dead["items"][0]["failure"]["plugin_digest"].as_str().unwrap();
    assert_eq!(first["plugins"], json!([format!("only@sha256:{digest}")]));
    let second = apply(&world, "/pipelines/p", text("only", "new"), 200).await;
    assert_eq!(
        (&second["plugins"][0], &second["revision"]),
        (&json!(format!("only@{}", upload["digest"].as_str().unwrap())), &json!(2))
    );
    order(&world, &["paid", "new", "new"]).await;
    done(&world, 6).await;
    assert_eq!(out(&world).await, 2 + 4);

    let back = world.post("/pipelines/p:rollback", "").await.expect(200).json();
    assert_eq!((&back["plugins"], &back["revision"], &back["spec"]), (&first["plugins"], &json!(3), &first["spec"]));
    order(&world, &["paid", "new"]).await;
    done(&world, 8).await;
    assert_eq!(out(&world).await, 2 + 4 + 2);
    let revisions = world.get("/pipelines/p/revisions").await.expect(200).json();
    let ranges: Vec<_> = revisions["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|of| {
            (of["revision"].as_u64().unwrap(), of["state"].as_str().unwrap(), of["from"].clone(), of["until"].clone())
        })
        .collect();
    let at = |offset: u64| json!({ "0": offset, "1": offset });
    assert_eq!(ranges, [(3, "live", at(6), json!({})), (2, "past", at(3), at(6)), (1, "past", at(0), at(3))]);
    assert_eq!(
        (&revisions["items"][0]["reason"], &revisions["items"][0]["rolled_back_to"]),
        (&json!("rolled-back"), &json!(1))
    );

    // What does not run may go, and cannot come back then.
    world.delete("/plugins/only/versions/1.0.0").await.problem(409, "conflict", None);
    world.delete("/plugins/only/versions/2.0.0").await.expect(204);
    world.post("/pipelines/p:rollback", json!({ "to": 2 })).await.problem(404, "not-found", Some("steps[0].plugin"));
    world.post("/pipelines/p:rollback", json!({ "to": 9 })).await.problem(404, "not-found", Some("to"));
    assert_eq!(done(&world, 8).await["revision"], 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shadow_tells_the_difference_and_writes_nothing_until_it_is_promoted() {
    let world = begin().await;
    world.get("/pipelines/p/candidate").await.problem(404, "not-found", Some("pipeline"));
    apply(&world, "/pipelines/p", text("only", "paid"), 201).await;
    order(&world, &["paid"]).await;
    done(&world, 1).await;
    for (query, field) in [
        ("mode=dark", "mode"),
        ("mode=canary", "queues"),
        ("mode=canary&queues=2", "queues"),
        ("mode=shadow&start=soon", "start"),
    ] {
        let path = format!("/pipelines/p/candidate?{query}");
        let yaml = [("content-type", "application/yaml")];
        world.send("PUT", &path, &yaml, text("only", "new")).await.problem(400, "invalid-field", Some(field));
    }
    let tried = apply(&world, "/pipelines/p/candidate?mode=shadow", text("only", "new"), 201).await;
    assert_eq!((&tried["candidate"]["revision"], &tried["revision"]), (&json!(2), &json!(1)));
    for refused in ["/pipelines/p:rollback", "/pipelines/p:reset"] {
        world.post(refused, "").await.problem(409, "conflict", None);
    }

    order(&world, &["paid", "new", "old"]).await;
    let candidate = world.until("/pipelines/p/candidate", |of| of["comparison"]["same"] == 2).await;
    assert_eq!(candidate["comparison"]["different"], 4);
    assert_eq!(
        (&candidate["live"]["out"], &candidate["candidate"]["out"], &candidate["state"]),
        (&json!(2), &json!(2), &json!("tried"))
    );
    let example = candidate["comparison"]["examples"].as_array().unwrap().iter().find(|of| of["offset"] == 1).unwrap();
    assert_eq!((&example["live"]["outputs"][0]["port"], &example["candidate"]["count"]), (&json!("out"), &json!(0)));
    assert!(example["live"]["outputs"][0]["value"].as_str().unwrap().contains("paid"));
    done(&world, 4).await;
    assert_eq!(out(&world).await, 2 + 2);

    let live = world.post("/pipelines/p:promote", "").await.expect(200).json();
    assert_eq!((&live["revision"], &live["candidate"]), (&json!(2), &Value::Null));
    order(&world, &["paid", "new"]).await;
    done(&world, 6).await;
    let bodies = world.get("/topics/out/messages?queue=0&offset=0").await.json();
    let bodies: Vec<_> = bodies["items"].as_array().unwrap().iter().map(|m| m["body"].to_string()).collect();
    assert_eq!(bodies.len(), 3);
    assert!(bodies[1].contains("paid") && bodies[2].contains("new"), "{bodies:?}");
    world.post("/pipelines/p:promote", "").await.problem(404, "not-found", Some("candidate"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_canary_runs_in_its_queues_alone_over_a_restart_and_leaves_them_at_an_exact_offset() {
    let mut world = begin().await;
    apply(&world, "/pipelines/p", text("only", "paid"), 201).await;
    order(&world, &["paid"]).await;
    done(&world, 1).await;
    apply(&world, "/pipelines/p/candidate?mode=canary&queues=1", text("only", "new"), 201).await;
    order(&world, &["paid", "new", "new"]).await;
    done(&world, 4).await;
    world.restart().await;
    order(&world, &["paid"]).await;
    let stands = done(&world, 5).await;
    let ran: Vec<_> = stands["queues"]
        .as_array()
        .unwrap()
        .iter()
        .map(|of| (of["revision"].clone(), of["position"].clone()))
        .collect();
    assert_eq!(ran, [(json!(1), json!(5)), (json!(2), json!(5))]);
    let candidate = world.get("/pipelines/p/candidate").await.expect(200).json();
    assert_eq!(
        (&candidate["live"]["in"], &candidate["candidate"]["in"], &candidate["mode"]),
        (&json!(1), &json!(1), &json!("canary"))
    );

    world.delete("/pipelines/p/candidate").await.expect(204);
    order(&world, &["new", "paid"]).await;
    done(&world, 7).await;
    // Queue 0 ran the first version all along; queue 1 had the second one from 1 to 5.
    let paid = |queue: u32| {
        let world = &world;
        async move {
            let page = world.get(&format!("/topics/out/messages?queue={queue}&offset=0")).await.json();
            let of = |m: &Value| m["body"].to_string().contains("paid");
            page["items"].as_array().unwrap().iter().map(of).collect::<Vec<bool>>()
        }
    };
    assert_eq!(paid(0).await, [true, true, true, true]);
    assert_eq!(paid(1).await, [true, false, false, true]);
    let revisions = world.get("/pipelines/p/revisions").await.json();
    let past = &revisions["items"][1];
    assert_eq!(
        (&past["reason"], &past["from"], &past["until"]),
        (&json!("tried"), &json!({ "1": 1 }), &json!({ "1": 5 }))
    );

    apply(&world, "/pipelines/p/candidate?mode=canary&queues=1", text("only", "new"), 201).await;
    order(&world, &["new"]).await;
    done(&world, 8).await;
    let live = world.post("/pipelines/p:promote", "").await.expect(200).json();
    assert_eq!(live["revision"], 3);
    let revisions = world.get("/pipelines/p/revisions").await.json();
    assert_eq!(revisions["items"][0]["from"], json!({ "0": 8, "1": 7 }));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_text_again_makes_no_revision_and_restarts_nothing() {
    let world = begin().await;
    apply(&world, "/pipelines/p", text("only", "paid"), 201).await;
    let first = apply(&world, "/pipelines/p", text("only", "new"), 200).await;
    order(&world, &["new"]).await;
    done(&world, 1).await;
    let yaml = [("content-type", "application/yaml")];
    for _ in 0..21 {
        let again = world.send("PUT", "/pipelines/p", &yaml, text("only", "new")).await.expect(200);
        assert_eq!(again.header("etag"), format!("\"{}\"", first["version"]));
        let again = again.json();
        assert_eq!((&again["revision"], &again["state"], &again["in"]), (&json!(2), &json!("running"), &json!(2)));
    }
    world.post("/pipelines/p:pause", "").await.expect(200);
    assert_eq!(apply(&world, "/pipelines/p", text("only", "new"), 200).await["state"], "paused");
    world.post("/pipelines/p:resume", "").await.expect(200);

    // The newest version is another one by now.
    world.send("PUT", "/plugins/only", &[], versions().1).await.expect(201);
    assert_eq!(apply(&world, "/pipelines/p", text("only", "new"), 200).await["revision"], 3);
    assert_eq!(world.post("/pipelines/p:rollback", json!({ "to": 1 })).await.expect(200).json()["revision"], 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_stopped_or_has_secrets_starts_anew_when_it_is_applied_again() {
    let mut world = begin().await;
    world.send("PUT", "/secrets/key", &[], "hunter2").await.expect(201);
    let reads = text("only", "paid").replace("plugin: only,", "plugin: only, grants: { secrets: [ key ] },");
    for status in [201, 200] {
        assert_eq!(apply(&world, "/pipelines/p", reads.clone(), status).await["revision"], 1);
    }
    let audit = world.get("/audit").await.expect(200).json();
    let events = audit["items"].as_array().unwrap().iter().map(|entry| entry["event"].as_str().unwrap());
    assert_eq!(events.collect::<Vec<_>>(), ["secret-set", "granted", "withdrawn", "granted"]);

    world.delete("/secrets/key").await.expect(204);
    world.restart().await;
    assert_eq!(world.get("/pipelines/p").await.json()["state"], "stopped");
    world.send("PUT", "/secrets/key", &[], "hunter3").await.expect(201);
    let again = apply(&world, "/pipelines/p", reads, 200).await;
    assert_eq!((&again["revision"], &again["state"]), (&json!(1), &json!("running")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shadow_begins_with_what_the_live_version_keeps() {
    let world = begin().await;
    let aggregate = sluice_plugins::ready_made("aggregate").unwrap().component;
    world.send("PUT", "/plugins/totals", &[], aggregate).await.expect(201);
    let text = |config: &str| {
        format!(
            "name: p\nsource: {{ topic: in, start: earliest }}\nsinks: [ out ]\n\
             steps: [ {{ plugin: totals, config: {{ {config} }} }} ]\n"
        )
    };
    let sell = async |count: usize| {
        let of = |queue: u32| json!({ "body": { "amount": 7 }, "key": format!("k{queue}"), "queue": queue });
        let sales: Vec<Value> = (0..count).flat_map(|_| [of(0), of(1)]).collect();
        world.post("/topics/in/messages", json!(sales)).await.expect(201);
    };
    let compared = async |count: u64| {
        let all =
            |of: &Value| of["comparison"]["same"].as_u64().unwrap() + of["comparison"]["different"].as_u64().unwrap();
        world.until("/pipelines/p/candidate", |of| all(of) == count).await["comparison"].clone()
    };
    apply(&world, "/pipelines/p", text(""), 201).await;
    sell(3).await;
    done(&world, 3).await;

    apply(&world, "/pipelines/p/candidate?mode=shadow", text(""), 201).await;
    sell(2).await;
    let same = compared(4).await;
    assert_eq!((&same["same"], &same["different"], &same["state"]), (&json!(4), &json!(0), &json!("copied")), "{same}");
    world.delete("/pipelines/p/candidate").await.expect(204);

    // It shows the sum as well, of what it adds up itself: so far only counts were kept.
    apply(&world, "/pipelines/p/candidate?mode=shadow", text("sum: /amount"), 201).await;
    sell(1).await;
    let changed = compared(2).await;
    assert_eq!((&changed["different"], &changed["examples"].as_array().unwrap().len()), (&json!(2), &2), "{changed}");
    for example in changed["examples"].as_array().unwrap() {
        let became = |side: &str| -> Value {
            serde_json::from_str(example[side]["outputs"][0]["value"].as_str().unwrap()).unwrap()
        };
        let key = format!("k{}", example["queue"]);
        assert_eq!(became("live"), json!({ "key": key, "count": 6 }));
        assert_eq!(became("candidate"), json!({ "key": key, "count": 6, "sum": 7 }));
    }
    world.delete("/pipelines/p/candidate").await.expect(204);
    done(&world, 6).await;

    // From the first record on there is nothing that was kept.
    apply(&world, "/pipelines/p/candidate?mode=shadow&start=earliest", text(""), 201).await;
    let anew = compared(12).await;
    assert_eq!((&anew["different"], &anew["state"]), (&json!(0), &json!("empty")), "{anew}");
    world.delete("/pipelines/p/candidate").await.expect(204);
    let files = std::fs::read_dir(world.dir.path().join("states")).unwrap().count();
    assert_eq!(files, 1, "copies go with what was tried");
}
