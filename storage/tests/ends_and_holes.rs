//! What was never durable is cut off, for good; what was durable and is gone is refused.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may stop where it fails")]

#[path = "kit/mod.rs"]
mod kit;

use kit::{World, message, small};
use sluice_model::{
    Host, Kind, LogOffset, QueueOffset, Timestamp,
    record::{self, Placement, UnitPlace},
};
use sluice_storage::{
    Config, Disk, Error,
    fake::{FakeDisk, Fate},
};

const FIRST: &str = "commitlog/00000000000000000000";
const SECOND: &str = "commitlog/00000000000000004096";
const THIRD: &str = "commitlog/00000000000000008192";

/// A log of 12 messages of 1000 bytes in several segments, all durable, as a crash leaves it.
fn several_segments() -> FakeDisk {
    let disk = FakeDisk::new();
    let mut world = World::open(&disk, small()).unwrap();
    for n in 0..12u8 {
        world.put(&[message("t", 0, &[n; 1000])]).unwrap();
    }
    disk.crash(Fate::Dropped, 0)
}

/// The error of opening `disk`, which must not change the log.
fn refused(disk: &FakeDisk) -> Error {
    let before: Vec<_> = disk.paths().into_iter().map(|path| (disk.content(&path), path)).collect();
    let error = World::open(disk, small()).err().expect("it is not opened");
    for (content, path) in before.into_iter().filter(|(_, path)| path.starts_with("commitlog/")) {
        assert_eq!(disk.content(&path), content, "{path} is as it was");
    }
    assert_eq!(error.kind(), Kind::Corrupt);
    error
}

#[test]
fn a_damaged_record_in_a_segment_that_has_a_successor_is_refused() {
    let disk = several_segments();
    disk.damage(SECOND, 500, b"??").unwrap();
    let text = refused(&disk).to_string();
    let expected = "hole in the log: commitlog/00000000000000004096 at byte 0: record at 4096: it does not match its \
         checksum, but commitlog/00000000000000008192 has records; the log was durable up to offset 0; \
         restore the file from a copy";
    assert_eq!(text, expected);
}

#[test]
fn a_missing_segment_is_refused() {
    let disk = several_segments();
    disk.remove(SECOND).unwrap();
    let text = refused(&disk).to_string();
    assert!(text.contains("the file does not end where the next one begins"), "{text}");
}

#[test]
fn damage_below_the_durable_mark_is_refused_even_at_the_end_of_the_log() {
    for marked in [true, false] {
        let disk = FakeDisk::new();
        let mut world = World::open(&disk, small()).unwrap();
        world.put(&[message("t", 0, b"first")]).unwrap();
        world.put(&[message("t", 0, b"second")]).unwrap();
        let second = world.entries("t", 0, 1, 1)[0].log_offset.0;
        if marked {
            world.log.checkpointer.mark_durable().unwrap();
        }
        disk.damage(FIRST, second + 100, b"??").unwrap();
        if marked {
            let error = refused(&disk);
            assert!(matches!(error, Error::Hole { offset, durable, .. } if offset == second && durable > second));
        } else {
            let world = World::open(&disk, small()).unwrap();
            assert_eq!(world.bodies("t", 0), [b"first".to_vec()]);
        }
    }
}

#[test]
fn a_log_that_is_gone_is_refused() {
    let disk = FakeDisk::new();
    let mut world = World::open(&disk, small()).unwrap();
    world.put(&[message("t", 0, b"first")]).unwrap();
    world.checkpoint().unwrap();
    disk.remove(FIRST).unwrap();
    assert!(refused(&disk).to_string().contains("the log has no files"));
    disk.create(FIRST, 4096).unwrap();
    assert!(refused(&disk).to_string().contains("nothing was written here"));
}

#[test]
fn a_torn_end_is_cut_and_reported() {
    let disk = FakeDisk::new();
    let mut world = World::open(&disk, small()).unwrap();
    world.put(&[message("t", 0, b"first")]).unwrap();
    let end = world.log.reader.appended();
    world.append(&[message("t", 0, &[1; 500]), message("t", 1, &[2; 500])]).unwrap();
    disk.damage(FIRST, end.0 + 900, b"??").unwrap();
    let world = World::open(&disk.crash(Fate::Kept, 0), small()).unwrap();
    assert_eq!(world.bodies("t", 0), [b"first".to_vec()], "no half of a unit");
    assert_eq!(world.bounds("t", 1), None);
    assert_eq!(world.log.recovery.end, end);
    assert!(world.log.recovery.cut_bytes > 1000 && !world.log.recovery.is_clean());
}

