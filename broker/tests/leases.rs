//! Popped messages: hidden for a while, gone when acknowledged, again when not; no crash changes that.
#![allow(clippy::unwrap_used, reason = "a test may stop where it fails")]

mod kit;

use std::collections::BTreeSet;

use kit::{Got, World, field, group, message, send_to, topic};
use sluice_broker::{
    Ahead, Effect, FetchStatus, Fetched, Filter, Group, Leased, Pop, Popped, Retention, Seen, Token, Wait,
};
use sluice_model::{Kind, QueueId, QueueOffset, limits};
use sluice_storage::fake::Fate;

const RETRY: &str = "%RETRY%g_t";
const DEAD: &str = "%DLQ%g";
const HIDDEN: i64 = 10_000;

fn pop() -> Pop {
    Pop {
        group: group("g"),
        topic: topic("t"),
        queue: None,
        max_messages: 32,
        invisible_ms: HIDDEN,
        filter: Filter::All,
        from_start: true,
        order: false,
    }
}

fn world(queues: u32, bodies: &[&str]) -> World {
    let mut world = World::new();
    world.make("t", queues);
    let now = world.now;
    world.broker().put_group(Group { retries: 2, ..Group::new(group("g")) }, now).unwrap();
    world.settle();
    for (n, body) in bodies.iter().enumerate() {
        world.send(send_to(n as u32 % queues, vec![message("t", body, &[("TAGS", body)])]));
    }
    world
}

fn take(world: &mut World, pop: &Pop) -> Popped {
    let now = world.now;
    let popped = world.broker().pop(pop, now).unwrap();
    world.settle();
    popped
}

/// The messages of a pop, with what it says about them.
fn read(popped: &Popped) -> Vec<Got> {
    let count = popped.queues.iter().map(|queue| queue.offsets.len()).sum::<usize>();
    let end = QueueOffset(0);
    let records = popped.records.clone();
    let got = kit::parse(&Fetched {
        status: FetchStatus::Found,
        next: end,
        min: end,
        max: end,
        records,
        count: count as u32,
    });
    let offsets: Vec<u64> = popped.queues.iter().flat_map(|queue| queue.offsets.iter().map(|at| at.0)).collect();
    assert_eq!(got.iter().map(|got| got.offset).collect::<Vec<_>>(), offsets, "records and offsets agree");
    got
}

fn bodies(popped: &Popped) -> Vec<String> {
    read(popped).into_iter().map(|got| got.body).collect()
}

fn leased(popped: &Popped) -> Vec<Leased> {
    let of = |queue: &sluice_broker::PoppedQueue| Leased {
        group: group("g"),
        topic: topic(if queue.retry { RETRY } else { "t" }),
        queue: queue.queue,
        offsets: queue.offsets.clone(),
        taken_at: popped.taken_at,
    };
    popped.queues.iter().map(of).collect()
}

fn ack(world: &mut World, leased: &[Leased]) -> usize {
    let now = world.now;
    let count = world.broker().ack(leased, now).unwrap();
    world.settle();
    count
}

/// Brings back what is due until nothing is.
fn revive(world: &mut World) {
    let now = world.now;
    loop {
        let more = world.broker().revive(now).unwrap();
        world.settle();
        if !more {
            return;
        }
    }
}

fn later(world: &mut World, ms: i64) {
    world.now = world.now.plus_ms(ms);
    revive(world);
}

#[test]
fn a_popped_message_is_hidden_and_an_acknowledged_one_is_gone() {
    let mut world = world(1, &["a", "b", "c"]);
    let first = take(&mut world, &Pop { max_messages: 2, ..pop() });
    assert_eq!((bodies(&first), first.rest), (vec!["a".to_owned(), "b".to_owned()], 1));
    assert_eq!(first.queues[0].start, QueueOffset(0));
    let second = take(&mut world, &pop());
    assert_eq!(bodies(&second), ["c"]);
    assert!(take(&mut world, &pop()).queues.is_empty());
    assert_eq!(ack(&mut world, &leased(&first)), 2);
    assert_eq!(ack(&mut world, &leased(&first)), 0, "acknowledged already");
    assert_eq!(ack(&mut world, &leased(&second)), 1);
    let mut world = world.crash();
    later(&mut world, 10 * HIDDEN);
    assert!(take(&mut world, &pop()).queues.is_empty());
    assert_eq!(world.opened.reader.leased(), 0);
}

