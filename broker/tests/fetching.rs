//! Fetches: filters, bounds, and those that wait.
#![allow(clippy::unwrap_used, reason = "a test may stop where it fails")]

mod kit;

use kit::{World, field, message, parse, send_to, topic};
use sluice_broker::{Effect, Fetch, FetchStatus, Filter, Token};
use sluice_model::{Kind, QueueId, QueueOffset};

fn tagged(world: &mut World, tags: &[&str]) {
    for (n, tag) in tags.iter().enumerate() {
        world.send(send_to(0, vec![message("t", &format!("{n}"), &[("TAGS", tag)])]));
    }
}

fn world() -> World {
    let mut world = World::new();
    world.make("t", 1);
    world
}

#[test]
fn a_filter_takes_its_tags_and_passes_the_others() {
    let mut world = world();
    tagged(&mut world, &["a", "b", "c", "a", "c"]);
    let wanted = Filter::parse("a || b").unwrap();
    let fetched = world.fetch("t", 0, 0, wanted).unwrap();
    let bodies: Vec<String> = parse(&fetched).into_iter().map(|got| got.body).collect();
    assert_eq!(bodies, ["0", "1", "3"]);
    assert_eq!((fetched.status, fetched.next), (FetchStatus::Found, QueueOffset(5)));
    let none = world.fetch("t", 0, 1, Filter::parse("z").unwrap()).unwrap();
    assert_eq!((none.status, none.next, none.count), (FetchStatus::NoMatch, QueueOffset(5), 0));
}

fn priced(world: &mut World, prices: &[(&str, &str)]) {
    for (n, (region, price)) in prices.iter().enumerate() {
        world.send(send_to(0, vec![message("t", &format!("{n}"), &[("region", region), ("price", price)])]));
    }
}

#[test]
fn a_condition_takes_what_it_holds_for_and_passes_the_others() {
    let mut world = world();
    priced(&mut world, &[("eu", "10"), ("us", "50"), ("eu", "60"), ("eu", "free"), ("eu", "70"), ("us", "5")]);
    let wanted = Filter::sql("region = 'eu' AND price > 20").unwrap();
    let fetched = world.fetch("t", 0, 0, wanted.clone()).unwrap();
    let bodies: Vec<String> = parse(&fetched).into_iter().map(|got| got.body).collect();
    assert_eq!(bodies, ["2", "4"], "a price that is no number is no match");
    assert_eq!((fetched.status, fetched.next), (FetchStatus::Found, QueueOffset(6)));
    let none = world.fetch("t", 0, 5, wanted.clone()).unwrap();
    assert_eq!((none.status, none.next, none.count), (FetchStatus::NoMatch, QueueOffset(6), 0));
    let at_end = world.fetch("t", 0, 6, wanted).unwrap();
    assert_eq!((at_end.status, at_end.next), (FetchStatus::AtEnd, QueueOffset(6)));
}

#[test]
fn a_condition_stops_where_the_fetch_is_full() {
    let mut world = world();
    priced(&mut world, &[("eu", "1"), ("us", "2"), ("eu", "3"), ("us", "4"), ("eu", "5")]);
    let fetch = Fetch {
        topic: topic("t"),
        queue: QueueId(0),
        from: QueueOffset(0),
        max_messages: 2,
        max_bytes: 1 << 20,
        filter: Filter::sql("region = 'eu'").unwrap(),
    };
    let fetched = world.opened.reader.fetch(&fetch).unwrap();
    assert_eq!((fetched.count, fetched.next), (2, QueueOffset(4)), "behind what it passed, in front of what is left");
    let rest = world.opened.reader.fetch(&Fetch { from: fetched.next, ..fetch }).unwrap();
    assert_eq!((rest.count, rest.next), (1, QueueOffset(5)));
}

