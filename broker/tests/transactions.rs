//! Half messages: unseen until committed, decided once, asked about until somebody decides.
#![allow(clippy::unwrap_used, reason = "a test may stop where it fails")]

mod kit;

use kit::{World, field, group, message, send_to, topic};
use sluice_broker::{Config, Decider, Durability, Effect, Half, HalfCheck, Sent, StoreConfig, Topic, Verdict};
use sluice_model::{Kind, LogOffset, QueueOffset, Transaction};

fn half(body: &str, pairs: &[(&str, &str)]) -> sluice_broker::Send {
    let pairs: Vec<(&str, &str)> = [("PGROUP", "p"), ("TRAN_MSG", "true")].iter().chain(pairs).copied().collect();
    let mut half = message("t", body, &pairs);
    half.sys_flag = half.sys_flag.with_transaction(Transaction::Prepared);
    send_to(0, vec![half])
}

fn world() -> World {
    let config = Config { transaction_checks: 3, durability: Durability::Async, ..Config::default() };
    let mut world = World::with(config, StoreConfig { segment_len: 1 << 20, reserve_bytes: 0, ..Default::default() });
    world.make("t", 1);
    world
}

fn decide(world: &mut World, sent: &Sent, verdict: Verdict) -> Result<(), sluice_broker::Error> {
    decide_named(world, sent, &[], verdict)
}

fn decide_named(world: &mut World, sent: &Sent, named: &[&str], verdict: Verdict) -> Result<(), sluice_broker::Error> {
    let (now, at) = (world.now, sent.ids[0].log_offset);
    world.broker().decide(&group("p"), sent.queue_offset, at, named, (verdict, Decider::Producer), now)
}

/// What is to be asked now.
fn offered(world: &mut World) -> Vec<HalfCheck> {
    let now = world.now;
    world.broker().check_halves(now).unwrap();
    let effects = world.settle().into_iter();
    effects.filter_map(|effect| if let Effect::CheckHalf(check) = effect { Some(check) } else { None }).collect()
}

/// The same, and somebody is asked about each.
fn checks(world: &mut World) -> Vec<HalfCheck> {
    let (offered, now) = (offered(world), world.now);
    offered.iter().for_each(|check| world.broker().asked(&check.half, None, now).unwrap());
    world.settle();
    offered
}

#[test]
fn a_half_message_is_seen_once_when_committed() {
    let mut world = world();
    let sent = world.send(half("x", &[]));
    assert!(world.all("t", 0).is_empty());
    decide(&mut world, &sent, Verdict::Commit).unwrap();
    assert_eq!(decide(&mut world, &sent, Verdict::Commit).unwrap_err().kind(), Kind::NotFound);
    assert_eq!(decide(&mut world, &sent, Verdict::Rollback).unwrap_err().kind(), Kind::NotFound);
    world.settle();
    let world = world.crash();
    let got = world.all("t", 0);
    assert_eq!(got.len(), 1);
    assert_eq!((got[0].body.as_str(), got[0].property("REAL_TOPIC"), got[0].property("TRAN_MSG")), ("x", None, None));
    assert_eq!(world.opened.reader.halves(QueueOffset(0), 9), []);
}

#[test]
fn a_half_message_that_does_not_wait_for_the_disk_may_be_decided_before_it_is_there() {
    let mut world = world();
    let now = world.now;
    world.broker().put_topic(Topic { durability: Some(Durability::Async), ..Topic::new(topic("t"), 1) }, now).unwrap();
    for verdict in [Verdict::Commit, Verdict::Rollback] {
        // Nothing is written, and nobody can read it, until the world settles.
        let sent = world.broker().send(half("x", &[]), now).unwrap();
        assert_eq!(sent.durability, Durability::Async);
        decide(&mut world, &sent, verdict).unwrap();
        assert_eq!(decide(&mut world, &sent, verdict).unwrap_err().kind(), Kind::NotFound);
    }
    world.settle();
    let world = world.crash();
    let got = world.all("t", 0);
    assert_eq!(got.len(), 1);
    assert_eq!((got[0].body.as_str(), got[0].property("REAL_TOPIC"), got[0].property("TRAN_MSG")), ("x", None, None));
    assert_eq!(world.opened.reader.halves(QueueOffset(0), 9), []);
}

#[test]
fn a_half_message_rolled_back_is_never_seen() {
    let mut world = world();
    let sent = world.send(half("x", &[]));
    decide(&mut world, &sent, Verdict::Rollback).unwrap();
    world.settle();
    let mut world = world.crash();
    world.now = world.now.plus_ms(1_000_000);
    assert_eq!(checks(&mut world), []);
    assert!(world.all("t", 0).is_empty());
}