#[test]
fn what_is_not_acknowledged_in_time_comes_again_as_a_retry() {
    let mut world = world(1, &["a", "b"]);
    let first = take(&mut world, &pop());
    let acked = Leased { offsets: vec![QueueOffset(0)], ..leased(&first).remove(0) };
    assert_eq!(ack(&mut world, &[acked]), 1);
    later(&mut world, HIDDEN - 1);
    assert!(take(&mut world, &pop()).queues.is_empty(), "not before its time");
    later(&mut world, 1);
    assert_eq!(ack(&mut world, &leased(&first)), 0, "too late: it is on its way");
    let again = take(&mut world, &pop());
    let got = read(&again);
    assert_eq!((again.queues.len(), again.queues[0].retry), (1, true));
    assert_eq!((got[0].body.as_str(), got[0].reconsume_times), ("b", 1));
    assert_eq!(got[0].property("1ST_POP_TIME"), Some(first.taken_at.to_string().as_str()));
    assert_eq!((got[0].property("RETRY_TOPIC"), got[0].property("TAGS")), (Some("t"), Some("b")));
    assert_eq!(ack(&mut world, &leased(&again)), 1);
    later(&mut world, 10 * HIDDEN);
    assert!(take(&mut world, &pop()).queues.is_empty());
}

#[test]
fn the_last_failure_goes_to_the_dead_letters() {
    let mut world = world(1, &["a"]);
    for failures in 0..=2 {
        let popped = take(&mut world, &pop());
        assert_eq!(read(&popped)[0].reconsume_times, failures);
        assert_eq!(popped.queues[0].retry, failures > 0);
        later(&mut world, HIDDEN);
    }
    let mut world = world.crash();
    later(&mut world, 10 * HIDDEN);
    assert!(take(&mut world, &pop()).queues.is_empty());
    let dead = world.all(DEAD, 0);
    assert_eq!(dead.len(), 1);
    assert_eq!((dead[0].body.as_str(), dead[0].property("DLQ_ORIGIN_TOPIC")), ("a", Some("t")));
    assert_eq!(dead[0].property("TAGS"), Some("a"));
}

#[test]
fn a_message_may_be_kept_longer_or_given_back_at_once() {
    let mut world = world(1, &["a", "b"]);
    let popped = take(&mut world, &pop());
    let handle = |offset: u64| Leased { offsets: vec![QueueOffset(offset)], ..leased(&popped).remove(0) };
    later(&mut world, 5_000);
    let now = world.now;
    assert_eq!(world.broker().keep(&handle(0), 20_000, now).unwrap(), 1);
    assert_eq!(world.broker().keep(&handle(1), 0, now).unwrap(), 1);
    assert_eq!(world.broker().keep(&handle(1), 0, now).unwrap(), 0, "the old handle is good no more");
    world.settle();
    let mut world = world.crash();
    revive(&mut world);
    let back = take(&mut world, &pop());
    assert_eq!(bodies(&back), ["b"]);
    assert_eq!(ack(&mut world, &leased(&back)), 1);
    later(&mut world, 19_999);
    assert!(take(&mut world, &pop()).queues.is_empty());
    assert_eq!(ack(&mut world, &[handle(0)]), 0);
    assert_eq!(ack(&mut world, &[Leased { taken_at: now, ..handle(0) }]), 1);
    later(&mut world, HIDDEN);
    assert!(take(&mut world, &pop()).queues.is_empty());
}

