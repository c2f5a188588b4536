//! What readers see, and when.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may stop where it fails")]

#[path = "kit/mod.rs"]
mod kit;

use kit::{World, keyed, message, small, topic};
use sluice_model::{Host, Kind, LogOffset, QueueId, Timestamp};
use sluice_storage::{Boundary, Config, RealDisk, fake::FakeDisk};

fn opened() -> World {
    World::open(&FakeDisk::new(), small()).unwrap()
}

#[test]
fn nothing_is_readable_before_it_is_durable_and_applied() {
    let mut world = opened();
    let written = world.append(&[message("t", 0, b"a"), message("t", 1, b"b")]).unwrap();
    let reader = world.log.reader.clone();
    assert_eq!((reader.appended(), reader.durable(), reader.readable()), (written.end, LogOffset(0), LogOffset(0)));
    assert_eq!(reader.record_at(LogOffset(0)).unwrap_err().kind(), Kind::NotFound);
    world.log.syncer.sync().unwrap();
    assert_eq!((reader.durable(), reader.readable()), (written.end, LogOffset(0)));
    assert_eq!(world.bounds("t", 0), None);
    world.log.applier.apply(&written, &mut world.views).unwrap();
    assert_eq!(reader.readable(), written.end);
    assert_eq!((world.bounds("t", 0), world.bounds("t", 1)), (Some((0, 1)), Some((0, 1))));
}

#[test]
#[should_panic(expected = "only durable records are applied")]
fn applying_what_is_not_durable_is_a_defect() {
    let mut world = opened();
    let written = world.append(&[message("t", 0, b"a")]).unwrap();
    let _ = world.log.applier.apply(&written, &mut world.views);
}

#[test]
fn placements_say_where_records_go() {
    let mut world = opened();
    let unit = [message("t", 0, b"a"), message("u", 0, b"b"), message("t", 0, b"c")];
    let placements = world.log.appender.stage(&unit, Timestamp(50), Host::LOCAL).unwrap();
    assert_eq!(placements.iter().map(|place| place.queue_offset.0).collect::<Vec<_>>(), [0, 0, 1]);
    let later = world.log.appender.stage(&unit[..1], Timestamp(40), Host::LOCAL).unwrap();
    assert_eq!(later[0].stored_at, Timestamp(50), "time does not go back");
    let written = world.log.appender.write().unwrap().unwrap();
    assert!(world.log.appender.write().unwrap().is_none());
    world.finish(written).unwrap();
    let bytes = world.log.reader.record_at(placements[2].log_offset).unwrap();
    assert_eq!(sluice_model::RecordView::parse(&bytes).unwrap().body(), b"c");
    for wrong in [placements[2].log_offset.plus(1), LogOffset(1 << 40)] {
        assert_eq!(world.log.reader.record_at(wrong).unwrap_err().kind(), Kind::NotFound);
    }
    assert_eq!(world.log.reader.record(placements[1].log_offset, 95).unwrap_err().kind(), Kind::Corrupt);
}

#[test]
fn units_that_can_never_fit_are_refused() {
    let mut world = opened();
    let mut text = |unit: &[_]| world.log.appender.stage(unit, Timestamp(0), Host::LOCAL).unwrap_err().to_string();
    assert_eq!(text(&[]), "unit: expected 1 to 9999 records, got 0");
    let large = text(&[message("t", 0, &[0; 4000])]);
    assert!(large.starts_with("unit: expected at most 4088 bytes, all records of a unit together, got 41"), "{large}");
}

#[test]
fn a_unit_never_spans_segments() {
    let mut world = opened();
    for n in 0..30u8 {
        world.put(&[message("t", 0, &[n; 600]), message("t", 1, &[n; 600])]).unwrap();
        let [a, b] = [0, 1].map(|queue| world.entries("t", queue, u64::from(n), 1)[0].log_offset.0 / 4096);
        assert_eq!(a, b);
    }
}

#[test]
fn several_segments_may_be_written_before_anything_is_applied() {
    let mut world = opened();
    for n in 0..40u8 {
        world.log.appender.stage(&[message("t", 0, &[n; 900])], world.now, Host::LOCAL).unwrap();
    }
    let written = world.log.appender.write().unwrap().unwrap();
    world.finish(written).unwrap();
    assert_eq!(world.bodies("t", 0), (0..40u8).map(|n| vec![n; 900]).collect::<Vec<_>>());
}

#[test]
fn a_long_queue_is_read_from_files_and_memory_alike() {
    let disk = FakeDisk::new();
    let config = Config { segment_len: 1 << 20, allocate_step: 1 << 20, ..small() };
    let mut world = World::open(&disk, config).unwrap();
    for n in 0..300u32 {
        let unit: Vec<_> = (0..10u32).map(|m| message("t", 0, &(10 * n + m).to_be_bytes())).collect();
        world.put(&unit).unwrap();
    }
    let all: Vec<Vec<u8>> = (0..3000u32).map(|n| n.to_be_bytes().to_vec()).collect();
    assert_eq!(world.bodies("t", 0), all);
    for from in [0, 255, 256, 2047, 2048, 2500, 2900, 2999] {
        let entries = world.entries("t", 0, from, 300);
        assert_eq!(entries.len(), 300.min(3000 - from as usize));
        assert!(entries.iter().zip(from..).all(|(entry, offset)| entry.queue_offset.0 == offset));
    }
    assert!(world.entries("t", 0, 3000, 1).is_empty() && world.entries("t", 1, 0, 1).is_empty());
    assert_eq!(world.log.reader.topics(), [topic("t")]);
    assert_eq!(world.log.reader.queues(&topic("t")).len(), 1);
}

