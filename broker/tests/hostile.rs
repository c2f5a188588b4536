//! What a client may send cannot stop the next start.
#![allow(clippy::unwrap_used, reason = "a test may stop where it fails")]

mod kit;

use kit::{World, field, message, send_to, topic};
use sluice_broker::{Position, StageUnit};
use sluice_model::{QueueId, QueueOffset, Transaction};

#[test]
fn a_half_message_of_no_valid_group_is_refused() {
    let mut world = World::new();
    world.make("t", 1);
    for bad in ["", "a b", "ä", &"x".repeat(300)] {
        let mut half = message("t", "x", &[("PGROUP", bad)]);
        half.sys_flag = half.sys_flag.with_transaction(Transaction::Prepared);
        let error = world.try_send(send_to(0, vec![half])).unwrap_err();
        assert_eq!(field(&error), "PGROUP", "{bad}");
    }
    world.settle();
    let world = world.crash();
    assert_eq!(world.opened.reader.halves(QueueOffset(0), 10), []);
}

#[test]
fn properties_of_the_log_are_not_taken_from_clients() {
    let mut world = World::new();
    world.make("t", 1);
    let forged = [("SLUICE_UNIT", "0000/0002"), ("__CRC32#", "0000000000"), ("mine", "1")];
    world.send(send_to(0, vec![message("t", "first", &forged)]));
    world.say("t", "second");
    let now = world.now;
    let start = Position { group: kit::group("pipe"), topic: topic("t"), queue: QueueId(0), offset: QueueOffset(0) };
    world.opened.reader.commit_offset(start).unwrap();
    let unit = StageUnit {
        group: kit::group("pipe"),
        topic: topic("t"),
        queue: QueueId(0),
        from: QueueOffset(0),
        next: QueueOffset(2),
        outputs: vec![message("t", "third", &forged)],
        state: None,
        document: None,
    };
    world.broker().commit_stage(unit, now).unwrap();
    world.settle();
    let world = world.crash();
    assert_eq!(world.bodies("t", 0), ["first", "second", "third"]);
    assert_eq!(world.all("t", 0)[0].property("mine"), Some("1"));
}
