//! Documents: the newest version is there, however much of the log goes.
#![allow(clippy::unwrap_used, reason = "a test may stop where it fails")]

mod kit;

use kit::{World, field};
use sluice_broker::Retention;
use sluice_model::{Kind, limits};

fn body(world: &World, name: &str) -> Option<String> {
    let (document, body) = world.opened.reader.document("plugin", name).unwrap()?;
    assert_eq!(document.label, "label");
    Some(String::from_utf8(body.to_vec()).unwrap())
}

fn put(world: &mut World, name: &str, body: &str) {
    let now = world.now;
    world.broker().put_document("plugin", name, "label", body.to_owned().into(), now).unwrap();
    world.settle();
}

#[test]
fn the_newest_version_counts_and_a_deletion_stays() {
    let mut world = World::new();
    for (name, text) in [("a", "1"), ("b", "2"), ("a", "3")] {
        put(&mut world, name, text);
    }
    let now = world.now;
    world.broker().delete_document("plugin", "b", now).unwrap();
    assert_eq!(world.broker().delete_document("plugin", "b", now).unwrap_err().kind(), Kind::NotFound);
    world.settle();
    let mut world = world.crash();
    assert_eq!((body(&world, "a").as_deref(), body(&world, "b")), (Some("3"), None));
    assert_eq!(world.opened.reader.documents("plugin").len(), 1);
    assert!(world.opened.reader.documents("other").is_empty());
    let large = vec![0; limits::SYSTEM_BODY_LEN + 1];
    let error = world.broker().put_document("plugin", "c", "label", large.into(), now).unwrap_err();
    assert_eq!(field(&error), "body");
}

#[test]
fn documents_move_on_as_the_log_behind_them_goes() {
    let mut world = World::tiny();
    world.make("t", 1);
    put(&mut world, "kept", "first");
    put(&mut world, "changed", "old");
    let policy = Retention { max_age_ms: None, max_bytes: Some(8_192) };
    let (mut starts, mut carried) = (Vec::new(), 0);
    for round in 0..200 {
        world.say("t", &".".repeat(300));
        if round == 100 {
            put(&mut world, "changed", "new");
        }
        if world.opened.applier.checkpoint_due() {
            world.checkpoint().unwrap();
        }
        let now = world.now;
        carried += world.broker().carry_documents(now).unwrap();
        world.settle();
        starts.push(world.opened.applier.retain(now, &policy).unwrap());
        if round % 37 == 0 {
            world = world.crash();
        }
        assert_eq!(body(&world, "kept").as_deref(), Some("first"));
        assert_eq!(body(&world, "changed").as_deref(), Some(if round < 100 { "old" } else { "new" }));
    }
    let (start, end) = (*starts.last().unwrap(), world.opened.reader.store().appended());
    assert!(end.0 - start.0 < 5 * 4_096, "{start} to {end}: nothing holds the log back");
    assert!((4..60).contains(&carried), "{carried} documents were written again");
}
