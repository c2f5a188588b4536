//! Delayed messages: never early, in order, once.
#![allow(clippy::unwrap_used, reason = "a test may stop where it fails")]

mod kit;

use kit::{World, field, message, send_to, topic};
use sluice_broker::LEVELS_MS;

fn delayed(body: &str, level: &str) -> sluice_broker::Send {
    send_to(0, vec![message("t", body, &[("DELAY", level)])])
}

#[test]
fn each_level_delivers_at_its_time_and_not_before() {
    let mut world = World::new();
    world.make("t", 1);
    let sent_at = world.now;
    for level in 1..=LEVELS_MS.len() {
        world.send(delayed(&format!("{level}"), &format!("{level}")));
    }
    for (index, delay) in LEVELS_MS.iter().enumerate() {
        world.now = sent_at.plus_ms(delay - 1);
        world.deliver();
        assert_eq!(world.all("t", 0).len(), index, "level {} a millisecond early", index + 1);
        world.now = sent_at.plus_ms(*delay);
        world.deliver();
        let got = world.all("t", 0);
        assert_eq!(got.len(), index + 1);
        let last = got.last().unwrap();
        assert_eq!(last.body, format!("{}", index + 1));
        assert_eq!((last.property("DELAY"), last.property("REAL_TOPIC")), (None, None));
    }
}

#[test]
fn a_level_keeps_its_order_and_a_crash_repeats_nothing() {
    let mut world = World::tiny();
    world.make("t", 1);
    for n in 0..60 {
        world.send(delayed(&format!("{n}"), "1"));
        world.now = world.now.plus_ms(10);
    }
    let bodies = |to: usize| (0..to).map(|n| format!("{n}")).collect::<Vec<_>>();
    world.now = world.now.plus_ms(400);
    world.deliver();
    assert_eq!(world.bodies("t", 0), bodies(1), "only the first is due");
    world = world.crash();
    world.now = world.now.plus_ms(10_000);
    world.deliver();
    world.deliver();
    let mut world = world.crash();
    world.deliver();
    assert_eq!(world.bodies("t", 0), bodies(60));
}

#[test]
fn a_level_is_a_number_and_the_highest_is_the_last() {
    let mut world = World::new();
    world.make("t", 1);
    assert_eq!(field(&world.try_send(delayed("x", "soon")).unwrap_err()), "DELAY");
    world.send(delayed("now", "0"));
    assert_eq!(world.bodies("t", 0), ["now"]);
    world.send(delayed("late", "99"));
    world.now = world.now.plus_ms(LEVELS_MS[17]);
    world.deliver();
    assert_eq!(world.bodies("t", 0), ["now", "late"]);
}

#[test]
fn a_topic_deleted_meanwhile_takes_its_delayed_messages_along() {
    let mut world = World::new();
    world.make("t", 1);
    world.make("u", 1);
    world.send(delayed("x", "1"));
    world.send(send_to(0, vec![message("u", "y", &[("DELAY", "1")])]));
    let now = world.now;
    world.broker().delete_topic(&topic("t"), now).unwrap();
    world.settle();
    world.now = world.now.plus_ms(1_000);
    world.deliver();
    assert_eq!(world.bodies("u", 0), ["y"]);
    world.make("t", 1);
    world.deliver();
    assert!(world.all("t", 0).is_empty());
}

#[test]
fn a_message_for_a_queue_that_is_gone_meanwhile_comes_in_another() {
    let mut world = World::new();
    world.make("t", 4);
    world.send(send_to(3, vec![message("t", "x", &[("DELAY", "1")])]));
    world.make("t", 2);
    world.now = world.now.plus_ms(1_000);
    world.deliver();
    assert_eq!(world.bodies("t", 1), ["x"]);
}
