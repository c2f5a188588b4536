//! Sends: what is taken, what is refused, and which field the refusal names.
#![allow(clippy::unwrap_used, reason = "a test may stop where it fails")]

mod kit;

use kit::{World, field, message, send_to, topic};
use sluice_broker::{AUTO_CREATE_TOPIC, Config, Permission, Send, StoreConfig, Topic, check_batch};
use sluice_model::{Kind, QueueId, QueueOffset};

fn store() -> StoreConfig {
    StoreConfig { segment_len: 1 << 20, reserve_bytes: 0, ..StoreConfig::default() }
}

fn templated(name: &str, template: &str, queues: u32) -> Send {
    Send {
        messages: vec![message(name, "x", &[])],
        queue: None,
        template: Some((topic(template), queues)),
        max_reconsume_times: None,
    }
}

#[test]
fn offsets_are_dense_and_ids_lead_to_the_records() {
    let mut world = World::new();
    world.make("t", 2);
    for n in 0..3 {
        let sent = world.send(send_to(1, vec![message("t", &format!("{n}"), &[("UNIQ_KEY", "mine")])]));
        assert_eq!((sent.queue, sent.queue_offset, sent.unique_key.as_str()), (QueueId(1), QueueOffset(n), "mine"));
        let record = world.opened.reader.record_at(sent.ids[0].log_offset).unwrap();
        assert_eq!(sluice_model::RecordView::parse(&record).unwrap().body(), format!("{n}").as_bytes());
    }
    assert_eq!(world.bodies("t", 1), ["0", "1", "2"]);
    assert!(world.all("t", 0).is_empty());
    let unnamed = world.say("t", "x").unique_key;
    assert_eq!((unnamed.len(), world.all("t", 0)[0].property("UNIQ_KEY")), (32, Some(unnamed.as_str())));
}

#[test]
fn without_a_queue_the_writable_ones_take_turns() {
    let mut world = World::new();
    let now = world.now;
    world.broker().put_topic(Topic { read_queues: 8, ..Topic::new(topic("t"), 3) }, now).unwrap();
    for _ in 0..9 {
        world.send(Send { queue: None, ..send_to(0, vec![message("t", "x", &[])]) });
    }
    assert_eq!([0, 1, 2, 3].map(|queue| world.all("t", queue).len()), [3, 3, 3, 0]);
}

#[test]
fn a_batch_is_one_unit_with_offsets_in_a_row() {
    let mut world = World::new();
    world.make("t", 1);
    world.say("t", "before");
    let bodies = ["a", "b", "c"];
    let sent = world.send(send_to(0, bodies.map(|body| message("t", body, &[])).into()));
    assert_eq!((sent.queue_offset, sent.ids.len()), (QueueOffset(1), 3));
    assert_eq!(world.bodies("t", 0), ["before", "a", "b", "c"]);
    for bad in [message("t", "d", &[("DELAY", "1")]), message("%RETRY%g", "d", &[])] {
        let error = world.try_send(send_to(0, vec![message("t", "ok", &[]), bad])).unwrap_err();
        assert_eq!(field(&error), "properties");
    }
    world.settle();
    assert_eq!(world.all("t", 0).len(), 4, "nothing of a refused batch is there");
    assert_eq!(field(&check_batch(0).unwrap_err()), "body");
    assert_eq!(field(&check_batch(4_097).unwrap_err()), "body");
    check_batch(4_096).unwrap();
}

#[test]
fn bounds_are_named() {
    let mut world = World::with(Config { max_body: 10, ..Config::default() }, store());
    world.make("t", 2);
    let queue = world.try_send(send_to(2, vec![message("t", "x", &[])])).unwrap_err();
    assert_eq!(field(&queue), "queueId");
    assert!(queue.to_string().contains("0 to 1"), "{queue}");
    let body = world.try_send(send_to(0, vec![message("t", "12345678901", &[])])).unwrap_err();
    assert_eq!(field(&body), "body");
    assert!(body.to_string().contains("10 bytes, got 11"), "{body}");
    world.send(send_to(0, vec![message("t", "1234567890", &[])]));
    let nothing = world.try_send(send_to(0, Vec::new())).unwrap_err();
    assert_eq!(field(&nothing), "body");
}

#[test]
fn a_missing_topic_is_made_from_the_template_only() {
    let mut world = World::with(Config { default_queues: 4, ..Config::default() }, store());
    assert_eq!(world.try_send(send_to(0, vec![message("t", "x", &[])])).unwrap_err().kind(), Kind::NotFound);
    assert_eq!(world.try_send(templated("t", "other", 2)).unwrap_err().kind(), Kind::NotFound);
    assert_eq!(world.try_send(templated("%DLQ%g", AUTO_CREATE_TOPIC, 1)).unwrap_err().kind(), Kind::NotFound);
    for (name, wanted, queues) in [("two", 2, 2), ("some", 0, 4), ("many", 1_000, 8)] {
        world.send(templated(name, AUTO_CREATE_TOPIC, wanted));
        assert_eq!(world.opened.reader.topic(&topic(name)).unwrap().write_queues, queues, "{name}");
    }
    let mut closed = World::with(Config { auto_create_topics: false, ..Config::default() }, store());
    assert_eq!(closed.try_send(templated("t", AUTO_CREATE_TOPIC, 2)).unwrap_err().kind(), Kind::NotFound);
}

#[test]
fn permissions_and_the_brokers_own_topics_are_kept() {
    let mut world = World::new();
    let now = world.now;
    world.broker().put_topic(Topic { permission: Permission(4), ..Topic::new(topic("t"), 1) }, now).unwrap();
    assert_eq!(world.try_send(send_to(0, vec![message("t", "x", &[])])).unwrap_err().kind(), Kind::Denied);
    for name in ["rmq_sys_SLUICE_OFFSETS", "SCHEDULE_TOPIC_XXXX", "RMQ_SYS_TRANS_HALF_TOPIC", "SELF_TEST_TOPIC"] {
        assert_eq!(
            world.try_send(send_to(0, vec![message(name, "x", &[])])).unwrap_err().kind(),
            Kind::Denied,
            "{name}"
        );
    }
    let bad = [
        (Topic::new(topic("u"), 0), "readQueueNums"),
        (Topic { write_queues: 1_025, ..Topic::new(topic("u"), 1) }, "writeQueueNums"),
        (Topic { permission: Permission(8), ..Topic::new(topic("u"), 1) }, "perm"),
    ];
    for (topic, name) in bad {
        assert_eq!(field(&world.broker().put_topic(topic, now).unwrap_err()), name);
    }
}
