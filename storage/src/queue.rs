//! One consume queue: where the messages of a queue are in the log.
//!
//! On disk as in Apache RocketMQ (`ConsumeQueue`): entries of 20 bytes, big-endian: log offset 8, size 4, tag code 8;
//! the entry of queue offset `n` begins at byte `20 * n` of the queue, which is cut into files of 300 000 entries,
//! `consumequeue/<topic>/<queue>/<offset of the file's first byte, 20 digits>`.
//!
//! The newest entries are held in memory and written in blocks. Files are synced at checkpoints only; what a file
//! holds beyond the last checkpoint means nothing.

use std::{
    collections::{BTreeSet, VecDeque},
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use parking_lot::{Mutex, RwLock};
use sluice_model::{LogOffset, QueueId, QueueOffset, TagCode, TopicName};

use crate::{Disk, Error, File, handles::Handles};

pub(crate) const QUEUE_DIR: &str = "consumequeue";
const ENTRY: u64 = 20;
pub(crate) const ENTRY_LEN: usize = ENTRY as usize;
const FILE_ENTRIES: u64 = 300_000;
const FILE_LEN: u64 = FILE_ENTRIES * ENTRY;
/// Entries written at a time, and kept in memory for readers after that.
pub(crate) const BLOCK: usize = 256;
/// Most entries read from a file at a time.
const READ_ENTRIES: u64 = 2048;

/// Where a message is in the log, and what is needed to skip it without looking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    pub queue_offset: QueueOffset,
    pub log_offset: LogOffset,
    /// Bytes of the record.
    pub size: u32,
    pub tag: TagCode,
}

pub(crate) struct Queue {
    pub topic: TopicName,
    pub id: QueueId,
    /// The record that the queue began with.
    pub born: LogOffset,
    owner: u64,
    handles: Arc<Handles>,
    state: RwLock<State>,
    dropped: AtomicBool,
    /// Files written since they were last synced, by their number.
    dirty: Mutex<BTreeSet<u64>>,
}

struct State {
    /// First and end of the entries that are there.
    min: u64,
    /// Entries before this one are in files.
    flushed: u64,
    /// Queue offset of the first entry in `tail`; at most `flushed`.
    base: u64,
    tail: VecDeque<Slot>,
}

#[derive(Clone, Copy)]
struct Slot {
    at: u64,
    size: u32,
    tag: i64,
}

impl State {
    fn end(&self) -> u64 {
        self.base + self.tail.len() as u64
    }

    /// End of the entries of records before `readable`. Entries that are not in memory are all of such records.
    fn visible_end(&self, readable: LogOffset) -> u64 {
        match self.tail.back() {
            Some(last) if last.at >= readable.0 => {
                self.base + self.tail.partition_point(|slot| slot.at < readable.0) as u64
            }
            _ => self.end(),
        }
    }
}

impl Queue {
    /// A queue whose entries `min..end` are in files.
    pub fn new(
        (topic, id): (TopicName, QueueId),
        born: LogOffset,
        (min, end): (QueueOffset, QueueOffset),
        handles: Arc<Handles>,
    ) -> Self {
        let state = State { min: min.0, flushed: end.0, base: end.0, tail: VecDeque::new() };
        let owner = handles.new_owner();
        let (state, dirty) = (RwLock::new(state), Mutex::default());
        Self { topic, id, born, owner, handles, state, dropped: AtomicBool::new(false), dirty }
    }

    pub fn dir(&self) -> String {
        format!("{}/{}", topic_dir(&self.topic), self.id)
    }

    fn path(&self, file: u64) -> String {
        format!("{}/{:020}", self.dir(), file * FILE_LEN)
    }

    pub fn end(&self) -> QueueOffset {
        QueueOffset(self.state.read().end())
    }

    pub fn min(&self) -> QueueOffset {
        QueueOffset(self.state.read().min)
    }

    /// First and end of the entries that may be read; none when the queue began after `readable`.
    pub fn bounds(&self, readable: LogOffset) -> Option<(QueueOffset, QueueOffset)> {
        if self.born >= readable {
            return None;
        }
        let state = self.state.read();
        let end = state.visible_end(readable);
        Some((QueueOffset(state.min.min(end)), QueueOffset(end)))
    }

