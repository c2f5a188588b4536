//! Messages for a time: never early, in order of their times, once, whatever crashes.
#![allow(clippy::unwrap_used, reason = "a test may stop where it fails")]

mod kit;

use std::collections::BTreeSet;

use kit::{World, field, group, message, send_to, topic};
use sluice_broker::{Decider, LONGEST_DELAY_MS, Sent, Topic, Verdict};
use sluice_model::{Kind, LogOffset, SysFlag, Timestamp, Transaction, key};

const HOUR: i64 = 3_600_000;

fn world() -> World {
    let mut world = World::new();
    world.make("t", 1);
    world
}

fn after(world: &mut World, body: &str, ms: i64) -> Sent {
    world.send(send_to(0, vec![message("t", body, &[("TIMER_DELAY_MS", &ms.to_string())])]))
}

/// Lets time pass and delivers.
fn at(world: &mut World, time: Timestamp) {
    world.now = time;
    world.deliver_timers();
}

#[test]
fn each_comes_at_its_time_and_not_before() {
    let mut world = world();
    world.deliver_timers();
    let start = world.now;
    let delays = [1, 999, 1_000, 59_999, 5 * 60_000, HOUR, 30 * HOUR, LONGEST_DELAY_MS];
    for ms in delays {
        let sent = after(&mut world, &ms.to_string(), ms);
        assert_eq!(sent.due, Some(start.plus_ms(ms)));
    }
    for (count, ms) in delays.into_iter().enumerate() {
        at(&mut world, start.plus_ms(ms - 1));
        assert_eq!(world.all("t", 0).len(), count, "{ms} ms, a millisecond early");
        at(&mut world, start.plus_ms(ms));
        let got = world.all("t", 0);
        assert_eq!((got.len(), got.last().unwrap().body.as_str()), (count + 1, ms.to_string().as_str()));
        assert_eq!(got.last().unwrap().property("REAL_TOPIC"), None);
    }
}

#[test]
fn seconds_and_absolute_times_are_taken_and_the_past_is_now() {
    let mut world = world();
    let start = world.now;
    let due = start.plus_ms(2_000).to_string();
    world.send(send_to(0, vec![message("t", "seconds", &[("TIMER_DELAY_SEC", "1")])]));
    world.send(send_to(0, vec![message("t", "absolute", &[("TIMER_DELIVER_MS", &due)])]));
    let past = world.send(send_to(0, vec![message("t", "past", &[("TIMER_DELIVER_MS", "5")])]));
    assert_eq!((past.due, world.bodies("t", 0)), (None, vec!["past".to_owned()]));
    at(&mut world, start.plus_ms(1_000));
    at(&mut world, start.plus_ms(2_000));
    assert_eq!(world.bodies("t", 0), ["past", "seconds", "absolute"]);
}

#[test]
fn what_is_no_time_or_too_far_is_refused() {
    let mut world = world();
    for (name, value) in [
        ("TIMER_DELAY_MS", "soon"),
        ("TIMER_DELAY_SEC", "9223372036854775807"),
        ("TIMER_DELAY_MS", "259200001"),
        ("TIMER_DELIVER_MS", "9223372036854775807"),
    ] {
        let refused = world.try_send(send_to(0, vec![message("t", "x", &[(name, value)])])).unwrap_err();
        assert_eq!((field(&refused), refused.to_string().contains(name)), ("properties", true), "{name} {value}");
    }
    let two = vec![message("t", "a", &[("TIMER_DELAY_MS", "9")]), message("t", "b", &[])];
    assert_eq!(field(&world.try_send(send_to(0, two)).unwrap_err()), "properties");
}

#[test]
fn a_recalled_message_never_comes_and_others_do() {
    let mut world = world();
    let start = world.now;
    let (first, _) = (after(&mut world, "recalled", 1_000), after(&mut world, "kept", 1_000));
    let due = first.due.unwrap();
    world.broker().recall(due, &first.unique_key, start).unwrap();
    world.settle();
    let mut world = world.crash();
    at(&mut world, start.plus_ms(999));
    at(&mut world, start.plus_ms(5_000));
    assert_eq!(world.bodies("t", 0), ["kept"]);
    let now = world.now;
    assert_eq!(world.broker().recall(due, &first.unique_key, now).unwrap_err().kind(), Kind::Invalid);
}

