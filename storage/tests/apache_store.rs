//! A log that Apache RocketMQ wrote: records without a checksum of the whole, without units.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may stop where it fails")]

#[path = "kit/mod.rs"]
mod kit;

use kit::{World, message, small};
use sluice_model::{
    Host, LogOffset, QueueOffset, Timestamp,
    record::{self, Placement, UnitPlace},
};
use sluice_storage::{Disk, fake::FakeDisk};

const LOG: &str = "commitlog/00000000000000000000";
/// `__CRC32#`, separator, ten digits, separator.
const SUM: usize = 20;

/// A record as Apache writes it by default: ours without its last property.
fn apache_record(n: u64, at: u64) -> Vec<u8> {
    let place = Placement {
        queue_offset: QueueOffset(n),
        log_offset: LogOffset(at),
        stored_at: Timestamp(5),
        store_host: Host::LOCAL,
        unit: UnitPlace::ALONE,
    };
    let message = message("t", 0, &n.to_be_bytes());
    let mut bytes = Vec::new();
    record::encode(&mut bytes, &message, &place);
    let properties = message.properties.as_bytes().len();
    let len_at = bytes.len() - SUM - properties - 2;
    bytes.truncate(bytes.len() - SUM);
    bytes[len_at..len_at + 2].copy_from_slice(&(properties as u16).to_be_bytes());
    let size = bytes.len() as u32;
    bytes[..4].copy_from_slice(&size.to_be_bytes());
    bytes
}

fn apache_store() -> FakeDisk {
    let disk = FakeDisk::new();
    disk.create_dir("commitlog").unwrap();
    let file = disk.create(LOG, 16_384).unwrap();
    let mut at = 0;
    for n in 0..20 {
        let bytes = apache_record(n, at);
        file.write_at(&bytes, at).unwrap();
        at += bytes.len() as u64;
    }
    disk
}

#[test]
fn it_is_read_and_written_on() {
    let disk = apache_store();
    let mut world = World::open(&disk, small()).unwrap();
    let mut bodies: Vec<Vec<u8>> = (0..20u64).map(|n| n.to_be_bytes().to_vec()).collect();
    assert_eq!(world.bodies("t", 0), bodies);
    world.put(&[message("t", 0, b"ours")]).unwrap();
    bodies.push(b"ours".to_vec());
    drop(world);
    assert_eq!(World::open(&disk, small()).unwrap().bodies("t", 0), bodies);
}

#[test]
fn a_record_of_ours_that_lost_its_checksum_is_not_taken_for_one_of_apaches() {
    let disk = FakeDisk::new();
    let mut world = World::open(&disk, small()).unwrap();
    let unit = [message("t", 0, b"first half"), message("t", 0, b"second half")];
    let written = world.append(&unit).unwrap();
    // The end of the first record, with the place in its unit and the checksum, was not written.
    let size = u32::from_be_bytes(written.bytes[..4].try_into().unwrap()) as usize;
    disk.damage(LOG, size as u64 - 45, &[0; 45]).unwrap();
    let world = World::open(&disk, small()).unwrap();
    assert_eq!(world.bounds("t", 0), None);
    assert_eq!(world.log.reader.appended(), LogOffset(0));
}
