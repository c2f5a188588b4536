//! Messages handed back: again after a delay, and among the dead letters in the end.
#![allow(clippy::unwrap_used, reason = "a test may stop where it fails")]

mod kit;

use kit::{Got, World, group, message, topic};
use sluice_broker::{Back, Group, Send};
use sluice_model::{Kind, LogOffset};

const RETRY: &str = "%RETRY%g";
const DEAD: &str = "%DLQ%g";

fn back(world: &mut World, got: &Got, delay_level: i32, most: Option<u32>) {
    let now = world.now;
    let back = Back { group: group("g"), at: got.at, delay_level, max_reconsume_times: most };
    world.broker().send_back(back, now).unwrap();
    world.settle();
}

fn world() -> (World, Got) {
    let mut world = World::new();
    world.make("t", 1);
    let now = world.now;
    world.broker().put_group(Group { retries: 2, ..Group::new(group("g")) }, now).unwrap();
    world.say("t", "x");
    let got = world.all("t", 0).remove(0);
    (world, got)
}

#[test]
fn each_failure_waits_longer_and_the_last_goes_to_the_dead_letters() {
    let (mut world, mut got) = world();
    let origin = world.opened.reader.config().advertised;
    let origin = sluice_model::MessageId { broker: origin, log_offset: got.at }.to_string();
    for (failures, delay) in [(0, 10_000), (1, 30_000)] {
        back(&mut world, &got, 0, None);
        world.now = world.now.plus_ms(delay - 1);
        world.deliver();
        assert_eq!(world.all(RETRY, 0).len(), failures, "not before its time");
        world.now = world.now.plus_ms(1);
        world.deliver();
        world = world.crash();
        assert_eq!(world.all(RETRY, 0).len(), failures + 1);
        got = world.all(RETRY, 0).remove(failures);
        assert_eq!((got.body.as_str(), got.reconsume_times), ("x", failures as i32 + 1));
        assert_eq!(got.property("RETRY_TOPIC"), Some("t"));
        assert_eq!(got.property("ORIGIN_MESSAGE_ID"), Some(origin.as_str()));
    }
    back(&mut world, &got, 0, None);
    let world = world.crash();
    let dead = world.all(DEAD, 0);
    assert_eq!(dead.len(), 1);
    assert_eq!((dead[0].body.as_str(), dead[0].property("DLQ_ORIGIN_TOPIC")), ("x", Some("t")));
    assert_eq!(dead[0].property("DLQ_ORIGIN_MESSAGE_ID"), Some(origin.as_str()));
}

#[test]
fn a_client_chooses_the_delay_and_the_limit() {
    let (mut world, got) = world();
    back(&mut world, &got, 1, None);
    world.now = world.now.plus_ms(1_000);
    world.deliver();
    assert_eq!(world.bodies(RETRY, 0), ["x"]);
    back(&mut world, &got, -1, None);
    assert_eq!(world.bodies(DEAD, 0), ["x"]);
    back(&mut world, &got, 0, Some(0));
    assert_eq!(world.bodies(DEAD, 0), ["x", "x"]);
}

#[test]
fn a_client_may_send_to_the_retry_topic_itself_until_the_limit() {
    let (mut world, _) = world();
    for (times, most) in [(1, None), (2, None), (1, Some(1))] {
        let mut failed = message(RETRY, &format!("{times} {most:?}"), &[("DELAY", "1")]);
        failed.reconsume_times = times;
        world.send(Send { messages: vec![failed], queue: None, template: None, max_reconsume_times: most });
    }
    assert_eq!(world.bodies(DEAD, 0), ["2 None", "1 Some(1)"], "at once");
    assert!(world.all(RETRY, 0).is_empty());
    world.now = world.now.plus_ms(1_000);
    world.deliver();
    assert_eq!(world.bodies(RETRY, 0), ["1 None"]);
}

#[test]
fn a_retry_topic_that_somebody_deleted_is_made_again() {
    let (mut world, got) = world();
    let now = world.now;
    world.broker().delete_topic(&topic(RETRY), now).unwrap();
    world.settle();
    back(&mut world, &got, 1, None);
    world.now = world.now.plus_ms(1_000);
    world.deliver();
    assert_eq!(world.bodies(RETRY, 0), ["x"]);
    assert_eq!(world.opened.reader.group(&group("g")).retries, 2, "the group's settings stay");
}

#[test]
fn only_what_is_there_can_be_handed_back() {
    let (mut world, got) = world();
    let now = world.now;
    let back = Back { group: group("g"), at: LogOffset(got.at.0 + 1), delay_level: 0, max_reconsume_times: None };
    assert_eq!(world.broker().send_back(back, now).unwrap_err().kind(), Kind::NotFound);
}