#[test]
fn all_queues_are_popped_and_one_when_asked_for() {
    let mut world = world(4, &["a", "b", "c", "d", "e", "f", "g", "h"]);
    let one = take(&mut world, &Pop { queue: Some(QueueId(2)), ..pop() });
    assert_eq!(bodies(&one), ["c", "g"]);
    let mut seen = BTreeSet::new();
    for _ in 0..2 {
        let popped = take(&mut world, &Pop { max_messages: 3, ..pop() });
        assert_eq!(popped.queues.iter().map(|queue| queue.offsets.len()).sum::<usize>(), 3);
        seen.extend(bodies(&popped));
    }
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), ["a", "b", "d", "e", "f", "h"]);
}

#[test]
fn what_does_not_match_counts_as_consumed() {
    let mut world = world(1, &["a", "b", "a", "b"]);
    let only = Pop { filter: Filter::parse("b").unwrap(), ..pop() };
    let popped = take(&mut world, &only);
    assert_eq!(popped.queues[0].offsets, [QueueOffset(1), QueueOffset(3)]);
    assert_eq!(popped.queues[0].start, QueueOffset(1));
    assert!(take(&mut world, &pop()).queues.is_empty());
    later(&mut world, HIDDEN);
    assert_eq!(bodies(&take(&mut world, &only)), ["b", "b"]);
}

/// Pops what `keep` picks of what a pop of four would find.
fn take_seen(world: &mut World, keep: impl Fn(u64) -> bool) -> Popped {
    let (pop, now) = (Pop { max_messages: 4, ..pop() }, world.now);
    let ahead = world.broker().reader().look_ahead(&pop, 0).unwrap();
    let seen = ahead.into_iter().map(|Ahead { queue, from, found }| Seen {
        queue,
        from,
        next: found.next,
        kept: (from.0..found.next.0).filter(|at| keep(*at)).map(QueueOffset).collect(),
    });
    let seen: Vec<Seen> = seen.collect();
    let popped = world.broker().pop_seen(&pop, Some(&seen), now).unwrap();
    world.settle();
    popped
}

#[test]
fn only_what_was_seen_and_kept_is_leased_and_the_rest_of_it_counts_as_consumed() {
    let mut world = world(1, &["a", "b", "c", "d", "e", "f"]);
    let popped = take_seen(&mut world, |at| at % 2 == 1);
    assert_eq!((bodies(&popped), popped.rest), (vec!["b".to_owned(), "d".to_owned()], 2));
    assert_eq!(world.broker().reader().leased(), 2);
    let none = take_seen(&mut world, |_| false);
    assert!(none.queues.is_empty() && !none.more);
    assert!(take(&mut world, &pop()).queues.is_empty(), "all of them were passed over");
    // What comes again was kept before, and is taken without another look.
    later(&mut world, HIDDEN);
    let now = world.now;
    let again = world.broker().pop_seen(&pop(), Some(&[]), now).unwrap();
    world.settle();
    assert_eq!(bodies(&again), ["b", "d"]);
    assert!(again.queues.iter().all(|queue| queue.retry));
}

#[test]
fn what_was_not_seen_is_left_where_it_is() {
    let mut world = world(2, &["a", "b", "c", "d"]);
    let now = world.now;
    let seen = |queue, from, next| Seen {
        queue: QueueId(queue),
        from: QueueOffset(from),
        next: QueueOffset(next),
        kept: (from..next).map(QueueOffset).collect(),
    };
    // Another pop was faster, the group was moved back, or the queue was not looked into.
    for stale in [vec![], vec![seen(0, 1, 2)], vec![seen(7, 0, 9)]] {
        let popped = world.broker().pop_seen(&pop(), Some(&stale), now).unwrap();
        world.settle();
        assert!(popped.queues.is_empty());
    }
    let popped = world.broker().pop_seen(&pop(), Some(&[seen(1, 0, 1)]), now).unwrap();
    world.settle();
    assert_eq!(bodies(&popped), ["b"]);
    let mut left = bodies(&take(&mut world, &pop()));
    left.sort();
    assert_eq!(left, ["a", "c", "d"]);
}

