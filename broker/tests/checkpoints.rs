//! A checkpoint and retention go by what is on the disk, not by what is staged.
#![allow(clippy::unwrap_used, reason = "a test may stop where it fails")]

mod kit;

use kit::{World, message, send_to, topic};
use sluice_broker::{Retention, Topic};

#[test]
fn what_is_staged_and_not_written_is_in_no_checkpoint() {
    let mut world = World::new();
    world.make("first", 1);
    let now = world.now;
    world.broker().put_topic(Topic::new(topic("staged"), 1), now).unwrap();
    world.checkpoint().unwrap();
    let mut world = world.crash();
    assert!(world.opened.reader.topic(&topic("staged")).is_err(), "it never reached the log");
    world.make("second", 1);
    let world = world.crash();
    assert!(world.opened.reader.topic(&topic("second")).is_ok(), "a later record is not passed over");
}

#[test]
fn a_checkpoint_is_taken_once_all_is_written() {
    let mut world = World::new();
    let now = world.now;
    world.broker().put_topic(Topic::new(topic("t"), 1), now).unwrap();
    world.checkpoint().unwrap();
    world.settle();
    world.checkpoint().unwrap();
    let world = world.crash();
    assert_eq!(world.opened.recovery.replayed_records, 0);
    assert!(world.opened.reader.topic(&topic("t")).is_ok());
}

#[test]
fn a_document_carried_forward_and_not_written_keeps_its_segment() {
    let mut world = World::tiny();
    world.make("t", 1);
    let now = world.now;
    world.broker().put_document("plugin", "p", "", "bytes".into(), now).unwrap();
    for n in 0..40 {
        world.send(send_to(0, vec![message("t", &format!("{n}{}", ".".repeat(400)), &[])]));
    }
    for _ in 0..2 {
        world.checkpoint().unwrap();
    }
    assert_eq!(world.broker().carry_documents(now).unwrap(), 1);
    let policy = Retention { max_age_ms: None, max_bytes: Some(4096) };
    world.opened.applier.retain(now, &policy).unwrap();
    let mut world = world.crash();
    let (_, body) = world.opened.reader.document("plugin", "p").unwrap().unwrap();
    assert_eq!(&body[..], b"bytes");
    assert_eq!(world.broker().carry_documents(now).unwrap(), 1);
    world.settle();
    let start = world.opened.applier.retain(now, &policy).unwrap();
    assert!(start.0 > 0, "written, it holds the old segment no longer");
    let world = world.crash();
    assert_eq!(&world.opened.reader.document("plugin", "p").unwrap().unwrap().1[..], b"bytes");
}
