//! A topic that is deleted is gone with its messages and positions, and may come back empty.
#![allow(clippy::unwrap_used, reason = "a test may stop where it fails")]

mod kit;

use kit::{World, field, group, topic};
use sluice_broker::{Filter, Position, Topic};
use sluice_model::{Kind, QueueId, QueueOffset};

fn at(offset: u64) -> Position {
    Position { group: group("g"), topic: topic("t"), queue: QueueId(0), offset: QueueOffset(offset) }
}

#[test]
fn a_topic_comes_back_empty() {
    let mut world = World::new();
    world.make("t", 1);
    world.say("t", "old");
    world.opened.reader.commit_offset(at(1)).unwrap();
    let now = world.now;
    world.broker().record_offsets(now).unwrap();
    world.broker().delete_topic(&topic("t"), now).unwrap();
    assert_eq!(world.fetch("t", 0, 0, Filter::All).unwrap_err().kind(), Kind::NotFound);
    assert_eq!(world.broker().delete_topic(&topic("t"), now).unwrap_err().kind(), Kind::NotFound);
    world.make("t", 1);
    assert_eq!(world.say("t", "new").queue_offset, QueueOffset(0));
    assert_eq!(world.opened.reader.offset(&group("g"), &topic("t"), QueueId(0)), None);
    let world = world.crash();
    assert_eq!(world.bodies("t", 0), ["new"]);
    assert_eq!(world.opened.reader.offset(&group("g"), &topic("t"), QueueId(0)), None);
}

#[test]
fn a_position_in_the_old_queue_is_none_in_the_new_one() {
    let mut world = World::new();
    world.make("t", 1);
    world.say("t", "old");
    let now = world.now;
    world.broker().delete_topic(&topic("t"), now).unwrap();
    world.broker().put_topic(Topic::new(topic("t"), 1), now).unwrap();
    let error = world.opened.reader.commit_offset(at(1)).unwrap_err();
    assert_eq!(field(&error), "commitOffset");
    world.settle();
    world.say("t", "new");
    world.opened.reader.commit_offset(at(1)).unwrap();
}

#[test]
fn the_brokers_own_topics_stay() {
    let mut world = World::new();
    let now = world.now;
    for name in ["rmq_sys_SLUICE_TOPICS", "SCHEDULE_TOPIC_XXXX", "TBW102"] {
        assert_eq!(world.broker().delete_topic(&topic(name), now).unwrap_err().kind(), Kind::Denied, "{name}");
    }
}