#[test]
fn a_look_ahead_ends_when_there_is_enough_and_begins_elsewhere_each_time() {
    let mut world = world(3, &["a", "b", "c", "d", "e", "f"]);
    let look = |world: &mut World, most, turn| {
        let pop = Pop { max_messages: most, ..pop() };
        let ahead = world.broker().reader().look_ahead(&pop, turn).unwrap();
        ahead.iter().map(|of| (of.queue.0, of.found.count)).collect::<Vec<_>>()
    };
    assert_eq!(look(&mut world, 2, 0), [(0, 2)]);
    assert_eq!(look(&mut world, 3, 1), [(1, 2), (2, 2)]);
    assert_eq!(look(&mut world, 32, 5), [(2, 2), (0, 2), (1, 2)]);
}

#[test]
fn a_crash_at_any_point_loses_no_message_and_takes_no_acknowledgement_back() {
    for fate in [Fate::Dropped, Fate::Kept] {
        let mut world = world(2, &["a", "b", "c", "d"]);
        let popped = take(&mut world, &Pop { max_messages: 3, ..pop() });
        let handles = leased(&popped);
        assert_eq!(ack(&mut world, &handles[..1]), handles[0].offsets.len());
        let acked: BTreeSet<String> = bodies(&popped).into_iter().take(handles[0].offsets.len()).collect();
        // The lease of the fourth is staged and never written.
        let now = world.now;
        assert_eq!(world.broker().pop(&pop(), now).unwrap().queues.len(), 1);
        world = world.crash_with(fate);
        later(&mut world, HIDDEN);
        world = world.crash_with(fate);
        let mut left: BTreeSet<String> = bodies(&take(&mut world, &pop())).into_iter().collect();
        left.extend(acked.iter().cloned());
        assert_eq!(left.into_iter().collect::<Vec<_>>(), ["a", "b", "c", "d"]);
        later(&mut world, HIDDEN);
        let again = bodies(&take(&mut world, &pop()));
        assert!(again.iter().all(|body| !acked.contains(body)), "{again:?}");
        assert_eq!(again.len() + acked.len(), 4, "each once: {again:?}");
    }
}

#[test]
fn a_message_without_room_for_notes_comes_again_without_them() {
    let mut world = world(1, &[]);
    let full = "p".repeat(limits::PROPERTIES_LEN - 60);
    world.send(send_to(0, vec![message("t", "a", &[("UNIQ_KEY", "u"), ("P", &full)])]));
    for failures in 0..=2 {
        let popped = take(&mut world, &pop());
        assert_eq!(read(&popped)[0].reconsume_times, failures);
        later(&mut world, HIDDEN);
    }
    assert_eq!(world.bodies(DEAD, 0), ["a"]);
}

#[test]
fn a_revival_that_was_not_written_is_done_again() {
    let mut world = world(1, &["a"]);
    take(&mut world, &pop());
    world.now = world.now.plus_ms(HIDDEN);
    let now = world.now;
    assert!(!world.broker().revive(now).unwrap());
    let mut world = world.crash();
    revive(&mut world);
    assert_eq!(world.bodies(RETRY, 0), ["a"]);
    let mut world = world.crash();
    later(&mut world, HIDDEN);
    assert_eq!(world.bodies(RETRY, 0), ["a"], "once");
}

#[test]
fn a_checkpoint_keeps_leases_and_many_revivals_fit_small_segments() {
    let mut world = World::tiny();
    world.make("t", 1);
    let body = "x".repeat(300);
    for n in 0..40 {
        world.say("t", &format!("{n}-{body}"));
    }
    let mut taken = 0;
    while taken < 40 {
        taken += read(&take(&mut world, &Pop { max_messages: 7, ..pop() })).len();
        world.checkpoint().unwrap();
    }
    let mut world = world.crash();
    assert_eq!(world.opened.reader.leased(), 40);
    later(&mut world, HIDDEN);
    assert_eq!((world.all(RETRY, 0).len(), world.opened.reader.leased()), (40, 0));
}

#[test]
fn a_new_group_begins_where_it_says() {
    let mut world = world(1, &["a"]);
    let late = Pop { from_start: false, ..pop() };
    assert_eq!(bodies(&take(&mut world, &late)), ["a"], "the queue is young");
    let other = Pop { group: group("h"), ..pop() };
    assert_eq!(take(&mut world, &other).queues.len(), 1, "groups are apart");
}

