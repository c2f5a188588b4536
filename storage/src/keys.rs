//! The key index: from a message's keys to its place in the log.
//!
//! Keys of a record are its `UNIQ_KEY` and each word of `KEYS`. The newest are held in memory; when there are enough,
//! they are written as an immutable sorted file, a [`Run`].

use std::sync::Arc;

use parking_lot::RwLock;
use sluice_model::{LogOffset, RecordView, Timestamp, key};

use crate::{
    Disk, Error,
    handles::Handles,
    run::{Extent, KeyEntry, Run},
};

/// Most keys of one record that are indexed; what comes after them is not found by key.
const RECORD_KEYS: usize = 1024;

pub(crate) struct Keys {
    newest: RwLock<Newest>,
    runs: RwLock<Vec<Arc<Run>>>,
    handles: Arc<Handles>,
}

/// Keys of the records from `from` on.
struct Newest {
    entries: Vec<KeyEntry>,
    from: u64,
    oldest: Timestamp,
    latest: Timestamp,
}

impl Newest {
    fn empty(from: u64) -> Self {
        Self { entries: Vec::new(), from, oldest: Timestamp(i64::MAX), latest: Timestamp(i64::MIN) }
    }
}

impl Keys {
    /// An index with these runs and nothing in memory; records from `from` on are not in a run.
    pub fn new(handles: Arc<Handles>, runs: Vec<Arc<Run>>, from: LogOffset) -> Self {
        Self { newest: RwLock::new(Newest::empty(from.0)), runs: RwLock::new(runs), handles }
    }

    /// Adds the keys of a record. Returns how many keys wait to be written.
    pub fn add(&self, record: &RecordView<'_>) -> usize {
        let mut newest = self.newest.write();
        let before = newest.entries.len();
        each_key(record, |entry| newest.entries.push(entry));
        if newest.entries.len() > before {
            newest.oldest = newest.oldest.min(record.stored_at());
            newest.latest = newest.latest.max(record.stored_at());
        }
        newest.entries.len()
    }

    /// Offset from which on keys are in memory only.
    pub fn unwritten_from(&self) -> LogOffset {
        LogOffset(self.newest.read().from)
    }

    /// Writes the keys in memory, which are those of all records before `to`, as a run.
    pub fn write_run(&self, disk: &dyn Disk, to: LogOffset) -> Result<(), Error> {
        let (extent, mut entries) = {
            let newest = self.newest.read();
            let Newest { from, oldest, latest, .. } = *newest;
            (Extent { from, to: to.0, oldest, latest, count: newest.entries.len() as u64 }, newest.entries.clone())
        };
        if !entries.is_empty() {
            entries.sort_unstable();
            let run = Run::write(disk, self.handles.new_owner(), extent, &entries)?;
            self.runs.write().push(Arc::new(run));
        }
        *self.newest.write() = Newest::empty(to.0);
        Ok(())
    }

    /// Adds runs made by recovery.
    pub fn insert_run(&self, run: Run) {
        let mut runs = self.runs.write();
        let at = runs.partition_point(|other| other.extent.from <= run.extent.from);
        runs.insert(at, Arc::new(run));
    }

    pub fn runs(&self) -> Vec<Arc<Run>> {
        self.runs.read().clone()
    }

    /// Makes all runs durable, names of files included.
    pub fn sync(&self, disk: &dyn Disk) -> Result<(), Error> {
        let mut synced = false;
        for run in self.runs() {
            synced |= run.sync(&self.handles)?;
        }
        if synced {
            let dir = crate::run::RUN_DIR;
            disk.sync_dir(dir).map_err(|error| Error::io("sync", dir, error))?;
        }
        Ok(())
    }

    /// Drops runs that only have records before `start`, and the oldest of more than `limit`.
    pub fn cut_front(&self, disk: &dyn Disk, start: LogOffset, limit: usize) {
        let gone: Vec<Arc<Run>> = {
            let mut runs = self.runs.write();
            let old = runs.partition_point(|run| run.extent.to <= start.0);
            let surplus = runs.len().saturating_sub(limit);
            runs.drain(..old.max(surplus)).collect()
        };
        for run in gone {
            run.remove(disk, &self.handles);
        }
    }

    /// Calls `found` with places where a record with this key may be, newest first, until it says stop (`false`).
    pub fn candidates(
        &self,
        (topic, key): (&str, &str),
        (from, to): (Timestamp, Timestamp),
        readable: LogOffset,
        mut found: impl FnMut(LogOffset) -> Result<bool, Error>,
    ) -> Result<(), Error> {
        let hash = hash(topic, key.as_bytes());
        let (recent, runs) = {
            // Both locks, so that keys that move from memory to a run are seen once.
            let newest = self.newest.read();
            let hits = newest.entries.iter().rev().filter(|entry| entry.hash == hash && entry.at < readable.0);
            (hits.map(|entry| entry.at).collect::<Vec<_>>(), self.runs())
        };
        for at in recent {
            if !found(LogOffset(at))? {
                return Ok(());
            }
        }
        for run in runs.iter().rev().filter(|run| run.extent.oldest <= to && run.extent.latest >= from) {
            for at in run.find(&self.handles, hash)?.into_iter().rev() {
                if !found(LogOffset(at))? {
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

/// Calls `each` with the keys of a record, hashed: its `UNIQ_KEY`, and the words of its `KEYS`.
pub(crate) fn each_key(record: &RecordView<'_>, mut each: impl FnMut(KeyEntry)) {
    let (topic, at) = (record.topic(), record.log_offset().0);
    let (mut unique, mut words) = (None, None);
    for (name, value) in record.own_properties() {
        match name {
            key::UNIQUE_KEY => unique = unique.or(Some(value)),
            key::KEYS => words = words.or(Some(value)),
            _ => {}
        }
    }
    let words = words.unwrap_or_default().as_bytes().split(|byte| *byte == b' ').filter(|word| !word.is_empty());
    let keys = unique.map(str::as_bytes).into_iter().chain(words).take(RECORD_KEYS);
    keys.for_each(|key| each(KeyEntry { hash: hash(topic, key), at }));
}

/// Whether `key` is one of the record's keys.
pub(crate) fn has_key(record: &RecordView<'_>, key: &str) -> bool {
    record.property(key::UNIQUE_KEY) == Some(key)
        || record.property(key::KEYS).is_some_and(|words| words.split(' ').any(|word| word == key))
}

/// Hash of a key as it stands in files, for ever: FNV-1a, 64 bits, over `topic#key`, with its bits mixed.
fn hash(topic: &str, key: &[u8]) -> u64 {
    let bytes = topic.bytes().chain([b'#']).chain(key.iter().copied());
    let sum = bytes.fold(0xCBF2_9CE4_8422_2325u64, |sum, byte| (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3));
    sum ^ (sum >> 32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_never_changes() {
        // Files of older versions depend on it. The number was computed by another program.
        assert_eq!(hash("orders", b"id-1"), 0x9C66_8EF3_F48C_9439);
        assert_ne!(hash("a", b"b"), hash("ab", b""));
    }
}