#[test]
fn what_was_cut_off_never_comes_back() {
    // Two records of one size behind the durable one; the first of them is torn, the second is whole.
    let disk = FakeDisk::new();
    let mut world = World::open(&disk, small()).unwrap();
    world.put(&[message("t", 0, b"durable")]).unwrap();
    let end = world.log.reader.appended().0;
    world.append(&[message("t", 0, b"torn....")]).unwrap();
    let whole_at = world.log.reader.appended().0;
    world.append(&[message("t", 0, b"stale...")]).unwrap();
    disk.damage(FIRST, end + 60, b"??").unwrap();
    let disk = disk.crash(Fate::Kept, 0);

    let mut world = World::open(&disk, small()).unwrap();
    assert_eq!(world.log.reader.appended().0, end);
    assert!(disk.content(FIRST).unwrap()[end as usize..].iter().all(|byte| *byte == 0), "zeros to the end");
    // A record of the same size ends exactly where the stale one began.
    world.put(&[message("t", 0, b"new.....")]).unwrap();
    assert_eq!(world.log.reader.appended().0, whole_at);
    let world = World::open(&disk.crash(Fate::Dropped, 0), small()).unwrap();
    assert_eq!(world.bodies("t", 0), [b"durable".to_vec(), b"new.....".to_vec()]);
    assert_eq!(world.log.reader.appended().0, whole_at);
}

#[test]
fn a_new_and_empty_segment_behind_a_torn_one_is_no_hole() {
    let disk = several_segments();
    let last = disk.paths().into_iter().rfind(|path| path.starts_with("commitlog/")).unwrap();
    let base: u64 = last["commitlog/".len()..].parse().unwrap();
    disk.create(&format!("commitlog/{:020}", base + 4096), 0).unwrap();
    disk.damage(&last, 20, b"??").unwrap();
    let mut world = World::open(&disk, small()).unwrap();
    assert_eq!(world.log.reader.appended().0, base);
    assert!(!disk.paths().contains(&format!("commitlog/{:020}", base + 4096)));
    let before = world.bodies("t", 0).len();
    for n in 0..10 {
        world.put(&[message("t", 0, &[n; 1000])]).unwrap();
    }
    assert_eq!(world.bodies("t", 0).len(), before + 10);
}

#[test]
fn segments_of_another_length_than_configured_stay_as_they_are() {
    let disk = several_segments();
    let config = Config { segment_len: 16_384, ..small() };
    let mut world = World::open(&disk, config.clone()).unwrap();
    for n in 0..30u8 {
        world.put(&[message("t", 0, &[n; 1000])]).unwrap();
    }
    assert_eq!(world.bodies("t", 0).len(), 42);
    let world = World::open(&disk.crash(Fate::Dropped, 0), config).unwrap();
    assert_eq!(world.bodies("t", 0).len(), 42);
    assert_eq!(disk.content(THIRD).unwrap().len(), 4096);
}

#[test]
fn a_bad_setting_is_named() {
    let config = Config { segment_len: 10, ..small() };
    let error = World::open(&FakeDisk::new(), config).err().unwrap();
    assert_eq!(error.kind(), Kind::Invalid);
    assert_eq!(error.to_string(), "segment_len: expected 4096 to 2147483648, got 10");
}

#[test]
fn records_that_do_not_make_up_a_unit_are_cut() {
    let places = |places: &[(u16, u16)]| {
        let disk = FakeDisk::new();
        disk.create_dir("commitlog").unwrap();
        let mut bytes = Vec::new();
        for (n, (index, count)) in places.iter().enumerate() {
            let place = Placement {
                queue_offset: QueueOffset(n as u64),
                log_offset: LogOffset(bytes.len() as u64),
                stored_at: Timestamp(0),
                store_host: Host::LOCAL,
                unit: UnitPlace { index: *index, count: *count },
            };
            record::encode(&mut bytes, &message("t", 0, b"x"), &place);
        }
        disk.create(FIRST, 4096).unwrap().write_at(&bytes, 0).unwrap();
        World::open(&disk, small()).unwrap().bodies("t", 0).len()
    };
    assert_eq!(places(&[(0, 1), (0, 2), (1, 2)]), 3);
    assert_eq!(places(&[(0, 1), (1, 2), (0, 1)]), 1, "the first of a unit is missing");
    assert_eq!(places(&[(0, 1), (0, 2), (0, 1)]), 1, "the second of a unit is missing");
    assert_eq!(places(&[(0, 1), (0, 3), (1, 2), (0, 1)]), 1, "two units are mixed up");
    assert_eq!(places(&[(0, 1), (0, 3), (2, 3), (0, 1)]), 1, "the second of three is missing");
}
