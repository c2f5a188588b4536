//! Old segments go, and with them what points into them.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may stop where it fails")]

#[path = "kit/mod.rs"]
mod kit;

use kit::{World, keyed, small, topic};
use sluice_model::{Kind, LogOffset, QueueId, Timestamp};
use sluice_storage::{
    Boundary, Retention,
    fake::{FakeDisk, Fate},
};

const ALL: LogOffset = LogOffset(u64::MAX);
const BY_SIZE: Retention = Retention { max_age_ms: None, max_bytes: Some(10_000) };

/// 40 messages in about 13 segments, one a second, with two checkpoints at the end.
fn filled(disk: &FakeDisk) -> World {
    let mut world = World::open(disk, small()).unwrap();
    for n in 0..40u8 {
        world.now = Timestamp(1000 * i64::from(n));
        world.put(&[keyed("t", u32::from(n % 2), &[n; 1000], &format!("id-{n}"), "")]).unwrap();
    }
    world.checkpoint().unwrap();
    world.checkpoint().unwrap();
    world
}

#[test]
fn the_log_is_kept_below_a_size() {
    let disk = FakeDisk::new();
    let mut world = filled(&disk);
    let oldest = world.entries("t", 0, 0, 1)[0];
    let held = world.log.reader.record(oldest.log_offset, oldest.size).unwrap();
    let start = world.log.applier.retain(world.now, &BY_SIZE, ALL).unwrap();
    assert_eq!(world.log.reader.start(), start);
    let left = world.log.reader.appended().0 - start.0;
    assert!(left <= 10_000 && left > 10_000 - 4096, "{left} bytes are left");
    assert!(!disk.paths().contains(&"commitlog/00000000000000000000".to_owned()));

    let (min, end) = world.bounds("t", 0).unwrap();
    assert!(min > 10 && end == 20);
    assert_eq!(world.bodies("t", 0).len() as u64, end - min);
    assert!(world.entries("t", 0, min - 1, 10).is_empty());
    assert_eq!(world.log.reader.record(oldest.log_offset, oldest.size).unwrap_err().kind(), Kind::NotFound);
    assert_eq!(held.len(), oldest.size as usize, "who has a record keeps it");
    assert!(world.by_key("t", "id-0").is_empty());
    assert_eq!(world.by_key("t", "id-39").len(), 1);
    let time = |at| world.log.reader.offset_at_time(&topic("t"), QueueId(0), Timestamp(at), Boundary::Lower).unwrap().0;
    assert_eq!((time(0), time(38_000), time(99_000)), (min, 19, 20));
    let runs = disk.paths().into_iter().filter(|path| path.starts_with("keyindex/")).count();
    assert!(runs <= 1, "runs of keys that are gone are removed, {runs} are left");

    let again = World::open(&disk.crash(Fate::Dropped, 0), small()).unwrap();
    assert_eq!((again.log.reader.start(), again.bounds("t", 0)), (start, Some((min, end))));
    assert!(again.log.recovery.is_clean());
}

#[test]
fn segments_go_when_all_their_records_are_too_old() {
    let disk = FakeDisk::new();
    let mut world = filled(&disk);
    let policy = Retention { max_age_ms: Some(10_000), max_bytes: None };
    world.log.applier.retain(Timestamp(9_000), &policy, ALL).unwrap();
    assert_eq!(world.log.reader.start(), LogOffset(0));
    world.log.applier.retain(Timestamp(39_000), &policy, ALL).unwrap();
    let oldest = world.bodies("t", 0)[0][0].min(world.bodies("t", 1)[0][0]);
    assert!((26..=29).contains(&oldest), "message {oldest} is the oldest; 29 is as old as may be");
}

#[test]
fn neither_the_pin_nor_a_checkpoint_nor_the_last_segment_is_touched() {
    let disk = FakeDisk::new();
    let mut world = filled(&disk);
    let everything = Retention { max_age_ms: None, max_bytes: Some(0) };
    let pin = world.entries("t", 1, 5, 1)[0].log_offset;
    let start = world.log.applier.retain(world.now, &everything, pin).unwrap();
    assert!(start <= pin && pin.0 < start.0 + 4096);
    world.log.applier.retain(world.now, &everything, ALL).unwrap();
    world.put(&[keyed("t", 0, b"more", "id", "")]).unwrap();
    assert_eq!(world.bodies("t", 0).last().unwrap(), b"more");

    let disk = FakeDisk::new();
    let mut world = World::open(&disk, small()).unwrap();
    for n in 0..40u8 {
        world.put(&[keyed("t", 0, &[n; 1000], "id", "")]).unwrap();
    }
    assert_eq!(world.log.applier.retain(world.now, &everything, ALL).unwrap(), LogOffset(0), "no checkpoint yet");
    world.checkpoint().unwrap();
    assert_eq!(world.log.applier.retain(world.now, &everything, ALL).unwrap(), LogOffset(0), "the start is the older");
    world.checkpoint().unwrap();
    assert!(world.log.applier.retain(world.now, &everything, ALL).unwrap() > LogOffset(0));
}

