//! No room: appends are refused before anything is written, and taken again when there is room.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may stop where it fails")]

#[path = "kit/mod.rs"]
mod kit;

use kit::{World, message, small};
use sluice_model::{Host, Kind, LogOffset};
use sluice_storage::{Config, Disk, Retention, fake::FakeDisk};

fn config() -> Config {
    Config { segment_len: 64 * 1024, allocate_step: 32 * 1024, reserve_bytes: 64 * 1024, ..small() }
}

/// Fills the disk; returns how many messages were taken.
fn fill(world: &mut World) -> usize {
    for n in 0.. {
        // Checkpoints of these views would grow with the log.
        world.views.0.clear();
        match world.put(&[message("t", 0, &[b'x'; 1000])]) {
            Ok(()) if world.log.applier.checkpoint_due() => world.checkpoint().unwrap(),
            Ok(()) => {}
            Err(error) => {
                assert_eq!(error.kind(), Kind::Full, "{error}");
                assert!(error.to_string().starts_with("no room: "), "{error}");
                return n;
            }
        }
    }
    unreachable!()
}

#[test]
fn a_full_disk_refuses_and_takes_records_again_when_there_is_room() {
    let disk = FakeDisk::new();
    disk.set_capacity(Some(400 * 1024));
    let mut world = World::open(&disk, config()).unwrap();
    let count = fill(&mut world);
    let used = disk.used_bytes();
    assert!(count > 200, "{count} messages fit");
    assert!(disk.free_bytes().unwrap() < 64 * 1024 + 4096, "all but the reserve is used: {used}");
    assert!(world.log.reader.poisoned().is_none());
    assert_eq!(world.bodies("t", 0).len(), count);
    world.checkpoint().expect("the reserve is there for checkpoints");

    disk.set_capacity(Some(600 * 1024));
    world.put(&[message("t", 0, b"again")]).unwrap();
    assert_eq!(world.bounds("t", 0), Some((0, count as u64 + 1)), "refused messages used up no offset");

    fill(&mut world);
    let policy = Retention { max_age_ms: None, max_bytes: Some(128 * 1024) };
    world.checkpoint().unwrap();
    world.checkpoint().unwrap();
    world.log.applier.retain(world.now, &policy, LogOffset(u64::MAX)).unwrap();
    world.put(&[message("t", 0, b"after retention")]).unwrap();
}

#[test]
fn a_refused_unit_leaves_nothing_behind() {
    let disk = FakeDisk::new();
    let mut world = World::open(&disk, config()).unwrap();
    world.put(&[message("t", 0, b"first")]).unwrap();
    disk.set_capacity(Some(disk.used_bytes()));
    let unit: Vec<_> = (0..50).map(|n| message("t", n % 2, &[b'x'; 1000])).collect();
    assert_eq!(world.log.appender.stage(&unit, world.now, Host::LOCAL).unwrap_err().kind(), Kind::Full);
    assert_eq!(world.log.appender.pending_bytes(), 0);
    disk.set_capacity(None);
    world.put(&[message("t", 0, b"second"), message("t", 1, b"third")]).unwrap();
    assert_eq!(world.bodies("t", 0), [b"first".to_vec(), b"second".to_vec()]);
    assert_eq!(world.bodies("t", 1), [b"third".to_vec()]);
}

#[test]
fn queues_that_cannot_be_written_stay_readable_and_stop_appends_until_they_can() {
    let disk = FakeDisk::new();
    let mut world = World::open(&disk, config()).unwrap();
    disk.fail_writes_to(Some("consumequeue/"));
    let mut count = 0;
    let refused = loop {
        match world.put(&[message("t", 0, b"x")]) {
            Ok(()) => count += 1,
            Err(error) => break error,
        }
        assert!(count < 1000, "appends are never refused");
    };
    assert_eq!(refused.kind(), Kind::Full);
    assert!(world.log.reader.refusal().is_some() && world.log.reader.poisoned().is_none());
    assert_eq!(world.bodies("t", 0).len(), count, "readers see every entry");
    assert!(world.log.applier.retry().is_err());
    disk.fail_writes_to(None);
    world.log.applier.retry().unwrap();
    assert!(world.log.reader.refusal().is_none());
    world.put(&[message("t", 0, b"x")]).unwrap();
    assert_eq!(world.bodies("t", 0).len(), count + 1);
}

#[test]
fn too_much_staged_is_refused() {
    let mut world = World::open(&FakeDisk::new(), Config { pending_bytes: 4096, ..config() }).unwrap();
    let stage = |world: &mut World| world.log.appender.stage(&[message("t", 0, &[0; 3000])], world.now, Host::LOCAL);
    stage(&mut world).unwrap();
    stage(&mut world).unwrap();
    assert_eq!(stage(&mut world).unwrap_err().kind(), Kind::Busy);
    world.log.appender.write().unwrap();
    stage(&mut world).unwrap();
}
