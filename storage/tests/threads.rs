//! The five ends of a log on threads of their own.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may stop where it fails")]

#[path = "kit/mod.rs"]
mod kit;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::sync_channel,
    },
    thread,
};

use kit::{DELETIONS, Seen, keyed, message, topic};
use sluice_model::{Host, LogOffset, QueueId, QueueOffset, RecordView, Timestamp};
use sluice_storage::{Config, Opened, Reader, RealDisk, open};

const UNITS: u64 = 4000;

fn config() -> Config {
    Config {
        segment_len: 256 * 1024,
        allocate_step: 64 * 1024,
        checkpoint_bytes: 200_000,
        index_run_entries: 1000,
        ..Config::default()
    }
}

/// Reads both queues over and over: dense, the right records, and units of two always whole.
fn read(reader: &Reader) -> u64 {
    let second = reader.bounds(&topic("t"), QueueId(1)).map_or(0, |(_, end)| end.0);
    let first = reader.bounds(&topic("t"), QueueId(0)).map_or(0, |(_, end)| end.0);
    assert!(first >= second, "a unit has a message in each queue: {first} and {second}");
    for from in [0, first.saturating_sub(700), first.saturating_sub(3)] {
        let mut entries = Vec::new();
        reader.entries(&topic("t"), QueueId(0), QueueOffset(from), 500, &mut entries);
        assert!(entries.len() as u64 >= (first - from).min(500), "{} entries from {from} of {first}", entries.len());
        for (entry, offset) in entries.iter().zip(from..) {
            let bytes = reader.record(entry.log_offset, entry.size).unwrap();
            let record = RecordView::parse(&bytes).unwrap();
            assert_eq!((record.queue_offset().0, entry.queue_offset.0), (offset, offset));
            assert_eq!(record.body(), offset.to_be_bytes());
        }
        // Wherever its key is on its way to a run by now.
        if let Some(entry) = entries.last() {
            let key = format!("u{}", entry.queue_offset);
            let found = reader.by_key(&topic("t"), &key, Timestamp(i64::MIN), Timestamp(i64::MAX), 10).unwrap();
            assert_eq!(found, [entry.log_offset], "{key}");
        }
    }
    first
}

#[test]
fn readers_see_whole_units_while_others_write() {
    let dir = tempfile::tempdir().unwrap();
    let mut views = Seen::default();
    let log = open(Arc::new(RealDisk::open(dir.path()).unwrap()), config(), &mut views).unwrap();
    let Opened { mut appender, syncer, mut applier, mut checkpointer, reader, .. } = log;
    let (to_syncer, written) = sync_channel(64);
    let (to_applier, durable) = sync_channel(64);
    let (to_checkpointer, drafts) = sync_channel(1);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(move || {
            for n in 0..UNITS {
                let body = n.to_be_bytes();
                let unit = [keyed("t", 0, &body, &format!("u{n}"), ""), message("t", 1, &body)];
                appender.stage(&unit, Timestamp(n as i64), Host::LOCAL).unwrap();
                appender.stage(&[message("fleeting", 0, &body)], Timestamp(n as i64), Host::LOCAL).unwrap();
                if n % 50 == 49 {
                    appender.stage(&[message(DELETIONS, 0, b"fleeting")], Timestamp(n as i64), Host::LOCAL).unwrap();
                    appender.forget(&topic("fleeting"));
                }
                if n % 7 == 0 || n + 1 == UNITS {
                    to_syncer.send(appender.write().unwrap().unwrap()).unwrap();
                }
            }
        });
        scope.spawn(move || {
            while let Ok(batch) = written.recv() {
                assert!(syncer.sync().unwrap() >= batch.end);
                to_applier.send(batch).unwrap();
            }
        });
        let (done, views) = (&done, &mut views);
        scope.spawn(move || {
            while let Ok(batch) = durable.recv() {
                applier.apply(&batch, views).unwrap();
                if applier.checkpoint_due() {
                    to_checkpointer.send(applier.draft(views).unwrap()).unwrap();
                }
            }
            done.store(true, Ordering::Release);
        });
        scope.spawn(move || {
            while let Ok(draft) = drafts.recv() {
                checkpointer.mark_durable().unwrap();
                checkpointer.work_ahead().unwrap();
                checkpointer.write(draft).unwrap();
            }
        });
        for _ in 0..2 {
            let reader = reader.clone();
            scope.spawn(move || {
                while !done.load(Ordering::Acquire) {
                    read(&reader);
                }
                assert_eq!(read(&reader), UNITS);
            });
        }
    });
    assert_eq!(views.0.len() as u64, 3 * UNITS + UNITS / 50);
    let before = reader.checkpoint();
    assert!(before > LogOffset(0), "checkpoints were written meanwhile");
    drop(reader);
    let mut views = Seen::default();
    let log = open(Arc::new(RealDisk::open(dir.path()).unwrap()), config(), &mut views).unwrap();
    assert_eq!(log.recovery.checkpoint, Some(before));
    assert_eq!(read(&log.reader), UNITS);
    assert_eq!(views.0.len() as u64, 3 * UNITS + UNITS / 50);
}
