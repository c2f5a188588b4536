//! A full disk refuses and takes again when there is room; a failing one is never written again, and reads go on.
#![allow(clippy::unwrap_used, reason = "a test may stop where it fails")]

mod kit;

use kit::{World, group, message, send_to, topic};
use sluice_broker::Position;
use sluice_model::{Kind, QueueId, QueueOffset};

#[test]
fn a_full_disk_refuses_and_loses_nothing() {
    let mut world = World::tiny();
    world.make("t", 1);
    world.checkpoint().unwrap();
    let used = world.disk.used_bytes();
    world.disk.set_capacity(Some(used + 8_192));
    let mut taken = 0;
    let refused = loop {
        match world.try_send(send_to(0, vec![message("t", &format!("{taken}:{}", ".".repeat(500)), &[])])) {
            Ok(sent) => assert_eq!(sent.queue_offset, QueueOffset(taken)),
            Err(error) => break error,
        }
        world.settle();
        taken += 1;
    };
    assert_eq!(refused.kind(), Kind::Full);
    assert!(taken > 3);
    let position = Position { group: group("g"), topic: topic("t"), queue: QueueId(0), offset: QueueOffset(taken) };
    world.opened.reader.commit_offset(position).unwrap();
    while world.try_send(send_to(0, vec![message("t", "x", &[])])).is_ok() {
        world.settle();
        taken += 1;
    }
    let now = world.now;
    assert_eq!(world.broker().record_offsets(now).unwrap_err().kind(), Kind::Full);
    assert_eq!(world.all("t", 0).len() as u64, taken, "reads go on");
    world.disk.set_capacity(None);
    world.opened.applier.retry().unwrap();
    let sent = world.say("t", "room again");
    assert_eq!(sent.queue_offset, QueueOffset(taken), "no offset was used up");
    world.broker().record_offsets(now).unwrap();
    world.settle();
    let world = world.crash();
    assert_eq!(world.all("t", 0).len() as u64, taken + 1);
    assert!(
        world.opened.reader.offset(&group("g"), &topic("t"), QueueId(0)).is_some(),
        "not recorded was not forgotten"
    );
}

#[test]
fn a_failed_sync_acknowledges_nothing_and_ends_all_writing() {
    let mut world = World::new();
    world.make("t", 1);
    world.say("t", "safe");
    world.try_send(send_to(0, vec![message("t", "unsure", &[])])).unwrap();
    world.broker().write().unwrap();
    world.disk.fail_sync_after(0);
    assert_eq!(world.opened.applier.sync().unwrap_err().kind(), Kind::Unavailable);
    assert_eq!(world.opened.applier.sync().unwrap_err().kind(), Kind::Unavailable, "a second sync does not help");
    assert_eq!(world.try_send(send_to(0, vec![message("t", "x", &[])])).unwrap_err().kind(), Kind::Unavailable);
    assert_eq!(world.checkpoint().unwrap_err().kind(), Kind::Unavailable);
    assert_eq!(world.bodies("t", 0), ["safe"]);
    let mut world = world.crash();
    assert_eq!(world.bodies("t", 0), ["safe"]);
    world.say("t", "new");
    assert_eq!(world.bodies("t", 0), ["safe", "new"]);
}

#[test]
fn a_failed_write_ends_all_writing() {
    let mut world = World::new();
    world.make("t", 1);
    world.say("t", "safe");
    world.disk.fail_writes_to(Some("commitlog/"));
    world.try_send(send_to(0, vec![message("t", "x", &[])])).unwrap();
    assert_eq!(world.broker().write().unwrap_err().kind(), Kind::Unavailable);
    world.disk.fail_writes_to(None);
    assert_eq!(world.broker().write().unwrap_err().kind(), Kind::Unavailable);
    assert_eq!(world.bodies("t", 0), ["safe"]);
    assert_eq!(world.crash().bodies("t", 0), ["safe"]);
}