#[test]
fn a_fetch_that_finds_nothing_ends_and_says_how_far_it_came() {
    let mut world = world();
    let others: Vec<_> = (0..900).map(|n| message("t", &format!("{n}"), &[("region", "us")])).collect();
    for batch in others.chunks(100) {
        world.send(send_to(0, batch.to_vec()));
    }
    world.send(send_to(0, vec![message("t", "wanted", &[("region", "eu")])]));
    let wanted = Filter::sql("region = 'eu'").unwrap();
    let first = world.fetch("t", 0, 0, wanted.clone()).unwrap();
    assert_eq!((first.status, first.next), (FetchStatus::NoMatch, QueueOffset(800)));
    let second = world.fetch("t", 0, first.next.0, wanted).unwrap();
    assert_eq!((second.status, second.next, second.count), (FetchStatus::Found, QueueOffset(901), 1));

    world.make("large", 1);
    let padding = "x".repeat(30_000);
    for _ in 0..40 {
        world.send(send_to(0, vec![message("large", "", &[("padding", &padding)])]));
    }
    let large = world.fetch("large", 0, 0, Filter::sql("region = 'eu'").unwrap()).unwrap();
    assert_eq!((large.status, large.next), (FetchStatus::NoMatch, QueueOffset(35)), "1 MiB of properties");
}

#[test]
fn every_place_in_and_outside_a_queue_has_its_answer() {
    let mut world = world();
    tagged(&mut world, &["a", "a"]);
    let at_end = world.fetch("t", 0, 2, Filter::All).unwrap();
    assert_eq!((at_end.status, at_end.next), (FetchStatus::AtEnd, QueueOffset(2)));
    let beyond = world.fetch("t", 0, 9, Filter::All).unwrap();
    assert_eq!((beyond.status, beyond.next), (FetchStatus::TooLarge, QueueOffset(2)));
    assert_eq!(field(&world.fetch("t", 1, 0, Filter::All).unwrap_err()), "queueId");
    assert_eq!(world.fetch("u", 0, 0, Filter::All).unwrap_err().kind(), Kind::NotFound);
}

#[test]
fn count_and_bytes_bound_a_fetch_and_the_first_message_always_fits() {
    let mut world = world();
    for _ in 0..5 {
        world.say("t", &"x".repeat(1_000));
    }
    let fetch = |max_messages, max_bytes| {
        let (topic, from) = (topic("t"), QueueOffset(1));
        let fetch = Fetch { topic, queue: QueueId(0), from, max_messages, max_bytes, filter: Filter::All };
        let fetched = world.opened.reader.fetch(&fetch).unwrap();
        (fetched.count, fetched.next.0)
    };
    assert_eq!(fetch(2, 1 << 20), (2, 3));
    assert_eq!(fetch(32, 10), (1, 2));
    assert_eq!(fetch(32, 2_500), (2, 3));
    assert_eq!(fetch(0, 1 << 20), (1, 2));
}

#[test]
fn what_is_not_on_the_disk_is_not_seen() {
    let mut world = world();
    world.try_send(send_to(0, vec![message("t", "x", &[])])).unwrap();
    assert!(world.all("t", 0).is_empty());
    let written = world.broker().write().unwrap().unwrap();
    assert!(world.all("t", 0).is_empty());
    world.opened.applier.sync().unwrap();
    assert!(world.all("t", 0).is_empty());
    world.opened.applier.apply(&written, &mut Vec::new()).unwrap();
    assert_eq!(world.bodies("t", 0), ["x"]);
}

#[test]
fn who_waits_is_woken_once_when_its_queue_moves() {
    let mut world = world();
    world.make("u", 1);
    let reader = world.opened.reader.clone();
    assert!(reader.wait(&topic("t"), QueueId(0), QueueOffset(0), Token(1)));
    assert!(reader.wait(&topic("u"), QueueId(0), QueueOffset(0), Token(2)));
    assert!(reader.wait(&topic("t"), QueueId(0), QueueOffset(1), Token(3)));
    assert!(reader.wait(&topic("t"), QueueId(0), QueueOffset(0), Token(4)));
    reader.stop_waiting(&topic("t"), Token(4));
    let mut woken = |body: &str| {
        world.try_send(send_to(0, vec![message("t", body, &[])])).unwrap();
        let effects = world.settle().into_iter();
        effects
            .filter_map(|effect| if let Effect::Wake(token) = effect { Some(token) } else { None })
            .collect::<Vec<_>>()
    };
    assert_eq!(woken("x"), [Token(1)]);
    assert_eq!(woken("y"), [Token(3)]);
    assert_eq!(woken("z"), []);
    assert!(!reader.wait(&topic("t"), QueueId(0), QueueOffset(2), Token(5)), "its message is there already");
}