    /// Adds the next entry. Returns how many entries wait to be written.
    pub fn push(&self, entry: Entry) -> Result<usize, Error> {
        let mut state = self.state.write();
        let end = state.end();
        if entry.queue_offset.0 != end {
            let what = format!(
                "queue {} of topic {} expects offset {end}, the record has {}",
                self.id, self.topic, entry.queue_offset
            );
            return Err(Error::Corrupt { file: "commitlog".to_owned(), offset: entry.log_offset.0, what });
        }
        state.tail.push_back(Slot { at: entry.log_offset.0, size: entry.size, tag: entry.tag.0 });
        Ok((state.end() - state.flushed) as usize)
    }

    /// Writes entries that only memory has, and lets go of all but the newest. After a failure they stay in memory.
    pub fn flush(&self, disk: &dyn Disk) -> Result<(), Error> {
        if self.dropped.load(Ordering::Acquire) {
            return Ok(());
        }
        loop {
            let (first, bytes) = self.next_block();
            if bytes.is_empty() {
                break;
            }
            let count = bytes.len() as u64 / ENTRY;
            self.write(disk, first, &bytes)?;
            self.state.write().flushed = first + count;
        }
        let mut state = self.state.write();
        let spare = (state.flushed - state.base) as usize;
        if spare >= 2 * BLOCK {
            state.tail.drain(..spare - BLOCK);
            state.base += (spare - BLOCK) as u64;
            if state.tail.capacity() > 16 * BLOCK {
                state.tail.shrink_to(4 * BLOCK);
            }
        }
        Ok(())
    }

    /// Entries to be written that belong to one file, encoded.
    fn next_block(&self) -> (u64, Vec<u8>) {
        let state = self.state.read();
        let first = state.flushed;
        let end = state.end().min(end_of_file(first));
        let slots = state.tail.range((first - state.base) as usize..(end - state.base) as usize);
        let mut bytes = Vec::with_capacity(slots.len() * ENTRY as usize);
        for slot in slots {
            bytes.extend_from_slice(&slot.encode());
        }
        (first, bytes)
    }

    /// Writes encoded entries from queue offset `first` on; they all belong to one file.
    pub fn write(&self, disk: &dyn Disk, first: u64, bytes: &[u8]) -> Result<(), Error> {
        let number = first / FILE_ENTRIES;
        let written = self.file_for_write(disk, number).and_then(|file| {
            let written = file.write_at(bytes, first % FILE_ENTRIES * ENTRY);
            // Only now: a sync that begins before may end without these bytes.
            self.dirty.lock().insert(number);
            written
        });
        written.map_err(|error| Error::io("write", &self.path(number), error))
    }

