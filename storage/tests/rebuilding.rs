//! Queues, keys and checkpoints are rebuilt from the log whatever becomes of their files.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may stop where it fails")]

#[path = "kit/mod.rs"]
mod kit;

use kit::{DELETIONS, World, keyed, message, small, topic};
use sluice_model::Host;
use sluice_storage::{
    Config, Disk,
    fake::{FakeDisk, Fate},
};

const QUEUE: &str = "consumequeue/t/0/00000000000000000000";

/// 100 messages in each of two topics, a checkpoint after the first 80; returns the disk as a stop leaves it.
fn stopped() -> FakeDisk {
    let disk = FakeDisk::new();
    let mut world = World::open(&disk, small()).unwrap();
    for n in 0..100u32 {
        world.put(&[keyed("t", 0, &[n as u8; 50], &format!("id-{n}"), "all"), message("u", n % 3, b"x")]).unwrap();
        if n == 79 {
            world.checkpoint().unwrap();
        }
    }
    disk
}

fn whole(world: &World) {
    assert_eq!(world.bodies("t", 0), (0..100u8).map(|n| vec![n; 50]).collect::<Vec<_>>());
    assert_eq!([0, 1, 2].map(|queue| world.bodies("u", queue).len()), [34, 33, 33]);
    assert_eq!(world.views.0.len(), 200, "views see every record once");
    for n in 0..100 {
        assert_eq!(world.by_key("t", &format!("id-{n}")).len(), 1, "id-{n}");
    }
    assert_eq!(world.by_key("t", "all").len(), 100);
}

#[test]
fn with_nothing_damaged_only_the_records_behind_the_checkpoint_are_replayed() {
    let disk = stopped();
    let world = World::open(&disk, small()).unwrap();
    whole(&world);
    assert_eq!(world.log.recovery.replayed_records, 40);
    assert_eq!((world.log.recovery.repaired_queues, world.log.recovery.repaired_runs), (0, 0));
}

#[test]
fn a_damaged_or_missing_queue_file_is_built_again() {
    let damages: [fn(&FakeDisk); 4] = [
        |disk| disk.damage(QUEUE, 0, &[0xFF; 20]).unwrap(),
        |disk| disk.damage(QUEUE, 40 * 20, &[0; 20]).unwrap(),
        |disk| disk.remove(QUEUE).unwrap(),
        |disk| disk.remove_dir_all("consumequeue").unwrap(),
    ];
    for (n, damage) in damages.iter().enumerate() {
        let disk = stopped();
        damage(&disk);
        let mut world = World::open(&disk, small()).unwrap();
        whole(&world);
        assert_eq!(world.log.recovery.repaired_queues, if n == 3 { 4 } else { 1 });
        world.checkpoint().unwrap();
        let world = World::open(&disk, small()).unwrap();
        whole(&world);
        assert!(world.log.recovery.is_clean(), "it is repaired for good: {:?}", world.log.recovery);
    }
}

#[test]
fn a_damaged_or_missing_run_of_keys_is_built_again() {
    let runs =
        |disk: &FakeDisk| disk.paths().into_iter().filter(|path| path.starts_with("keyindex/")).collect::<Vec<_>>();
    let disk = stopped();
    let paths = runs(&disk);
    assert!(paths.len() > 3);
    disk.damage(&paths[0], 3, b"?").unwrap();
    disk.damage(&paths[1], 70, b"?").unwrap();
    disk.remove(&paths[3]).unwrap();
    let mut world = World::open(&disk, small()).unwrap();
    whole(&world);
    assert_eq!(world.log.recovery.repaired_runs, 3);
    world.log.checkpointer.work_ahead().unwrap();
    world.checkpoint().unwrap();
    let world = World::open(&disk, small()).unwrap();
    whole(&world);
    assert!(world.log.recovery.is_clean());
    assert!(runs(&disk).len() >= paths.len());
}

#[test]
fn without_a_readable_checkpoint_everything_is_rebuilt() {
    let disk = stopped();
    for slot in disk.paths().iter().filter(|path| path.starts_with("state/checkpoint")) {
        disk.damage(slot, 30, b"????").unwrap();
    }
    let world = World::open(&disk, small()).unwrap();
    whole(&world);
    assert_eq!((world.log.recovery.checkpoint, world.log.recovery.replayed_records), (None, 200));
}

#[test]
fn entries_of_a_deleted_topic_stay_away_when_its_queue_is_built_again() {
    let disk = FakeDisk::new();
    let mut world = World::open(&disk, small()).unwrap();
    for n in 0..10u8 {
        world.put(&[message("t", 0, &[n])]).unwrap();
    }
    world.put(&[message(DELETIONS, 0, b"t")]).unwrap();
    world.log.appender.forget(&topic("t"));
    assert_eq!(world.bounds("t", 0), None);
    for n in 100..105u8 {
        world.put(&[message("t", 0, &[n])]).unwrap();
    }
    let new: Vec<Vec<u8>> = (100..105u8).map(|n| vec![n]).collect();
    assert_eq!(world.bodies("t", 0), new);
    world.checkpoint().unwrap();
    disk.remove(QUEUE).unwrap();
    let world = World::open(&disk, small()).unwrap();
    assert_eq!(world.bodies("t", 0), new);
    assert_eq!(world.log.recovery.repaired_queues, 1);
}

#[test]
fn files_nobody_needs_are_removed() {
    let disk = stopped();
    disk.create_dir("consumequeue/gone/0").unwrap();
    disk.create_dir("consumequeue/t/7").unwrap();
    disk.create("consumequeue/t/7/00000000000000000000", 10).unwrap();
    disk.create("keyindex/left-over", 10).unwrap();
    whole(&World::open(&disk, small()).unwrap());
    assert!(disk.list("consumequeue/gone").unwrap().is_empty());
    assert!(disk.list("consumequeue/t/7").unwrap().is_empty());
    assert!(!disk.paths().contains(&"keyindex/left-over".to_owned()));
}

#[test]
fn a_checkpoint_keeps_many_queues() {
    let disk = FakeDisk::new();
    let mut world = World::open(&disk, small()).unwrap();
    for n in 0..80 {
        world.put(&[message("t", n % 40, &[n as u8])]).unwrap();
    }
    world.checkpoint().unwrap();
    let world = World::open(&disk.crash(Fate::Dropped, 0), small()).unwrap();
    assert!(world.log.recovery.is_clean(), "{:?}", world.log.recovery);
    for n in 0..40 {
        assert_eq!(world.bodies("t", n), [[n as u8], [n as u8 + 40]]);
    }
}

#[test]
fn entries_of_a_deleted_queue_are_not_written_over_those_of_the_new_one() {
    let disk = FakeDisk::new();
    let config = Config { segment_len: 1 << 20, ..small() };
    let mut world = World::open(&disk, config.clone()).unwrap();
    let mut stage = |body: &[u8], name: &str| {
        world.log.appender.stage(&[message(name, 0, body)], world.now, Host::LOCAL).unwrap();
        if name == DELETIONS {
            world.log.appender.forget(&topic("t"));
        }
    };
    // All in one batch: both queues have entries to write when it ends.
    (0..300).for_each(|_| stage(b"old", "t"));
    stage(b"t", DELETIONS);
    (0..300).for_each(|_| stage(b"new", "t"));
    let written = world.log.appender.write().unwrap().unwrap();
    world.finish(written).unwrap();
    world.checkpoint().unwrap();
    for world in [world, World::open(&disk, config).unwrap()] {
        assert!(world.log.recovery.is_clean());
        assert_eq!(world.bodies("t", 0), vec![b"new".to_vec(); 300]);
    }
}
