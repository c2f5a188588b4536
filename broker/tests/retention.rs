//! Old segments go, but none that something still waits in.
#![allow(clippy::unwrap_used, reason = "a test may stop where it fails")]

mod kit;

use kit::{World, group, message, send_to, topic};
use sluice_broker::{Decider, Fetch, FetchStatus, Filter, Retention, Verdict};
use sluice_model::{LogOffset, QueueId, QueueOffset, Transaction};

const SMALL: Retention = Retention { max_age_ms: None, max_bytes: Some(4_096) };

/// Fills some segments and covers them with two checkpoints.
fn fill(world: &mut World) {
    for _ in 0..2 {
        for _ in 0..20 {
            world.say("t", &".".repeat(400));
        }
        world.checkpoint().unwrap();
    }
}

fn retain(world: &mut World) -> LogOffset {
    let now = world.now;
    world.opened.applier.retain(now, &SMALL).unwrap()
}

#[test]
fn a_delayed_message_holds_its_segment_until_it_is_delivered() {
    let mut world = World::tiny();
    world.make("t", 1);
    world.send(send_to(0, vec![message("t", "late", &[("DELAY", "5")])]));
    fill(&mut world);
    assert_eq!(retain(&mut world), LogOffset(0));
    world.now = world.now.plus_ms(60_000);
    let now = world.now;
    world.broker().deliver_due(now).unwrap();
    assert_eq!(retain(&mut world), LogOffset(0), "its delivery is staged only");
    world.settle();
    assert!(retain(&mut world) > LogOffset(0));
    let world = world.crash();
    assert_eq!(world.bodies("t", 0).last().map(String::as_str), Some("late"));
}

#[test]
fn a_half_message_holds_its_segment_until_it_is_decided() {
    let mut world = World::tiny();
    world.make("t", 1);
    let mut half = message("t", "half", &[("PGROUP", "p")]);
    half.sys_flag = half.sys_flag.with_transaction(Transaction::Prepared);
    let sent = world.send(send_to(0, vec![half]));
    fill(&mut world);
    assert_eq!(retain(&mut world), LogOffset(0));
    let now = world.now;
    world
        .broker()
        .decide(&group("p"), sent.queue_offset, sent.ids[0].log_offset, &[], (Verdict::Commit, Decider::Producer), now)
        .unwrap();
    assert_eq!(retain(&mut world), LogOffset(0), "the decision is staged only");
    world.settle();
    assert!(retain(&mut world) > LogOffset(0));
    let world = world.crash();
    assert_eq!(world.bodies("t", 0).last().map(String::as_str), Some("half"));
}

#[test]
fn a_consumer_that_was_too_slow_is_told_where_the_queue_begins() {
    let mut world = World::tiny();
    world.make("t", 1);
    fill(&mut world);
    retain(&mut world);
    let mut world = world.crash();
    let (min, end) = world.opened.reader.bounds(&topic("t"), QueueId(0));
    assert!(min > QueueOffset(0) && end == QueueOffset(40));
    let fetch = Fetch {
        topic: topic("t"),
        queue: QueueId(0),
        from: QueueOffset(0),
        max_messages: 1,
        max_bytes: 1,
        filter: Filter::All,
    };
    let fetched = world.opened.reader.fetch(&fetch).unwrap();
    assert_eq!((fetched.status, fetched.next), (FetchStatus::TooSmall, min));
    assert_eq!(world.all("t", 0).len() as u64, end.0 - min.0);
    assert_eq!(world.say("t", "next").queue_offset, end);
}

#[test]
fn age_counts_from_when_a_message_was_stored() {
    let mut world = World::tiny();
    world.make("t", 1);
    fill(&mut world);
    let policy = Retention { max_age_ms: Some(1_000), max_bytes: None };
    let mut kept = |ms| {
        let now = world.now.plus_ms(ms);
        world.opened.applier.retain(now, &policy).unwrap()
    };
    assert_eq!(kept(1_000), LogOffset(0));
    assert!(kept(1_001) > LogOffset(0));
}
