//! One suite for both disks: the fake must do what the real one does.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may stop where it fails")]

#[path = "kit/mod.rs"]
mod kit;

use std::{io, sync::Arc};

use kit::{World, message, small};
use sluice_storage::{Disk, RealDisk, fake::FakeDisk};

fn on_both(test: impl Fn(Arc<dyn Disk>)) {
    test(Arc::new(FakeDisk::new()));
    let dir = tempfile::tempdir().unwrap();
    test(Arc::new(RealDisk::open(dir.path()).unwrap()));
}

fn kind<T>(result: io::Result<T>) -> io::ErrorKind {
    result.err().map(|error| error.kind()).unwrap()
}

#[test]
fn files_keep_what_is_written_and_are_zero_elsewhere() {
    on_both(|disk| {
        assert_eq!(kind(disk.open("f")), io::ErrorKind::NotFound);
        let file = disk.create("f", 10_000).unwrap();
        file.write_at(b"hello", 4094).unwrap();
        let mut read = [1; 9];
        file.read_at(&mut read, 4092).unwrap();
        assert_eq!(&read, b"\0\0hello\0\0");
        assert_eq!(&file.slice(4094, 5).unwrap()[..], b"hello");
        assert_eq!(file.len().unwrap(), 10_000);
        assert_eq!(kind(file.read_at(&mut read, 9_995)), io::ErrorKind::UnexpectedEof);
        assert_eq!(kind(file.slice(9_999, 2)), io::ErrorKind::UnexpectedEof);
    });
}

#[test]
fn holes_can_be_skipped() {
    on_both(|disk| {
        let file = disk.create("f", 1 << 20).unwrap();
        assert_eq!(file.next_data(0).unwrap(), None);
        file.write_at(b"x", 300_000).unwrap();
        let found = file.next_data(0).unwrap().unwrap();
        assert!(found > 200_000 && found <= 300_000, "{found}");
        assert_eq!(file.next_data(300_000).unwrap(), Some(300_000));
        assert_eq!(file.next_data(400_000).unwrap(), None);
        assert_eq!(file.next_data(1 << 20).unwrap(), None);
    });
}

#[test]
fn creating_a_file_that_is_there_extends_it_and_keeps_its_content() {
    on_both(|disk| {
        disk.create("f", 100).unwrap().write_at(b"x", 99).unwrap();
        let file = disk.create("f", 200).unwrap();
        assert_eq!(file.len().unwrap(), 200);
        assert_eq!(&file.slice(99, 2).unwrap()[..], b"x\0");
        assert_eq!(disk.create("f", 50).unwrap().len().unwrap(), 200);
    });
}

#[test]
fn allocating_changes_neither_content_nor_length() {
    on_both(|disk| {
        let file = disk.create("f", 8192).unwrap();
        file.write_at(b"x", 5000).unwrap();
        file.allocate(0, 8192).unwrap();
        file.allocate(4096, 4096).unwrap();
        assert_eq!(file.len().unwrap(), 8192);
        assert_eq!(&file.slice(4999, 3).unwrap()[..], b"\0x\0");
    });
}

#[test]
fn directories_are_made_listed_and_removed_with_all_in_them() {
    on_both(|disk| {
        assert!(disk.list("a").unwrap().is_empty());
        assert_eq!(kind(disk.create("a/f", 1)), io::ErrorKind::NotFound);
        disk.create_dir("a/b").unwrap();
        disk.create_dir("a/b").unwrap();
        disk.create("a/b/f", 1).unwrap();
        disk.create("a/g", 1).unwrap();
        let mut names = disk.list("a").unwrap();
        names.sort();
        assert_eq!(names, ["b", "g"]);
        for dir in ["", "a", "a/b"] {
            disk.sync_dir(dir).unwrap();
        }
        disk.sync_all().unwrap();
        disk.remove_dir_all("a").unwrap();
        disk.remove_dir_all("a").unwrap();
        assert_eq!(kind(disk.open("a/b/f")), io::ErrorKind::NotFound);
    });
}

#[test]
fn a_rename_replaces_and_a_removed_file_stays_readable_while_open() {
    on_both(|disk| {
        let new = disk.create("new", 3).unwrap();
        new.write_at(b"new", 0).unwrap();
        let old = disk.create("old", 3).unwrap();
        old.write_at(b"old", 0).unwrap();
        disk.rename("new", "old").unwrap();
        assert_eq!(kind(disk.open("new")), io::ErrorKind::NotFound);
        assert_eq!(&disk.open("old").unwrap().slice(0, 3).unwrap()[..], b"new");
        disk.remove("old").unwrap();
        assert_eq!(kind(disk.remove("old")), io::ErrorKind::NotFound);
        assert_eq!(&old.slice(0, 3).unwrap()[..], b"old");
        assert_eq!(&new.slice(0, 3).unwrap()[..], b"new");
        assert!(disk.free_bytes().unwrap() > 0);
    });
}

#[test]
fn a_log_written_and_opened_again_has_everything() {
    on_both(|disk| {
        let mut world = World::open_on(disk.clone(), small()).unwrap();
        for n in 0..100u8 {
            world.put(&[message("t", u32::from(n % 3), &[n; 100]), message("u", 0, &[n])]).unwrap();
            if world.log.applier.checkpoint_due() {
                world.checkpoint().unwrap();
            }
        }
        let views = world.views.clone();
        assert_eq!(views.0.len(), 200);
        drop(world);
        let world = World::open_on(disk, small()).unwrap();
        assert_eq!(world.views, views);
        assert_eq!(world.bodies("u", 0), (0..100).map(|n| vec![n]).collect::<Vec<_>>());
        assert_eq!(world.bodies("t", 1).len(), 33);
        assert!(world.log.recovery.checkpoint.is_some() && world.log.recovery.repaired_queues == 0);
    });
}

#[test]
fn one_directory_is_opened_once() {
    let dir = tempfile::tempdir().unwrap();
    let disk = RealDisk::open(dir.path()).unwrap();
    let error = RealDisk::open(dir.path()).err().unwrap();
    assert_eq!(error.kind(), sluice_model::Kind::Conflict);
    assert_eq!(error.to_string(), format!("{} is in use by another process", dir.path().display()));
    drop(disk);
    RealDisk::open(dir.path()).unwrap();
}
