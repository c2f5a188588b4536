//! What RocketMQ's clients may not do.

use std::time::Duration;

use serde_json::{Value, json};
use sluice_model::{GroupName, Properties, QueueId, QueueOffset, SysFlag, Timestamp, TopicName};
use sluice_protocol::{
    Frame, ResponseCode, batch,
    request::{
        CloneOffsets, ConsumeStats, DeleteGroup, PopMessage, PullMessage, QueryConsumerOffset, ResetOffset,
        SendMessage, UpdateConsumerOffset,
    },
};

use crate::{kit::World, pipelines::settled};

fn topic(name: &str) -> TopicName {
    TopicName::parse(name).unwrap()
}

fn group(name: &str) -> GroupName {
    GroupName::parse(name).unwrap()
}

async fn ask(world: &World, request: Frame) -> (ResponseCode, Frame) {
    let answer = world.connect().invoke(request, Duration::from_secs(10)).await.unwrap();
    (answer.header.code.into(), answer)
}

pub fn send(name: &str, queue: i32, sys_flag: SysFlag, properties: Properties, body: Vec<u8>) -> SendMessage {
    SendMessage {
        group: group("producers"),
        topic: topic(name),
        default_topic: "TBW102".to_owned(),
        default_topic_queues: 1,
        queue,
        sys_flag,
        born_at: Timestamp(1),
        flag: 0,
        properties,
        reconsume_times: 0,
        unit_mode: false,
        max_reconsume_times: None,
        batch: false,
        broker: None,
        body: body.into(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_malformed_property_is_refused_in_a_batch_as_it_is_alone() {
    let world = World::new().await;
    world.put("/topics/t", "{}").await.expect(201);
    for raw in ["sig\u{1}a\u{1}b\u{2}", "\u{1}a\u{2}"] {
        let wrong = Properties::parse(raw).unwrap();
        let (code, alone) = ask(&world, send("t", 0, SysFlag::default(), wrong.clone(), b"x".to_vec()).encode()).await;
        assert_eq!(code, ResponseCode::MessageIllegal);
        let said = alone.header.remark.unwrap();
        assert!(said.starts_with("properties: "), "{said}");
        let fine = Properties::from_pairs([("a", "1")]).unwrap();
        let items = [fine, wrong].map(|properties| batch::Item { flag: 0, properties, body: "x".into() });
        let many = send("t", 0, SysFlag::default(), Properties::default(), batch::encode(&items).to_vec());
        let (code, refused) = ask(&world, SendMessage { batch: true, ..many.clone() }.encode()).await;
        assert_eq!(code, ResponseCode::MessageIllegal);
        assert_eq!(refused.header.remark.unwrap(), format!("message 1 of the batch: {said}"));
        assert_eq!(world.get("/topics/t").await.json()["messages"], 0);
        let many = SendMessage { batch: true, body: batch::encode(&items[..1]), ..many };
        assert_eq!(ask(&world, many.encode()).await.0, ResponseCode::Success);
        world.delete("/topics/t").await.expect(204);
        world.put("/topics/t", "{}").await.expect(201);
    }
}

fn pull(of: &str, commit: Option<i64>) -> Frame {
    let request = PullMessage {
        group: group(of),
        topic: topic("in"),
        queue: QueueId(0),
        offset: 0,
        max_messages: 8,
        max_bytes: None,
        commit,
        suspend_ms: None,
        subscription: Some("*".to_owned()),
        expression_type: None,
        sub_version: 0,
        class_filter: false,
        lite: false,
    };
    request.encode()
}

/// What moves a group, or does away with where it is.
fn writes(of: &str) -> [(&'static str, Frame); 6] {
    let reset = ResetOffset {
        topic: topic("in"),
        group: group(of),
        time: Timestamp(0),
        force: true,
        queue: -1,
        offset: Some(1),
    };
    let pop = PopMessage {
        group: group(of),
        topic: topic("in"),
        queue: 0,
        max_messages: 1,
        invisible_ms: 60_000,
        poll_ms: 0,
        born_at: Timestamp(0),
        init_mode: 0,
        expression_type: None,
        expression: None,
        order: false,
        attempt: None,
    };
    let update =
        UpdateConsumerOffset { group: group(of), topic: topic("in"), queue: QueueId(0), offset: QueueOffset(1) };
    [
        ("update", update.encode()),
        ("reset", reset.encode()),
        ("clone", CloneOffsets { from: group("mine"), to: group(of), topic: None }.encode()),
        ("pull", pull(of, Some(1))),
        ("pop", pop.encode()),
        ("delete", DeleteGroup { group: group(of), clean_offsets: true }.encode()),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn the_positions_of_a_pipeline_are_read_by_clients_and_moved_by_none() {
    let world = World::new().await;
    for name in ["in", "out"] {
        world.put(&format!("/topics/{name}"), json!({ "queues": 1 })).await.expect(201);
    }
    let filter = sluice_plugins::ready_made("json-filter").unwrap().component;
    world.send("PUT", "/plugins/only", &[], filter).await.expect(201);
    let step = json!({ "plugin": "only", "config": { "path": "/a", "exists": true } });
    let source = json!({ "topic": "in", "start": "earliest" });
    world
        .put("/pipelines/p", json!({ "name": "p", "source": source, "steps": [step], "sinks": ["out"] }))
        .await
        .expect(201);
    world.post("/topics/in/messages", json!(vec![json!({ "body": { "a": 1 } }); 3])).await.expect(201);
    settled(&world, |pipeline| pipeline["lag"] == 0).await;
    world.put("/groups/mine", "{}").await.expect(201);
    let update =
        UpdateConsumerOffset { group: group("mine"), topic: topic("in"), queue: QueueId(0), offset: QueueOffset(2) };
    assert_eq!(ask(&world, update.encode()).await.0, ResponseCode::Success);

    let position = async |world: &World| world.get("/pipelines/p").await.json()["queues"][0]["position"].clone();
    for paused in [false, true] {
        if paused {
            world.post("/pipelines/p:pause", "").await.expect(200);
        }
        for of in ["pipeline-p", "pipeline-p|dlq"] {
            for (what, request) in writes(of) {
                let (code, refused) = ask(&world, request).await;
                let said = refused.header.remark.unwrap_or_default();
                assert!(code == ResponseCode::SystemError && said.contains("of a pipeline"), "{what}: {code:?} {said}");
            }
        }
        assert_eq!(position(&world).await, 3);
    }
    // Whoever looks, as `mqadmin consumerProgress` does, is answered.
    let read = QueryConsumerOffset {
        group: group("pipeline-p"),
        topic: topic("in"),
        queue: QueueId(0),
        zero_if_unknown: None,
    };
    assert_eq!(ask(&world, read.encode()).await.0, ResponseCode::Success);
    assert_eq!(ask(&world, pull("pipeline-p", None)).await.0, ResponseCode::Success);
    let stats = ConsumeStats { group: group("pipeline-p"), topic: None, topics: None };
    let (code, answer) = ask(&world, stats.encode()).await;
    let text = String::from_utf8(answer.body.to_vec()).unwrap();
    assert!(code == ResponseCode::Success && text.contains("\"consumerOffset\":3"), "{text}");

    // A name that only looks like it is anybody's, and so is this one when the pipeline is gone.
    world.delete("/pipelines/p").await.expect(204);
    for of in ["pipeline-q", "pipeline-p"] {
        world.put(&format!("/groups/{of}"), "{}").await.expect(201);
        for (what, request) in writes(of) {
            assert_eq!(ask(&world, request).await.0, ResponseCode::Success, "{what} of {of}");
        }
        assert_eq!(world.get(&format!("/groups/{of}")).await.status, 404);
    }
    let left: Value = world.get("/groups").await.json()["items"].clone();
    assert_eq!(left.as_array().unwrap().len(), 1, "{left}");
}
