//! One file of the key index, `keyindex/<from>-<to>`, written once: the keys of the records of a stretch of the log.
//!
//! All integers big-endian:
//!
//! ```text
//!  magic "SLCEKEYS" 8 | from 8 | to 8 | oldest 8 | latest 8 | count 8 | crc of the entries 4 | crc of the header 4
//!  count × ( hash 8 | log offset 8 ), sorted
//! ```

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use sluice_model::Timestamp;

use crate::{Disk, Error, File, handles::Handles};

pub(crate) const RUN_DIR: &str = "keyindex";
const MAGIC: &[u8; 8] = b"SLCEKEYS";
const HEADER: usize = 56;
const ENTRY: usize = 16;
/// Most places of one key that are read from one run.
const HITS: usize = 1024;

/// A key of a record, hashed, and where the record is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct KeyEntry {
    pub hash: u64,
    pub at: u64,
}

/// What a run covers: the stretch of the log, the store times in it, and how many keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    pub from: u64,
    pub to: u64,
    pub oldest: Timestamp,
    pub latest: Timestamp,
    pub count: u64,
}

impl Extent {
    pub fn path(&self) -> String {
        format!("{RUN_DIR}/{:020}-{:020}", self.from, self.to)
    }
}

pub(crate) struct Run {
    pub extent: Extent,
    owner: u64,
    synced: AtomicBool,
    removed: AtomicBool,
}

impl Run {
    /// Writes sorted entries; nothing is synced yet.
    pub fn write(disk: &dyn Disk, owner: u64, extent: Extent, entries: &[KeyEntry]) -> Result<Self, Error> {
        let path = extent.path();
        let bytes = encode(&extent, entries);
        // A damaged file of this name may be longer.
        let _ = disk.remove(&path);
        let written = disk.create(&path, bytes.len() as u64).and_then(|file| file.write_at(&bytes, 0));
        written.map_err(|error| Error::io("write", &path, error))?;
        Ok(Self { extent, owner, synced: AtomicBool::new(false), removed: AtomicBool::new(false) })
    }

    /// Takes a durable run that a checkpoint names; `None` when the file is not there or not what it must be.
    pub fn open(disk: &dyn Disk, owner: u64, extent: Extent) -> Option<Self> {
        let file = disk.open(&extent.path()).ok()?;
        let mut header = [0; HEADER];
        file.read_at(&mut header, 0).ok()?;
        let mut crc = [0; 4];
        crc.copy_from_slice(&header[48..52]);
        let whole = file.len().ok()? == HEADER as u64 + extent.count.checked_mul(ENTRY as u64)?;
        let known = header == encode_header(&extent, u32::from_be_bytes(crc));
        (whole && known).then(|| Self { extent, owner, synced: AtomicBool::new(true), removed: AtomicBool::new(false) })
    }

    /// Whether the entries are those that were written; reads all of them.
    pub fn is_sound(&self, handles: &Handles) -> bool {
        let read = || -> io::Result<bool> {
            let mut bytes = vec![0; HEADER + self.extent.count as usize * ENTRY];
            self.file(handles)?.read_at(&mut bytes, 0)?;
            Ok(crc32fast::hash(&bytes[HEADER..]).to_be_bytes() == bytes[48..52])
        };
        read().unwrap_or(false)
    }

    /// Makes the run durable; `false` when it was already, or is not there any more.
    pub fn sync(&self, handles: &Handles) -> Result<bool, Error> {
        if self.synced.load(Ordering::Acquire) {
            return Ok(false);
        }
        match self.file(handles).and_then(|file| file.sync()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && self.removed.load(Ordering::Acquire) => {
                return Ok(false);
            }
            synced => synced.map_err(|error| Error::io("sync", &self.extent.path(), error))?,
        }
        self.synced.store(true, Ordering::Release);
        Ok(true)
    }

