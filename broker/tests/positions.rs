//! Consumer offsets: seen at once, on the disk when recorded, never ahead.
#![allow(clippy::unwrap_used, reason = "a test may stop where it fails")]

mod kit;

use kit::{World, field, group, topic};
use sluice_broker::{Group, Position};
use sluice_model::{Kind, QueueId, QueueOffset};

fn at(name: &str, queue: u32, offset: u64) -> Position {
    Position { group: group("g"), topic: topic(name), queue: QueueId(queue), offset: QueueOffset(offset) }
}

fn offset(world: &World) -> Option<u64> {
    world.opened.reader.offset(&group("g"), &topic("t"), QueueId(0)).map(|offset| offset.0)
}

fn world() -> World {
    let mut world = World::new();
    world.make("t", 1);
    for body in ["a", "b", "c"] {
        world.say("t", body);
    }
    world
}

fn record(world: &mut World) {
    let now = world.now;
    world.broker().record_offsets(now).unwrap();
    world.settle();
}

#[test]
fn a_commit_is_seen_at_once_and_kept_when_recorded() {
    let mut world = world();
    world.opened.reader.commit_offset(at("t", 0, 1)).unwrap();
    record(&mut world);
    world.opened.reader.commit_offset(at("t", 0, 3)).unwrap();
    assert_eq!(offset(&world), Some(3));
    let mut world = world.crash();
    assert_eq!(offset(&world), Some(1), "back to what was recorded");
    world.opened.reader.commit_offset(at("t", 0, 0)).unwrap();
    record(&mut world);
    assert_eq!(offset(&world.crash()), Some(0), "a consumer may go back");
}

#[test]
fn nothing_is_recorded_twice() {
    let mut world = world();
    world.opened.reader.commit_offset(at("t", 0, 1)).unwrap();
    record(&mut world);
    let end = world.opened.reader.store().appended();
    world.opened.reader.commit_offset(at("t", 0, 1)).unwrap();
    record(&mut world);
    assert_eq!(world.opened.reader.store().appended(), end);
}

#[test]
fn an_offset_stays_within_its_queue() {
    let world = world();
    assert_eq!(field(&world.opened.reader.commit_offset(at("t", 0, 4)).unwrap_err()), "commitOffset");
    assert_eq!(field(&world.opened.reader.commit_offset(at("t", 1, 0)).unwrap_err()), "queueId");
    assert_eq!(world.opened.reader.commit_offset(at("u", 0, 0)).unwrap_err().kind(), Kind::NotFound);
    assert_eq!(offset(&world), None);
}

#[test]
fn a_deleted_group_comes_back_without_positions() {
    let mut world = world();
    let now = world.now;
    world.broker().put_group(Group::new(group("g")), now).unwrap();
    world.opened.reader.commit_offset(at("t", 0, 2)).unwrap();
    record(&mut world);
    world.broker().delete_group(&group("g"), now).unwrap();
    assert_eq!(world.broker().delete_group(&group("g"), now).unwrap_err().kind(), Kind::NotFound);
    world.settle();
    let mut world = world.crash();
    assert!(!world.opened.reader.knows_group(&group("g")));
    world.broker().put_group(Group { retries: 3, ..Group::new(group("g")) }, now).unwrap();
    world.settle();
    let world = world.crash();
    assert_eq!((offset(&world), world.opened.reader.group(&group("g")).retries), (None, 3));
    assert!(world.opened.reader.topic(&topic("%RETRY%g")).is_ok());
}