    fn file_for_write(&self, disk: &dyn Disk, number: u64) -> io::Result<Arc<dyn File>> {
        let key = (self.owner, number);
        if let Some(file) = self.handles.lookup(key) {
            return Ok(file);
        }
        let file = match disk.open(&self.path(number)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                disk.create_dir(&self.dir())?;
                disk.create(&self.path(number), FILE_LEN)?
            }
            opened => opened?,
        };
        Ok(self.handles.keep(key, file))
    }

    /// Whether anything was written since the last [`Self::sync`].
    pub fn is_dirty(&self) -> bool {
        !self.dirty.lock().is_empty()
    }

    /// Makes what was written durable, names of files included.
    ///
    /// The topic may be deleted meanwhile, or retention take files: what is not there any more needs no sync.
    pub fn sync(&self, disk: &dyn Disk) -> Result<(), Error> {
        self.sync_files(disk, self.take_dirty())
    }

    fn sync_files(&self, disk: &dyn Disk, numbers: BTreeSet<u64>) -> Result<(), Error> {
        let gone = |error: &io::Error| error.kind() == io::ErrorKind::NotFound && self.dropped.load(Ordering::Acquire);
        let cut = |error: &io::Error, number: u64| {
            error.kind() == io::ErrorKind::NotFound && number < self.state.read().min / FILE_ENTRIES
        };
        for number in numbers {
            if let Err(error) = self.file(number).and_then(|file| file.sync())
                && !gone(&error)
                && !cut(&error, number)
            {
                return Err(Error::io("sync", &self.path(number), error));
            }
        }
        for dir in [self.dir(), topic_dir(&self.topic), QUEUE_DIR.to_owned()] {
            if let Err(error) = disk.sync_dir(&dir)
                && !gone(&error)
            {
                return Err(Error::io("sync", &dir, error));
            }
        }
        Ok(())
    }

    pub fn take_dirty(&self) -> BTreeSet<u64> {
        std::mem::take(&mut *self.dirty.lock())
    }

    /// Puts up to `max` entries from `from` on into `out`, none of a record at or after `readable`.
    pub fn entries(&self, from: QueueOffset, max: usize, readable: LogOffset, out: &mut Vec<Entry>) {
        let (before, mut at, mut end) = (out.len(), from.0, from.0.saturating_add(max as u64));
        while at < end {
            let base = {
                let state = self.state.read();
                end = end.min(state.visible_end(readable));
                if at < state.min || at >= end {
                    break;
                }
                if at >= state.base {
                    state.copy(at, end, out);
                    break;
                }
                state.base
            };
            // Entries before those in memory do not change any more: no lock while they are read.
            let to = end.min(base).min(end_of_file(at)).min(at + READ_ENTRIES);
            if self.read(at, to, readable, out).is_err() {
                break;
            }
            at = to;
        }
        if self.dropped.load(Ordering::Acquire) {
            out.truncate(before);
        }
    }

    /// Reads entries from one file; stops with an error where they make no sense.
    fn read(&self, from: u64, to: u64, readable: LogOffset, out: &mut Vec<Entry>) -> io::Result<()> {
        let mut bytes = vec![0; ((to - from) * ENTRY) as usize];
        self.file(from / FILE_ENTRIES)?.read_at(&mut bytes, from % FILE_ENTRIES * ENTRY)?;
        for (n, bytes) in bytes.chunks_exact(ENTRY as usize).enumerate() {
            let slot = Slot::decode(bytes).filter(|slot| slot.at + u64::from(slot.size) <= readable.0);
            let slot = slot.ok_or(io::ErrorKind::InvalidData)?;
            out.push(slot.entry(from + n as u64));
        }
        Ok(())
    }

    fn file(&self, number: u64) -> io::Result<Arc<dyn File>> {
        self.handles.get((self.owner, number), || self.path(number))
    }

    /// The entry at `offset`, wherever it is; `None` when there is none or it makes no sense.
    pub fn entry(&self, offset: QueueOffset, readable: LogOffset) -> Option<Entry> {
        let mut out = Vec::with_capacity(1);
        self.entries(offset, 1, readable, &mut out);
        out.pop()
    }

    /// Forgets entries of records before `start` and removes files that hold nothing else.
    pub fn cut_front(&self, disk: &dyn Disk, start: LogOffset) {
        let (min, end) = {
            let state = self.state.read();
            (state.min, state.end())
        };
        let all = LogOffset(u64::MAX);
        let gone = |offset: u64| self.entry(QueueOffset(offset), all).is_none_or(|entry| entry.log_offset < start);
        let mut low = min;
        if min < end && gone(min) {
            let mut high = end;
            while low < high {
                let middle = low + (high - low) / 2;
                if gone(middle) { low = middle + 1 } else { high = middle }
            }
            self.set_min(QueueOffset(low));
        }
        // Those before an entry that was there, too: they are of messages that expired.
        self.remove_files(disk, low / FILE_ENTRIES);
    }

    /// Removes files numbered below `limit`. One that cannot be removed now is removed the next time.
    pub fn remove_files(&self, disk: &dyn Disk, limit: u64) {
        if limit == 0 {
            return;
        }
        for name in disk.list(&self.dir()).unwrap_or_default() {
            let number = crate::segment::parse_name(&name).map(|byte| byte / FILE_LEN);
            if let Some(number) = number.filter(|number| *number < limit) {
                self.handles.close((self.owner, number));
                self.dirty.lock().remove(&number);
                let _ = disk.remove(&self.path(number));
            }
        }
    }

    /// Moves the first entry up: the log begins later than the queue, or what is before it expired. Its files stay.
    pub fn set_min(&self, min: QueueOffset) {
        let mut state = self.state.write();
        state.min = min.0.max(state.min).min(state.end());
    }

    /// The queue exists no more: nothing is written for it, readers get nothing from it.
    pub fn drop_all(&self) {
        self.dropped.store(true, Ordering::Release);
        self.dirty.lock().clear();
        self.handles.close_all(self.owner);
    }
}