#[test]
fn a_topic_may_keep_its_messages_for_less_than_the_log() {
    let disk = FakeDisk::new();
    let mut world = filled(&disk);
    world.put(&[keyed("other", 0, b"old", "id", "")]).unwrap();
    let (places, now) = (world.entries("t", 0, 0, 20), world.now);
    // Of queue 0 the messages of the seconds 0, 2, 4 and so on to 38.
    world.log.applier.expire(&topic("t"), Timestamp(10_000)).unwrap();
    assert_eq!((world.bounds("t", 0), world.bounds("t", 1)), (Some((5, 20)), Some((5, 20))));
    world.log.applier.expire(&topic("t"), Timestamp(10_001)).unwrap();
    assert_eq!((world.bounds("t", 0), world.bounds("t", 1)), (Some((6, 20)), Some((5, 20))));
    assert!(world.entries("t", 0, 5, 1).is_empty());
    assert_eq!((world.bodies("t", 0).len(), world.bounds("other", 0)), (14, Some((0, 1))));
    assert!(world.log.reader.record(places[0].log_offset, places[0].size).is_ok(), "the log has it still");

    // What is not in a checkpoint yet is as it was, and expires again.
    let mut world = World::open(&disk.crash(Fate::Dropped, 0), small()).unwrap();
    assert_eq!(world.bounds("t", 0), Some((0, 20)));
    assert!(world.log.recovery.repaired_queues == 0);
    world.log.applier.expire(&topic("t"), Timestamp(10_001)).unwrap();
    world.log.applier.expire(&topic("t"), Timestamp(0)).unwrap();
    assert_eq!(world.bounds("t", 0), Some((6, 20)), "nothing comes back");
    world.checkpoint().unwrap();

    let disk = disk.crash(Fate::Dropped, 0);
    let mut world = World::open(&disk, small()).unwrap();
    world.now = now;
    world.log.applier.expire(&topic("t"), Timestamp(99_000)).unwrap();
    world.log.applier.expire(&topic("nobody"), Timestamp(99_000)).unwrap();
    assert_eq!(world.bounds("t", 0), Some((20, 20)));
    world.put(&[keyed("t", 0, b"next", "", "")]).unwrap();
    assert_eq!((world.bounds("t", 0), world.bodies("t", 0)), (Some((20, 21)), vec![b"next".to_vec()]));
}

#[test]
fn what_cannot_be_read_is_not_taken_for_what_expired() {
    let disk = FakeDisk::new();
    filled(&disk);
    let disk = disk.crash(Fate::Dropped, 0);
    let mut world = World::open(&disk, small()).unwrap();
    // The entry that is looked at first behind the oldest.
    disk.damage("consumequeue/t/0/00000000000000000000", 10 * 20, &[0; 20]).unwrap();
    world.log.applier.expire(&topic("t"), Timestamp(5_000)).unwrap();
    assert_eq!((world.bounds("t", 0), world.bounds("t", 1)), (Some((0, 20)), Some((2, 20))));
}

#[test]
fn an_empty_queue_goes_on_where_it_was() {
    let disk = FakeDisk::new();
    let mut world = World::open(&disk, small()).unwrap();
    for n in 0..5u8 {
        world.put(&[keyed("idle", 0, &[n], "", "")]).unwrap();
    }
    for n in 0..40u8 {
        world.put(&[keyed("busy", 0, &[n; 1000], "", "")]).unwrap();
    }
    world.checkpoint().unwrap();
    world.checkpoint().unwrap();
    world.log.applier.retain(world.now, &BY_SIZE, ALL).unwrap();
    assert_eq!(world.bounds("idle", 0), Some((5, 5)));
    world.checkpoint().unwrap();
    let mut world = World::open(&disk.crash(Fate::Dropped, 0), small()).unwrap();
    assert_eq!(world.bounds("idle", 0), Some((5, 5)));
    world.put(&[keyed("idle", 0, b"six", "", "")]).unwrap();
    assert_eq!(world.entries("idle", 0, 5, 10).len(), 1);
}