#[test]
fn a_decision_says_why_a_checker_made_it() {
    let mut world = world();
    let long = format!("no such\u{1} order: {}", "x".repeat(2_000));
    for reason in [Some(long.as_str()), None] {
        let (sent, now) = (world.send(half("x", &[])), world.now);
        let (at, by) = (sent.ids[0].log_offset, Decider::Checker(reason));
        world.broker().decide(&group("p"), sent.queue_offset, at, &[], (Verdict::Rollback, by), now).unwrap();
    }
    let sent = world.send(half("x", &[]));
    decide(&mut world, &sent, Verdict::Rollback).unwrap();
    world.settle();
    let (decided, _) = world.opened.reader.decisions(None, 9).unwrap();
    let said: Vec<_> = decided.iter().map(|of| (of.by.as_str(), of.reason.as_deref())).collect();
    assert_eq!(said[..2], [("producer", None), ("checker", None)]);
    let reason = said[2].1.unwrap();
    assert!(reason.starts_with("no such order: x") && reason.len() == 1024, "{reason}");
}

#[test]
fn only_its_own_group_at_its_own_place_decides() {
    let mut world = world();
    let sent = world.send(half("x", &[]));
    let (now, at) = (world.now, sent.ids[0].log_offset);
    for (name, at) in [("other", at), ("p", LogOffset(at.0 + 1))] {
        let decided =
            world.broker().decide(&group(name), sent.queue_offset, at, &[], (Verdict::Commit, Decider::Producer), now);
        assert_eq!(decided.unwrap_err().kind(), Kind::Conflict);
    }
    let decided =
        world.broker().decide(&group("p"), QueueOffset(77), at, &[], (Verdict::Commit, Decider::Producer), now);
    assert_eq!(decided.unwrap_err().kind(), Kind::NotFound);
}

#[test]
fn a_decision_about_a_lost_one_does_not_hit_the_one_at_its_place() {
    for (lost, kept) in [
        ("7F00000100002A139A570A1B2C3D0001", "7F00000100002A139A570A1B2C3D0002"),
        ("01AABBCCDDEEFF00112233445566778801", "01AABBCCDDEEFF00112233445566778802"),
    ] {
        let mut world = world();
        // Acknowledged, but not on the disk when the power goes.
        let before = world.try_send(half("lost", &[("UNIQ_KEY", lost)])).unwrap();
        let mut world = world.crash();
        let after = world.try_send(half("kept", &[("UNIQ_KEY", kept), ("__transactionId__", "t-1")])).unwrap();
        assert_eq!((before.queue_offset, &before.ids), (after.queue_offset, &after.ids));
        for named in [&[lost, lost][..], &[lost], &["", lost], &["t-0", lost]] {
            for verdict in [Verdict::Commit, Verdict::Rollback] {
                let decided = decide_named(&mut world, &before, named, verdict);
                assert_eq!(decided.unwrap_err().kind(), Kind::NotFound, "{named:?}");
            }
        }
        decide_named(&mut world, &after, &[kept, kept], Verdict::Commit).unwrap();
        world.settle();
        assert_eq!(world.bodies("t", 0), ["kept"]);
    }
}

#[test]
fn an_id_that_does_not_certainly_name_another_is_taken() {
    let (unique, of_transaction) = ("7F00000100002A139A570A1B2C3D0002", "7F00000100002A139A570A1B2C3D0003");
    let mut world = world();
    for named in [
        &[][..],
        &["", unique],
        &["7F00000100002A139A570A1B2C3D0001", unique],
        &[of_transaction, of_transaction],
        &["PLACE"],
        &["my-transaction", ""],
    ] {
        let sent = world.send(half("x", &[("UNIQ_KEY", unique), ("__transactionId__", of_transaction)]));
        let place = sent.ids[0].to_string();
        let named: Vec<&str> = named.iter().map(|id| if *id == "PLACE" { place.as_str() } else { *id }).collect();
        decide_named(&mut world, &sent, &named, Verdict::Commit).unwrap();
    }
}

#[test]
fn an_undecided_one_is_asked_about_until_it_is_given_up() {
    let mut world = world();
    world.send(half("x", &[]));
    world.now = world.now.plus_ms(5_999);
    assert_eq!(checks(&mut world), []);
    world.now = world.now.plus_ms(1);
    for before in 0..3 {
        let asked = checks(&mut world);
        assert_eq!(asked.len(), 1);
        assert_eq!(asked[0].half.checks, before);
        let message = asked[0].message().unwrap();
        assert_eq!((message.topic.as_str(), &message.body[..]), ("t", &b"x"[..]));
        assert_eq!(checks(&mut world), [], "not again before its time");
        world = world.crash();
        world.now = world.now.plus_ms(30_000);
    }
    assert_eq!(checks(&mut world), []);
    assert_eq!(world.bodies("TRANS_CHECK_MAX_TIME_TOPIC", 0), ["x"]);
    assert!(world.all("t", 0).is_empty());
    let world = world.crash();
    assert_eq!(world.opened.reader.halves(QueueOffset(0), 9), []);
}

#[test]
fn a_checker_that_asks_for_more_time_is_asked_when_it_is_over() {
    let mut world = world();
    world.send(half("x", &[]));
    world.now = world.now.plus_ms(6_000);
    let asked = offered(&mut world).remove(0);
    let (now, due) = (world.now, world.now.plus_ms(100_000));
    world.broker().asked(&asked.half, Some(due), now).unwrap();
    world.settle();
    let mut world = world.crash();
    world.now = due.plus_ms(-1);
    assert_eq!(offered(&mut world), []);
    world.now = due;
    assert_eq!(offered(&mut world)[0].half.checks, 1);
}