#[test]
fn a_committed_half_message_waits_for_its_time() {
    let mut world = world();
    let start = world.now;
    let mut half = message("t", "half", &[("TIMER_DELAY_MS", "3000"), (key::PRODUCER_GROUP, "p")]);
    half.sys_flag = SysFlag::default().with_transaction(Transaction::Prepared);
    let sent = world.send(send_to(0, vec![half]));
    let place: LogOffset = sent.ids[0].log_offset;
    world.settle();
    world
        .broker()
        .decide(&group("p"), sent.queue_offset, place, &[], (Verdict::Commit, Decider::Producer), start)
        .unwrap();
    world.settle();
    at(&mut world, start.plus_ms(2_999));
    assert_eq!(world.all("t", 0).len(), 0);
    at(&mut world, start.plus_ms(3_000));
    assert_eq!(world.bodies("t", 0), ["half"]);
}

#[test]
fn a_deleted_topic_takes_its_messages_with_it() {
    let mut world = world();
    after(&mut world, "gone", 1_000);
    world.make("u", 1);
    world.send(send_to(0, vec![message("u", "there", &[("TIMER_DELAY_MS", "1000")])]));
    let now = world.now;
    world.broker().delete_topic(&topic("t"), now).unwrap();
    world.settle();
    at(&mut world, now.plus_ms(1_000));
    assert_eq!(world.bodies("u", 0), ["there"]);
    world.broker().put_topic(Topic::new(topic("t"), 1), now).unwrap();
    world.settle();
    assert_eq!(world.all("t", 0).len(), 0);
}

#[test]
fn days_without_a_broker_lose_nothing() {
    let mut world = world();
    let start = world.now;
    for n in 0..50 {
        after(&mut world, &format!("{n:02}"), (n + 1) * HOUR);
    }
    let mut world = world.crash();
    world.now = start.plus_ms(40 * 24 * HOUR);
    // One that falls into a slot that the old ones still hold.
    let late = after(&mut world, "late", HOUR);
    world.deliver_timers();
    assert_eq!(world.bodies("t", 0), (0..50).map(|n| format!("{n:02}")).collect::<Vec<_>>());
    at(&mut world, late.due.unwrap());
    assert_eq!((world.all("t", 0).len(), world.all("t", 0)[50].body.as_str()), (51, "late"));
}

/// Random delays, times and crashes against a set of what is due.
#[test]
fn random_schedules_with_crashes_agree_with_a_model() {
    for seed in 1..=20u64 {
        let mut dice = seed;
        let mut roll = move |sides: u64| {
            dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (dice >> 33) % sides
        };
        let mut world = World::tiny();
        world.make("t", 1);
        let mut model: BTreeSet<(Timestamp, u64)> = BTreeSet::new();
        let mut expected: Vec<u64> = Vec::new();
        for n in 0..400 {
            match roll(10) {
                0..6 => {
                    let most = [20, 2_000, 400_000, 3 * HOUR as u64][roll(4) as usize];
                    let sent = after(&mut world, &n.to_string(), roll(most) as i64 + 1);
                    // A tick may meet what is staged and not yet written.
                    if roll(2) == 0 {
                        world.settle();
                    }
                    model.insert((sent.due.unwrap(), n));
                }
                6..9 => {
                    let span = [10, 1_000, 300_000, HOUR as u64][roll(4) as usize];
                    world.settle();
                    let time = world.now.plus_ms(roll(span) as i64);
                    at(&mut world, time);
                    while let Some((due, n)) = model.first().copied().filter(|(due, _)| *due <= time) {
                        model.remove(&(due, n));
                        expected.push(n);
                    }
                }
                _ => {
                    world.settle();
                    world = world.crash();
                }
            }
        }
        let end = world.now.plus_ms(4 * HOUR);
        world.settle();
        at(&mut world, end);
        expected.extend(model.iter().map(|(_, n)| *n));
        let got: Vec<u64> = world.bodies("t", 0).iter().map(|body| body.parse().unwrap()).collect();
        assert_eq!(got, expected, "seed {seed}");
    }
}