#[test]
fn a_group_that_begins_at_the_end_keeps_its_place_there() {
    let mut world = World::tiny();
    world.make("t", 1);
    for _ in 0..2 {
        for _ in 0..20 {
            world.say("t", &"x".repeat(400));
        }
        world.checkpoint().unwrap();
    }
    let (now, small) = (world.now, Retention { max_age_ms: None, max_bytes: Some(4_096) });
    world.opened.applier.retain(now, &small).unwrap();
    let reader = world.opened.reader.clone();
    assert!(reader.bounds(&topic("t"), QueueId(0)).0 > QueueOffset(0), "the queue is not young");
    let late = Pop { from_start: false, ..pop() };
    assert!(reader.can_pop(&late).unwrap());
    assert!(take(&mut world, &late).queues.is_empty());
    assert!(!reader.can_pop(&late).unwrap());
    world.say("t", "new");
    assert_eq!(bodies(&take(&mut world, &late)), ["new"]);
}

#[test]
fn who_waits_is_woken_by_a_message_and_by_a_retry() {
    let mut world = world(2, &["a"]);
    let reader = world.opened.reader.clone();
    assert_eq!(reader.wait_to_pop(&pop(), Token(1)), Wait::Ready);
    take(&mut world, &pop());
    assert_eq!(reader.wait_to_pop(&pop(), Token(2)), Wait::Waits);
    world.now = world.now.plus_ms(HIDDEN);
    let now = world.now;
    world.broker().revive(now).unwrap();
    assert!(world.settle().contains(&Effect::Wake(Token(2))));
    reader.stop_waiting_to_pop(&pop(), Token(2));
    take(&mut world, &pop());
    assert_eq!(reader.wait_to_pop(&pop(), Token(3)), Wait::Waits);
    world.try_send(send_to(1, vec![message("t", "b", &[])])).unwrap();
    assert_eq!(world.settle(), [Effect::Wake(Token(3))]);
}

/// Bodies with the failures that the pop tells.
fn in_order(popped: &Popped) -> Vec<(String, u32)> {
    let failures = popped.queues.iter().flat_map(|queue| {
        let of = |at: &QueueOffset| queue.failures.iter().find(|(offset, _)| offset == at).map_or(0, |failed| failed.1);
        queue.offsets.iter().map(of)
    });
    bodies(popped).into_iter().zip(failures).collect()
}

#[test]
fn in_order_nothing_passes_what_is_held_or_failed() {
    let mut world = world(1, &["a", "b", "c", "d"]);
    let ordered = Pop { order: true, max_messages: 3, ..pop() };
    let first = take(&mut world, &ordered);
    assert_eq!(bodies(&first), ["a", "b", "c"]);
    assert!(take(&mut world, &ordered).queues.is_empty(), "something of the queue is held");
    let one = |offset: u64| Leased { offsets: vec![QueueOffset(offset)], ..leased(&first).remove(0) };
    assert_eq!(ack(&mut world, &[one(1)]), 1);
    assert!(take(&mut world, &ordered).queues.is_empty());
    let reader = world.opened.reader.clone();
    assert_eq!(reader.wait_to_pop(&ordered, Token(1)), Wait::Waits);
    world.now = world.now.plus_ms(HIDDEN);
    let now = world.now;
    world.broker().revive(now).unwrap();
    assert!(world.settle().contains(&Effect::Wake(Token(1))), "the queue is free again");
    let mut world = world.crash();
    let again = take(&mut world, &ordered);
    let want = [("a".to_owned(), 1), ("c".to_owned(), 1), ("d".to_owned(), 0)];
    assert_eq!(in_order(&again), want, "what failed comes first, what was acknowledged not at all");
    assert_eq!(ack(&mut world, &leased(&again)), 3);
    let mut world = world.crash();
    later(&mut world, 10 * HIDDEN);
    assert!(take(&mut world, &ordered).queues.is_empty());
    assert!(!world.opened.reader.can_pop(&ordered).unwrap());
}