impl State {
    fn copy(&self, from: u64, to: u64, out: &mut Vec<Entry>) {
        let range = (from - self.base) as usize..to.saturating_sub(self.base) as usize;
        if range.start < range.end {
            out.extend(self.tail.range(range).enumerate().map(|(n, slot)| slot.entry(from + n as u64)));
        }
    }
}

impl Slot {
    fn encode(self) -> [u8; ENTRY as usize] {
        let mut out = [0; ENTRY as usize];
        out[..8].copy_from_slice(&self.at.to_be_bytes());
        out[8..12].copy_from_slice(&self.size.to_be_bytes());
        out[12..].copy_from_slice(&self.tag.to_be_bytes());
        out
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let at = u64::from_be_bytes(bytes.get(..8)?.try_into().ok()?);
        let size = u32::from_be_bytes(bytes.get(8..12)?.try_into().ok()?);
        let tag = i64::from_be_bytes(bytes.get(12..20)?.try_into().ok()?);
        (size > 0 && at.checked_add(u64::from(size)).is_some()).then_some(Self { at, size, tag })
    }

    fn entry(self, offset: u64) -> Entry {
        Entry {
            queue_offset: QueueOffset(offset),
            log_offset: LogOffset(self.at),
            size: self.size,
            tag: TagCode(self.tag),
        }
    }
}

/// The encoded form of an entry, for rebuilding a file.
pub(crate) fn encode(entry: &Entry) -> [u8; ENTRY_LEN] {
    Slot { at: entry.log_offset.0, size: entry.size, tag: entry.tag.0 }.encode()
}

/// Whether the entry of `offset` is the first of a file.
pub(crate) fn begins_file(offset: u64) -> bool {
    offset.is_multiple_of(FILE_ENTRIES)
}

/// End of the entries of the file that has `offset`.
pub(crate) fn end_of_file(offset: u64) -> u64 {
    (offset / FILE_ENTRIES + 1) * FILE_ENTRIES
}

pub(crate) fn topic_dir(topic: &TopicName) -> String {
    format!("{QUEUE_DIR}/{topic}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::FakeDisk;

    /// None of its entries is written yet.
    fn of_two_files() -> (FakeDisk, Queue) {
        let disk = FakeDisk::new();
        let handles = Arc::new(Handles::new(Arc::new(disk.clone()), 8));
        let name = (TopicName::parse("t").unwrap(), QueueId(0));
        let queue = Queue::new(name, LogOffset(0), (QueueOffset(0), QueueOffset(FILE_ENTRIES + 2)), handles);
        (disk, queue)
    }

    #[test]
    fn what_retention_took_before_it_was_synced_is_not_missed_and_what_is_lost_is() {
        let (disk, queue) = of_two_files();
        for first in [0, FILE_ENTRIES] {
            queue.write(&disk, first, &[1; ENTRY_LEN]).unwrap();
        }
        let dirty = queue.take_dirty();
        assert_eq!(dirty.len(), 2);
        queue.set_min(QueueOffset(FILE_ENTRIES + 1));
        queue.remove_files(&disk, 1);
        queue.sync_files(&disk, dirty.clone()).unwrap();
        disk.remove(&queue.path(1)).unwrap();
        queue.handles.close_all(queue.owner);
        assert!(queue.sync_files(&disk, dirty.clone()).is_err());
        queue.drop_all();
        queue.sync_files(&disk, dirty).unwrap();
    }

    #[test]
    fn files_of_messages_that_expired_go_with_the_log() {
        let (disk, queue) = of_two_files();
        let place = |queue_offset: u64, at: u64| {
            let (queue_offset, log_offset) = (QueueOffset(queue_offset), LogOffset(at));
            encode(&Entry { queue_offset, log_offset, size: 1, tag: TagCode(0) })
        };
        queue.write(&disk, 0, &place(0, 10)).unwrap();
        queue.write(&disk, FILE_ENTRIES + 1, &place(FILE_ENTRIES + 1, 500)).unwrap();
        queue.set_min(QueueOffset(FILE_ENTRIES + 1));
        let files = || disk.list(&queue.dir()).unwrap().len();
        assert_eq!(files(), 2);
        queue.cut_front(&disk, LogOffset(100));
        assert_eq!((queue.min().0, files()), (FILE_ENTRIES + 1, 1));
        queue.cut_front(&disk, LogOffset(501));
        assert_eq!((queue.min().0, files()), (FILE_ENTRIES + 2, 1));
    }
}
