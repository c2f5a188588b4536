//! What a pipeline's stage commits: outputs and position together, once.
#![allow(clippy::unwrap_used, reason = "a test may stop where it fails")]

mod kit;

use kit::{World, group, message, topic};
use sluice_broker::{Error, Position, StageUnit};
use sluice_model::{Kind, QueueId, QueueOffset};

fn unit(from: u64, next: u64, bodies: &[&str]) -> StageUnit {
    StageUnit {
        group: group("pipe"),
        topic: topic("in"),
        queue: QueueId(0),
        from: QueueOffset(from),
        next: QueueOffset(next),
        outputs: bodies.iter().map(|body| message("out", body, &[])).collect(),
        state: None,
        document: None,
    }
}

fn world() -> World {
    let mut world = World::new();
    world.make("in", 1);
    world.make("out", 2);
    begin(&world);
    world
}

/// What every stage does first: takes its position.
fn begin(world: &World) {
    let start = Position { group: group("pipe"), topic: topic("in"), queue: QueueId(0), offset: QueueOffset(0) };
    world.opened.reader.commit_offset(start).unwrap();
}

fn commit(world: &mut World, unit: StageUnit) -> Result<(), Error> {
    let now = world.now;
    world.broker().commit_stage(unit, now)
}

fn position(world: &World) -> Option<u64> {
    world.opened.reader.offset(&group("pipe"), &topic("in"), QueueId(0)).map(|offset| offset.0)
}

#[test]
fn a_document_is_there_with_its_unit_or_not_at_all() {
    let mut world = world();
    let marked = |from, next, bodies: &[&str], text: &'static str| StageUnit {
        document: Some(("marks", "pipe".to_owned(), text.into())),
        ..unit(from, next, bodies)
    };
    let document = |world: &World| world.opened.reader.document("marks", "pipe").unwrap().map(|(_, body)| body);
    commit(&mut world, marked(0, 3, &["a"], "one")).unwrap();
    assert!(matches!(commit(&mut world, marked(0, 3, &["a"], "two")), Err(Error::Conflict(_))));
    // Nothing was sent, and yet it is a unit: the document is a record.
    commit(&mut world, marked(3, 3, &[], "three")).unwrap();
    world.settle();
    let world = world.crash();
    assert_eq!((position(&world), world.bodies("out", 0)), (Some(3), vec!["a".to_owned()]));
    assert_eq!(document(&world).as_deref(), Some(&b"three"[..]));
}

#[test]
fn a_document_goes_with_the_positions_of_a_group_or_neither_goes() {
    let document = |world: &World| world.opened.reader.document("pipeline", "p").unwrap().is_some();
    // Sector by sector the last write is on the disk or not.
    for seed in 0..64 {
        let mut world = world();
        let now = world.now;
        let start = Position { group: group("pipe"), topic: topic("in"), queue: QueueId(0), offset: QueueOffset(0) };
        world.broker().put_document_at(("pipeline", "p"), "spec".into(), &[start], now).unwrap();
        world.settle();
        world.broker().delete_document_and_positions(("pipeline", "p"), &group("pipe"), now).unwrap();
        assert_eq!((document(&world), position(&world)), (false, None));
        let again = world.broker().delete_document_and_positions(("pipeline", "p"), &group("pipe"), now);
        assert_eq!(again.unwrap_err().kind(), Kind::NotFound);
        world.opened.broker.write().unwrap();
        let world = world.crash_torn(seed);
        assert_eq!(document(&world), position(&world).is_some(), "seed {seed}");
    }
    let mut world = world();
    let now = world.now;
    world.broker().put_document_at(("pipeline", "p"), "spec".into(), &[], now).unwrap();
    world.broker().delete_document_and_positions(("pipeline", "p"), &group("pipe"), now).unwrap();
    world.settle();
    let world = world.crash();
    assert_eq!((document(&world), position(&world)), (false, None));
}

#[test]
fn outputs_and_position_are_there_together() {
    let mut world = world();
    commit(&mut world, unit(0, 3, &["a", "b"])).unwrap();
    let unsynced = world.opened.broker.write().unwrap();
    assert!(unsynced.is_some());
    let mut world = world.crash();
    assert_eq!((position(&world), world.bodies("out", 0).len()), (None, 0));
    begin(&world);
    commit(&mut world, unit(0, 3, &["a", "b"])).unwrap();
    world.settle();
    let world = world.crash();
    assert_eq!(position(&world), Some(3));
    assert_eq!(world.bodies("out", 0), ["a", "b"]);
}

#[test]
fn who_comes_second_conflicts_and_writes_nothing() {
    let mut world = world();
    commit(&mut world, unit(0, 3, &["a"])).unwrap();
    let error = commit(&mut world, unit(0, 2, &["again"])).unwrap_err();
    assert_eq!(error.kind(), Kind::Conflict);
    world.settle();
    assert_eq!(world.bodies("out", 0), ["a"]);
}

#[test]
fn a_turn_without_outputs_moves_on_and_so_does_the_next_with_some() {
    let mut world = world();
    commit(&mut world, unit(0, 5, &[])).unwrap();
    assert_eq!(position(&world), Some(5));
    commit(&mut world, unit(5, 8, &["c"])).unwrap();
    world.settle();
    assert_eq!(position(&world), Some(8));
    let now = world.now;
    world.broker().record_offsets(now).unwrap();
    world.settle();
    let world = world.crash();
    assert_eq!(position(&world), Some(8), "outputs are there, so the position behind them is");
    assert_eq!(world.bodies("out", 0), ["c"]);
}

#[test]
fn sinks_must_be_there_and_be_nobody_elses() {
    let mut world = world();
    let mut missing = unit(0, 1, &["x"]);
    missing.outputs[0].topic = topic("nowhere");
    assert_eq!(commit(&mut world, missing).unwrap_err().kind(), Kind::NotFound);
    let mut closed = unit(0, 1, &["x"]);
    closed.outputs[0].topic = topic("rmq_sys_SLUICE_TOPICS");
    assert_eq!(commit(&mut world, closed).unwrap_err().kind(), Kind::Denied);
    assert_eq!(position(&world), Some(0));
}

#[test]
fn a_source_that_was_deleted_and_made_again_is_not_the_one_that_was_read() {
    let mut world = world();
    world.say("in", "old");
    let now = world.now;
    world.broker().delete_topic(&topic("in"), now).unwrap();
    world.make("in", 1);
    world.say("in", "new");
    let error = commit(&mut world, unit(0, 1, &["of the old one"])).unwrap_err();
    assert_eq!(error.kind(), Kind::Conflict);
    world.settle();
    assert_eq!((position(&world), world.bodies("out", 0).len()), (None, 0));
}