#[test]
fn the_last_acknowledgement_frees_a_queue_popped_in_order() {
    let mut world = world(1, &["a", "b"]);
    let ordered = Pop { order: true, max_messages: 1, ..pop() };
    let first = take(&mut world, &ordered);
    let reader = world.opened.reader.clone();
    assert_eq!(reader.wait_to_pop(&ordered, Token(1)), Wait::Waits);
    let now = world.now;
    world.broker().ack(&leased(&first), now).unwrap();
    assert!(world.settle().contains(&Effect::Wake(Token(1))));
    assert_eq!(bodies(&take(&mut world, &ordered)), ["b"]);
}

#[test]
fn a_message_that_always_fails_in_order_gives_way_in_the_end() {
    let mut world = world(1, &["a", "b"]);
    let ordered = Pop { order: true, max_messages: 1, ..pop() };
    for failures in 0..=2 {
        let popped = take(&mut world, &ordered);
        assert_eq!(in_order(&popped), [("a".to_owned(), failures)]);
        world.checkpoint().unwrap();
        world = world.crash();
        later(&mut world, HIDDEN);
    }
    assert_eq!(world.bodies(DEAD, 0), ["a"]);
    assert_eq!(bodies(&take(&mut world, &ordered)), ["b"]);
}

#[test]
fn what_is_deleted_takes_its_leases_along() {
    let mut world = world(1, &["a"]);
    take(&mut world, &pop());
    take(&mut world, &Pop { group: group("h"), ..pop() });
    let now = world.now;
    world.broker().delete_group(&group("g"), now).unwrap();
    assert_eq!(world.opened.reader.leased(), 1);
    world.broker().delete_topic(&topic("t"), now).unwrap();
    world.settle();
    assert_eq!(world.opened.reader.leased(), 0);
    later(&mut world, HIDDEN);
    assert_eq!(world.broker().pop(&pop(), now).unwrap_err().kind(), Kind::NotFound);
}

#[test]
fn what_came_again_is_deleted_with_its_group_and_with_its_topic() {
    let come_again = || {
        let mut world = world(1, &["a"]);
        world.make("u", 1);
        take(&mut world, &pop());
        later(&mut world, HIDDEN);
        assert!(world.opened.reader.topic(&topic(RETRY)).is_ok());
        world
    };
    let mut world = come_again();
    let now = world.now;
    world.broker().delete_group(&group("g"), now).unwrap();
    assert!(world.opened.reader.topic(&topic(RETRY)).is_err());
    let mut world = come_again();
    world.broker().delete_topic(&topic("u"), now).unwrap();
    assert!(world.opened.reader.topic(&topic(RETRY)).is_ok());
    world.broker().delete_topic(&topic("t"), now).unwrap();
    world.settle();
    let world = world.crash();
    assert!(world.opened.reader.topic(&topic(RETRY)).is_err());
    let mut world = come_again();
    world.broker().put_group(Group::new(group("g_t")), now).unwrap();
    world.broker().delete_group(&group("g"), now).unwrap();
    assert!(world.opened.reader.topic(&topic(RETRY)).is_ok(), "it is also the retry topic of group g_t");
}

#[test]
fn numbers_out_of_bounds_are_named() {
    let mut world = world(1, &["a"]);
    let now = world.now;
    let mut refused = |pop: Pop| {
        let unseen = world.opened.reader.can_pop(&pop).unwrap_err();
        let error = world.broker().pop(&pop, now).unwrap_err();
        assert_eq!(field(&unseen), field(&error));
        field(&error).to_owned()
    };
    assert_eq!(refused(Pop { max_messages: 33, ..pop() }), "maxMsgNums");
    assert_eq!(refused(Pop { max_messages: 0, ..pop() }), "maxMsgNums");
    assert_eq!(refused(Pop { invisible_ms: 0, ..pop() }), "invisibleTime");
    assert_eq!(refused(Pop { invisible_ms: limits::INVISIBLE_MS + 1, ..pop() }), "invisibleTime");
    assert_eq!(refused(Pop { queue: Some(QueueId(1)), ..pop() }), "queueId");
    assert_eq!(refused(Pop { group: group(&"g".repeat(248)), ..pop() }), "topic");
}