#[test]
fn one_that_nobody_is_asked_about_is_offered_again_and_uses_up_no_question() {
    let mut world = world();
    world.send(half("x", &[]));
    world.now = world.now.plus_ms(6_000);
    let mut times = 0;
    // Twice as long as all questions would have taken, and then for days with a start in between.
    for turn in 0..200 {
        for check in offered(&mut world) {
            assert_eq!(check.half.checks, 0);
            times += 1;
            assert_eq!(offered(&mut world), [], "not again at once");
        }
        world.now = world.now.plus_ms(if turn < 18 { 10_000 } else { 300_000 });
    }
    assert!((100..200).contains(&times), "{times} times");
    let mut world = world.crash();
    assert_eq!(world.opened.reader.halves(QueueOffset(0), 9)[0].checks, 0);
    world.now = world.now.plus_ms(72 * 3_600_000);
    assert_eq!(checks(&mut world).len(), 1, "the first look after a start is no reason to give it up");
    assert_eq!(world.opened.reader.halves(QueueOffset(0), 9)[0].checks, 1);
}

#[test]
fn one_that_nobody_can_be_asked_about_for_days_is_given_up() {
    let mut world = world();
    world.send(half("x", &[]));
    let asked = world.opened.reader.half(QueueOffset(0)).unwrap();
    world.now = world.now.plus_ms(6_000 + 72 * 3_600_000);
    for _ in 0..3 {
        assert_eq!(offered(&mut world).len(), 1);
        world.now = world.now.plus_ms(30_000);
    }
    assert_eq!(offered(&mut world), []);
    assert_eq!(world.bodies("TRANS_CHECK_MAX_TIME_TOPIC", 0), ["x"]);
    let now = world.now;
    assert_eq!(world.broker().asked(&asked, None, now).unwrap_err().kind(), Kind::NotFound);
}

#[test]
fn a_question_about_one_that_is_gone_does_not_count_for_the_one_at_its_place() {
    let mut world = world();
    world.send(half("x", &[]));
    let there = world.opened.reader.half(QueueOffset(0)).unwrap();
    let now = world.now;
    let other = Half { at: LogOffset(there.at.0 + 1), ..there };
    assert_eq!(world.broker().asked(&other, None, now).unwrap_err().kind(), Kind::Conflict);
    world.settle();
    assert_eq!(world.opened.reader.half(QueueOffset(0)).unwrap().checks, 0);
}

#[test]
fn one_that_is_not_on_the_disk_yet_holds_up_no_other() {
    let mut world = world();
    world.send(half("old", &[]));
    world.now = world.now.plus_ms(6_000);
    world.try_send(half("new", &[("CHECK_IMMUNITY_TIME_IN_SECONDS", "-100")])).unwrap();
    let bodies = |asked: Vec<HalfCheck>| asked.iter().map(|check| check.message().unwrap().body).collect::<Vec<_>>();
    assert_eq!(bodies(checks(&mut world)), [&b"old"[..]]);
    assert_eq!(bodies(checks(&mut world)), [&b"new"[..]]);
}

#[test]
fn a_half_message_names_its_group_and_comes_alone() {
    let mut world = world();
    let mut nameless = half("x", &[]);
    nameless.messages[0].properties = Default::default();
    assert_eq!(field(&world.try_send(nameless).unwrap_err()), "PGROUP");
    let mut two = half("x", &[]);
    two.messages.push(two.messages[0].clone());
    assert_eq!(field(&world.try_send(two).unwrap_err()), "properties");
}

#[test]
fn every_decision_can_be_looked_up_page_by_page() {
    let mut world = world();
    let mut expected = Vec::new();
    for n in 0..30 {
        let sent = world.send(half(&format!("{n}"), &[]));
        // Questions stand between the decisions.
        world.now = world.now.plus_ms(100_000);
        checks(&mut world);
        let verdict = if n % 2 == 0 { Verdict::Commit } else { Verdict::Rollback };
        decide(&mut world, &sent, verdict).unwrap();
        world.settle();
        expected.push((sent.unique_key, if n % 2 == 0 { "commit" } else { "rollback" }));
    }
    let forgotten = world.send(half("forgotten", &[]));
    for _ in 0..4 {
        world.now = world.now.plus_ms(100_000);
        checks(&mut world);
    }
    expected.push((forgotten.unique_key, "expired"));
    let world = world.crash();
    let (mut found, mut before) = (Vec::new(), None);
    loop {
        let (page, next) = world.opened.reader.decisions(before, 7).unwrap();
        assert!(page.len() <= 7);
        found.extend(page);
        before = next;
        if next.is_none() {
            break;
        }
    }
    found.reverse();
    let told: Vec<_> = found.iter().map(|of| (of.unique_key.clone(), of.verdict.as_str())).collect();
    assert_eq!(told, expected);
    assert_eq!((found[0].by.as_str(), found[0].group.as_str(), found[0].topic.as_str()), ("producer", "p", "t"));
    assert_eq!(found[30].by, "broker");
}