#[test]
fn a_time_leads_to_an_offset() {
    let mut world = opened();
    for at in [10, 20, 20, 20, 30] {
        world.now = Timestamp(at);
        world.put(&[message("t", 0, b"x")]).unwrap();
    }
    let find =
        |at, boundary| world.log.reader.offset_at_time(&topic("t"), QueueId(0), Timestamp(at), boundary).unwrap().0;
    assert_eq!([5, 10, 15, 20, 25, 30, 31].map(|at| find(at, Boundary::Lower)), [0, 0, 1, 1, 4, 4, 5]);
    assert_eq!([5, 10, 15, 20, 25, 30, 31].map(|at| find(at, Boundary::Upper)), [0, 0, 0, 3, 3, 4, 4]);
    let unknown = world.log.reader.offset_at_time(&topic("u"), QueueId(0), Timestamp(0), Boundary::Lower);
    assert_eq!(unknown.unwrap_err().to_string(), "queue 0 of topic u is not in the log");
}

#[test]
fn keys_lead_to_records_over_many_runs() {
    let disk = FakeDisk::new();
    let mut world = World::open(&disk, small()).unwrap();
    for n in 0..200u32 {
        world.now = Timestamp(i64::from(n));
        let words = format!("even-{} third-{}", n % 2, n % 3);
        world.put(&[keyed("t", 0, b"x", &format!("id-{n}"), &words), keyed("u", 0, b"x", "id-7", "")]).unwrap();
    }
    assert!(disk.paths().iter().filter(|path| path.starts_with("keyindex/")).count() > 20);
    let find = |key: &str, from, to, max| {
        let found = world.log.reader.by_key(&topic("t"), key, Timestamp(from), Timestamp(to), max).unwrap();
        let read = |at: &LogOffset| {
            let bytes = world.log.reader.record_at(*at).unwrap();
            sluice_model::RecordView::parse(&bytes).unwrap().stored_at().0
        };
        found.iter().map(read).collect::<Vec<_>>()
    };
    for n in 0..200 {
        assert_eq!(find(&format!("id-{n}"), 0, 1000, 10), [n]);
    }
    assert_eq!(find("even-0", 0, 1000, 3), [198, 196, 194], "the newest first");
    assert_eq!(find("third-1", 50, 60, 100), [58, 55, 52], "both ends included");
    assert_eq!(find("even-1", 0, 1000, 1000).len(), 100);
    assert!(find("id-200", 0, 1000, 10).is_empty() && find("even", 0, 1000, 10).is_empty());
}

#[test]
fn a_queue_goes_on_in_the_next_file() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config { segment_len: 16 << 20, checkpoint_bytes: u64::MAX >> 24, ..Config::default() };
    let disk: std::sync::Arc<dyn sluice_storage::Disk> = std::sync::Arc::new(RealDisk::open(dir.path()).unwrap());
    let mut world = World::open_on(disk.clone(), config.clone()).unwrap();
    let count = 300_700u64;
    for first in (0..count).step_by(1000) {
        for n in first..count.min(first + 1000) {
            world.log.appender.stage(&[message("t", 0, &n.to_be_bytes())], world.now, Host::LOCAL).unwrap();
        }
        let written = world.log.appender.write().unwrap().unwrap();
        world.finish(written).unwrap();
        world.views.0.clear();
    }
    let check = |world: &World| {
        assert_eq!(world.bounds("t", 0), Some((0, count)));
        let entries = world.entries("t", 0, 299_000, 1700);
        assert_eq!(entries.len(), 1700);
        for (entry, n) in entries.iter().zip(299_000u64..) {
            let bytes = world.log.reader.record(entry.log_offset, entry.size).unwrap();
            assert_eq!(sluice_model::RecordView::parse(&bytes).unwrap().body(), n.to_be_bytes());
        }
    };
    check(&world);
    world.checkpoint().unwrap();
    drop(world);
    assert_eq!(disk.list("consumequeue/t/0").unwrap().len(), 2);
    let world = World::open_on(disk, config).unwrap();
    assert!(world.log.recovery.is_clean());
    check(&world);
}

#[test]
fn the_default_settings_work_on_a_fake_disk() {
    let disk = FakeDisk::new();
    let mut world = World::open(&disk, Config::default()).unwrap();
    world.put(&[message("t", 0, b"x")]).unwrap();
    let world = World::open(&disk, Config::default()).unwrap();
    assert_eq!(world.bodies("t", 0), [b"x".to_vec()]);
}
