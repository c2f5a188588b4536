//! The key index: from a message's keys to its place in the log.
//!
//! Keys of a record are its `UNIQ_KEY` and each word of `KEYS`. The newest are held in memory; when there are enough,
//! they are sealed, and written as an immutable sorted file, a [`Run`].

use std::{collections::VecDeque, sync::Arc};

use parking_lot::{Mutex, RwLock};
use sluice_model::{LogOffset, RecordView, Timestamp, key};

use crate::{
    Disk, Error,
    handles::Handles,
    run::{Extent, KeyEntry, Run},
};

/// Most keys of one record that are indexed; what comes after them is not found by key.
const RECORD_KEYS: usize = 1024;

/// Whoever takes more than one of the locks takes them in this order.
pub(crate) struct Keys {
    newest: RwLock<Newest>,
    /// Those that wait to be written, the oldest first.
    sealed: RwLock<VecDeque<Arc<Sealed>>>,
    runs: RwLock<Vec<Arc<Run>>>,
    handles: Arc<Handles>,
    /// Held while sealed keys are written.
    writing: Mutex<()>,
}

/// Keys to be written as a run.
struct Sealed {
    extent: Extent,
    entries: Vec<KeyEntry>,
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
        let (sealed, writing) = (RwLock::default(), Mutex::default());
        Self { newest: RwLock::new(Newest::empty(from.0)), sealed, runs: RwLock::new(runs), handles, writing }
    }

    /// Adds the keys of a record. Returns how many keys are not sealed.
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
        let (newest, sealed) = (self.newest.read(), self.sealed.read());
        LogOffset(sealed.front().map_or(newest.from, |first| first.extent.from))
    }

    /// [`Self::unwritten_from`], and the runs before that.
    pub fn describe(&self) -> (LogOffset, Vec<Extent>) {
        let (newest, sealed, runs) = (self.newest.read(), self.sealed.read(), self.runs.read());
        let from = sealed.front().map_or(newest.from, |first| first.extent.from);
        (LogOffset(from), runs.iter().map(|run| run.extent).collect())
    }

    /// Seals the keys in memory, which are those of all records before `to`.
    pub fn seal(&self, to: LogOffset) {
        let mut newest = self.newest.write();
        let Newest { from, oldest, latest, entries } = std::mem::replace(&mut *newest, Newest::empty(to.0));
        if !entries.is_empty() {
            let extent = Extent { from, to: to.0, oldest, latest, count: entries.len() as u64 };
            self.sealed.write().push_back(Arc::new(Sealed { extent, entries }));
        }
    }

    /// How many runs wait to be written.
    pub fn sealed(&self) -> usize {
        self.sealed.read().len()
    }

    /// Writes the oldest sealed keys as a run, which is not durable yet; `false` when there are none.
    pub fn write_run(&self, disk: &dyn Disk) -> Result<bool, Error> {
        let _writing = self.writing.lock();
        let Some(oldest) = self.sealed.read().front().cloned() else { return Ok(false) };
        let mut entries = oldest.entries.clone();
        entries.sort_unstable();
        let run = Arc::new(Run::write(disk, self.handles.new_owner(), oldest.extent, &entries)?);
        let (mut sealed, mut runs) = (self.sealed.write(), self.runs.write());
        sealed.pop_front();
        runs.push(run);
        Ok(true)
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
            // All locks, so that keys that move on to a run are seen once.
            let (newest, sealed, runs) = (self.newest.read(), self.sealed.read(), self.runs.read());
            let sealed = sealed.iter().rev().flat_map(|sealed| sealed.entries.iter().rev());
            let hits = newest.entries.iter().rev().chain(sealed);
            let hits = hits.filter(|entry| entry.hash == hash && entry.at < readable.0);
            (hits.map(|entry| entry.at).collect::<Vec<_>>(), runs.clone())
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
