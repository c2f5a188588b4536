//! The first failed write or sync ends the log's life as a writer.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may stop where it fails")]

#[path = "kit/mod.rs"]
mod kit;

use kit::{World, message, small};
use sluice_model::{Host, Kind};
use sluice_storage::{
    Error,
    fake::{FakeDisk, Fate},
};

fn is_poisoned(world: &mut World) {
    for _ in 0..2 {
        let stage = world.log.appender.stage(&[message("t", 0, b"x")], world.now, Host::LOCAL);
        let errors = [
            stage.map(drop).unwrap_err(),
            world.log.appender.write().map(drop).unwrap_err(),
            world.log.syncer.sync().map(drop).unwrap_err(),
            world.checkpoint().unwrap_err(),
            world.log.checkpointer.mark_durable().unwrap_err(),
        ];
        for error in errors {
            assert!(matches!(error, Error::Poisoned(_)), "{error}");
            assert_eq!(error.kind(), Kind::Unavailable);
        }
    }
}

#[test]
fn a_failed_sync_is_never_tried_again() {
    let disk = FakeDisk::new();
    let mut world = World::open(&disk, small()).unwrap();
    world.put(&[message("t", 0, b"durable")]).unwrap();
    world.append(&[message("t", 0, b"lost")]).unwrap();
    let durable = world.log.reader.durable();
    disk.fail_sync_after(0);
    let error = world.log.syncer.sync().unwrap_err();
    assert!(error.to_string().starts_with("sync commitlog/00000000000000000000: "), "{error}");
    is_poisoned(&mut world);
    assert_eq!(world.log.reader.durable(), durable, "nothing became durable");
    assert!(world.log.reader.poisoned().unwrap().contains("sync commitlog"));
    assert_eq!(world.bodies("t", 0), [b"durable".to_vec()], "reads go on");
    let world = World::open(&disk.crash(Fate::Kept, 0), small()).unwrap();
    assert_eq!(world.bodies("t", 0), [b"durable".to_vec()], "the bytes of the failed sync are gone");
}

#[test]
fn a_restart_after_a_failed_sync_makes_what_it_finds_durable_in_earnest() {
    let disk = FakeDisk::new();
    let mut world = World::open(&disk, small()).unwrap();
    world.put(&[message("t", 0, b"durable")]).unwrap();
    world.append(&[message("t", 0, b"in memory")]).unwrap();
    disk.fail_sync_after(0);
    world.log.syncer.sync().unwrap_err();
    drop(world);
    // The machine did not stop: the pages are still in memory and count as clean.
    let world = World::open(&disk, small()).unwrap();
    assert_eq!(world.bodies("t", 0).len(), 2);
    let world = World::open(&disk.crash(Fate::Dropped, 0), small()).unwrap();
    assert_eq!(world.bodies("t", 0).len(), 2, "what a start has shown survives a power cut");
}

#[test]
fn a_failed_write_poisons_too() {
    let disk = FakeDisk::new();
    let mut world = World::open(&disk, small()).unwrap();
    world.put(&[message("t", 0, b"durable")]).unwrap();
    world.log.appender.stage(&[message("t", 0, b"x")], world.now, Host::LOCAL).unwrap();
    disk.fail_writes_to(Some("commitlog/"));
    world.log.appender.write().unwrap_err();
    disk.fail_writes_to(None);
    is_poisoned(&mut world);
    assert_eq!(world.bodies("t", 0), [b"durable".to_vec()]);
}

#[test]
fn a_failed_sync_of_a_finished_segment_poisons() {
    let disk = FakeDisk::new();
    let mut world = World::open(&disk, small()).unwrap();
    world.put(&[message("t", 0, &[0; 3000])]).unwrap();
    // The next segment and its name are synced, then the finished one.
    disk.fail_sync_after(2);
    let error = world.log.appender.stage(&[message("t", 0, &[0; 3000])], world.now, Host::LOCAL).unwrap_err();
    assert!(error.to_string().starts_with("sync commitlog/00000000000000000000"), "{error}");
    is_poisoned(&mut world);
}

#[test]
fn a_failed_sync_of_a_checkpoint_poisons_and_the_one_before_stays() {
    let disk = FakeDisk::new();
    let mut world = World::open(&disk, small()).unwrap();
    world.put(&[message("t", 0, b"a")]).unwrap();
    world.checkpoint().unwrap();
    let checkpoint = world.log.reader.checkpoint();
    world.put(&[message("t", 0, b"b")]).unwrap();
    disk.fail_sync_after(0);
    world.checkpoint().unwrap_err();
    is_poisoned(&mut world);
    let world = World::open(&disk.crash(Fate::Dropped, 0), small()).unwrap();
    assert_eq!(world.log.recovery.checkpoint, Some(checkpoint));
    assert_eq!(world.bodies("t", 0), [b"a".to_vec(), b"b".to_vec()]);
}

#[test]
fn a_view_that_refuses_a_record_ends_the_log() {
    struct Picky;
    impl sluice_storage::Views for Picky {
        fn apply(&mut self, _: &sluice_model::RecordView<'_>) -> Result<sluice_storage::Applied, String> {
            Err("no".to_owned())
        }
        fn snapshot(&self, _: &mut Vec<u8>) {}
        fn restore(&mut self, _: &[u8]) -> Result<(), String> {
            Ok(())
        }
    }
    let disk = FakeDisk::new();
    let mut world = World::open(&disk, small()).unwrap();
    let written = world.append(&[message("t", 0, b"x")]).unwrap();
    world.log.syncer.sync().unwrap();
    let error = world.log.applier.apply(&written, &mut Picky).unwrap_err();
    assert_eq!(error.to_string(), "record at 0 cannot be applied: no");
    is_poisoned(&mut world);
    assert_eq!(world.bounds("t", 0), None, "it never became readable");
}