    /// A run that is not there any more at the next start was rebuilt or is not needed: failures do no harm.
    pub fn remove(&self, disk: &dyn Disk, handles: &Handles) {
        self.removed.store(true, Ordering::Release);
        handles.close_all(self.owner);
        let _ = disk.remove(&self.extent.path());
    }

    /// Places of the records with this hash, in order; the newest [`HITS`] when there are more.
    pub fn find(&self, handles: &Handles, hash: u64) -> Result<Vec<u64>, Error> {
        let read = || -> io::Result<Vec<u64>> {
            let file = match self.file(handles) {
                // Dropped since the list of runs was taken.
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
                file => file?,
            };
            let end = self.search(&*file, |entry| entry.hash <= hash)?;
            let mut hits = Vec::new();
            for n in (0..end).rev().take(HITS) {
                let entry = entry_at(&*file, n)?;
                if entry.hash != hash {
                    break;
                }
                hits.push(entry.at);
            }
            hits.reverse();
            Ok(hits)
        };
        read().map_err(|error| Error::io("read", &self.extent.path(), error))
    }

    /// Number of entries for which `before` holds; it holds for the first ones only.
    fn search(&self, file: &dyn File, before: impl Fn(KeyEntry) -> bool) -> io::Result<u64> {
        let (mut low, mut high) = (0, self.extent.count);
        while low < high {
            let middle = low + (high - low) / 2;
            if before(entry_at(file, middle)?) { low = middle + 1 } else { high = middle }
        }
        Ok(low)
    }

    fn file(&self, handles: &Handles) -> io::Result<Arc<dyn File>> {
        handles.get((self.owner, 0), || self.extent.path())
    }
}

fn entry_at(file: &dyn File, n: u64) -> io::Result<KeyEntry> {
    let mut bytes = [0; ENTRY];
    file.read_at(&mut bytes, HEADER as u64 + n * ENTRY as u64)?;
    let both = u128::from_be_bytes(bytes);
    Ok(KeyEntry { hash: (both >> 64) as u64, at: both as u64 })
}

fn encode(extent: &Extent, entries: &[KeyEntry]) -> Vec<u8> {
    let mut bytes = vec![0; HEADER];
    bytes.reserve(entries.len() * ENTRY);
    for entry in entries {
        bytes.extend_from_slice(&entry.hash.to_be_bytes());
        bytes.extend_from_slice(&entry.at.to_be_bytes());
    }
    let header = encode_header(extent, crc32fast::hash(&bytes[HEADER..]));
    bytes[..HEADER].copy_from_slice(&header);
    bytes
}

fn encode_header(extent: &Extent, crc: u32) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    header[..8].copy_from_slice(MAGIC);
    let numbers = [extent.from, extent.to, extent.oldest.0 as u64, extent.latest.0 as u64, extent.count];
    for (n, number) in numbers.iter().enumerate() {
        header[8 + 8 * n..16 + 8 * n].copy_from_slice(&number.to_be_bytes());
    }
    header[48..52].copy_from_slice(&crc.to_be_bytes());
    let sum = crc32fast::hash(&header[..52]);
    header[52..].copy_from_slice(&sum.to_be_bytes());
    header
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::FakeDisk;

    #[test]
    fn a_run_that_retention_took_needs_no_sync_and_one_that_is_lost_is_missed() {
        let disk = FakeDisk::new();
        let handles = Handles::new(Arc::new(disk.clone()), 8);
        let extent = Extent { from: 0, to: 9, oldest: Timestamp(1), latest: Timestamp(2), count: 1 };
        disk.create_dir(RUN_DIR).unwrap();
        let write = || Run::write(&disk, handles.new_owner(), extent, &[KeyEntry { hash: 1, at: 2 }]).unwrap();
        assert!(write().sync(&handles).unwrap());
        let lost = write();
        disk.remove(&extent.path()).unwrap();
        assert!(lost.sync(&handles).is_err());
        let taken = write();
        taken.remove(&disk, &handles);
        assert!(!taken.sync(&handles).unwrap());
    }
}
