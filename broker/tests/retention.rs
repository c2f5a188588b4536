//! Old segments go, but none that something still waits in.
#![allow(clippy::unwrap_used, reason = "a test may stop where it fails")]

mod kit;

use kit::{World, field, group, message, send_to, topic};
use sluice_broker::{Decider, Fetch, FetchStatus, Filter, Retention, Topic, Verdict};
use sluice_model::{LogOffset, QueueId, QueueOffset, Timestamp, Transaction};

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

/// Where the log begins so much later, when it keeps everything for a second.
fn start_after(world: &mut World, ms: i64) -> LogOffset {
    let (now, policy) = (world.now.plus_ms(ms), Retention { max_age_ms: Some(1_000), max_bytes: None });
    world.opened.applier.retain(now, &policy).unwrap()
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
    assert_eq!(start_after(&mut world, 1_000), LogOffset(0));
    assert!(start_after(&mut world, 1_001) > LogOffset(0));
}

fn keep(world: &mut World, name: &str, retention_ms: Option<i64>) {
    let now = world.now;
    world.broker().put_topic(Topic { retention_ms, ..Topic::new(topic(name), 1) }, now).unwrap();
    world.settle();
}

fn expire(world: &mut World) {
    let now = world.now;
    world.opened.applier.expire(now).unwrap();
}

#[test]
fn a_topic_with_a_time_of_its_own_forgets_what_is_older_and_the_others_do_not() {
    let mut world = World::tiny();
    keep(&mut world, "short", Some(5_000));
    world.make("t", 1);
    for (n, at) in [0, 1_000, 2_000, 9_000].into_iter().enumerate() {
        world.now = Timestamp(1_000_000 + at);
        world.send(send_to(0, vec![message("short", &n.to_string(), &[("KEYS", "k")])]));
        world.say("t", &n.to_string());
    }
    expire(&mut world);
    assert_eq!((world.bodies("short", 0), world.bodies("t", 0).len()), (vec!["3".to_owned()], 4));
    let by_key = |world: &World| {
        let times = (Timestamp(0), Timestamp(i64::MAX));
        world.opened.reader.by_key(&topic("short"), "k", times, 10).unwrap().len()
    };
    assert_eq!(by_key(&world), 1);

    // The topic comes back as it was; what is as old goes at the first look.
    world.checkpoint().unwrap();
    let mut world = world.crash();
    assert_eq!(world.opened.reader.topic(&topic("short")).unwrap().retention_ms, Some(5_000));
    world.now = Timestamp(1_000_000 + 14_000);
    expire(&mut world);
    assert_eq!(world.bodies("short", 0), ["3"], "exactly as old as it may be");
    world.now = world.now.plus_ms(1);
    expire(&mut world);
    assert_eq!((world.bodies("short", 0), by_key(&world)), (Vec::<String>::new(), 0));
    assert_eq!(world.say("short", "next").queue_offset, QueueOffset(4));
    keep(&mut world, "short", None);
    world.now = world.now.plus_ms(1_000_000);
    expire(&mut world);
    assert_eq!(world.bodies("short", 0), ["next"]);
}

#[test]
fn the_log_stays_for_the_topic_that_keeps_its_messages_longest() {
    let mut world = World::tiny();
    world.make("t", 1);
    keep(&mut world, "long", Some(60_000));
    fill(&mut world);
    assert_eq!(start_after(&mut world, 60_000), LogOffset(0));
    assert!(start_after(&mut world, 60_001) > LogOffset(0));
}

#[test]
fn a_topic_keeps_its_messages_for_a_second_at_least() {
    let mut world = World::tiny();
    let refused = Topic { retention_ms: Some(999), ..Topic::new(topic("t"), 1) };
    let now = world.now;
    assert_eq!(field(&world.broker().put_topic(refused, now).unwrap_err()), "retention");
}
