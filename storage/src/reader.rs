//! Reading: any number of readers, no lock of the appender's.

use std::sync::Arc;

use bytes::Bytes;
use sluice_model::{LogOffset, QueueId, QueueOffset, RecordView, Timestamp, TopicName, record};

use crate::{Entry, Error, keys::has_key, queue::Queue, shared::Shared};

/// Places looked at in a query by key before giving up: what hashes like the key may be another.
const KEY_CANDIDATES: usize = 10_000;

/// Which message a time between two messages means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Boundary {
    /// The first message stored at that time or later; the end of the queue when there is none.
    Lower,
    /// The last message stored at that time or earlier; the first of the queue when there is none.
    Upper,
}

/// Reads what is readable: records that are durable and in queues, index and views, whole batches at a time.
#[derive(Clone)]
pub struct Reader {
    pub(crate) shared: Arc<Shared>,
}

impl Reader {
    /// First offset and end (the offset of the next message to come) of a queue; `None` while nothing was ever in it.
    pub fn bounds(&self, topic: &TopicName, queue: QueueId) -> Option<(QueueOffset, QueueOffset)> {
        self.queue(topic, queue)?.bounds(self.readable())
    }

    /// Puts up to `max` entries from queue offset `from` on into `out`: fewer at the end of the queue, and none when
    /// `from` is outside its bounds.
    pub fn entries(&self, topic: &TopicName, queue: QueueId, from: QueueOffset, max: usize, out: &mut Vec<Entry>) {
        if let Some(queue) = self.queue(topic, queue) {
            queue.entries(from, max, self.readable(), out);
        }
    }

    /// The record of an entry: bytes of the log itself. Fails with [`Error::NotFound`] when the log does not have it
    /// any more, and with [`Error::Corrupt`] when something else is there. Its checksum is not computed.
    pub fn record(&self, at: LogOffset, size: u32) -> Result<Bytes, Error> {
        let (peeked, bytes) = self.slice(at, size as usize)?;
        if peeked != size as usize {
            return Err(corrupt(at, format!("expected a record of {size} bytes, found one of {peeked}")));
        }
        Ok(bytes)
    }

    /// Records that stand side by side, `len` bytes in all, in one piece. Fails as [`Self::record`], which looks at the
    /// first of them only.
    pub fn span(&self, at: LogOffset, len: u32) -> Result<Bytes, Error> {
        let (first, bytes) = self.slice(at, len as usize)?;
        if first > len as usize {
            return Err(corrupt(at, format!("expected records of {len} bytes, found one of {first}")));
        }
        Ok(bytes)
    }

    /// The record that begins at `at`. Fails with [`Error::NotFound`] when none does.
    pub fn record_at(&self, at: LogOffset) -> Result<Bytes, Error> {
        let no_record = || Error::NotFound(format!("a record at {at}"));
        let (size, _) = self.slice(at, record::MIN_LEN).map_err(|error| match error {
            Error::Corrupt { .. } => no_record(),
            other => other,
        })?;
        let (_, bytes) = self.slice(at, size).map_err(|_| no_record())?;
        RecordView::parse(&bytes).and_then(|view| view.verify()).map_err(|_| no_record())?;
        Ok(bytes)
    }

    /// The offset in a queue that `time` means. Fails with [`Error::NotFound`] for a queue that does not exist.
    pub fn offset_at_time(
        &self,
        topic: &TopicName,
        queue: QueueId,
        time: Timestamp,
        boundary: Boundary,
    ) -> Result<QueueOffset, Error> {
        let no_queue = || Error::NotFound(format!("queue {queue} of topic {topic}"));
        let queue = self.queue(topic, queue).ok_or_else(no_queue)?;
        let (min, end) = queue.bounds(self.readable()).ok_or_else(no_queue)?;
        let (mut low, mut high) = (min.0, end.0);
        while low < high {
            let middle = low + (high - low) / 2;
            let before = match (self.stored_at(&queue, QueueOffset(middle))?, boundary) {
                // Gone by retention a moment ago: older than anything that is there.
                (None, _) => true,
                (Some(stored_at), Boundary::Lower) => stored_at < time,
                (Some(stored_at), Boundary::Upper) => stored_at <= time,
            };
            if before { low = middle + 1 } else { high = middle }
        }
        Ok(match boundary {
            Boundary::Lower => QueueOffset(low),
            Boundary::Upper => QueueOffset(low.saturating_sub(1).max(min.0)),
        })
    }

    /// The first message of a queue that was stored at `time` or later, if there are any before it. For who alone takes messages
    /// away: one that cannot be read is not taken for one that is gone, and then there is no answer.
    pub(crate) fn later_start(&self, queue: &Queue, time: Timestamp) -> Result<Option<QueueOffset>, Error> {
        let Some((min, end)) = queue.bounds(self.readable()) else { return Ok(None) };
        // Mostly the first is young enough, and one look tells.
        let (mut low, mut high, mut middle) = (min.0, end.0, min.0);
        while low < high {
            let Some(stored_at) = self.stored_at(queue, QueueOffset(middle))? else { return Ok(None) };
            if stored_at < time {
                low = middle + 1;
            } else if middle == min.0 {
                return Ok(None);
            } else {
                high = middle;
            }
            middle = low + (high - low) / 2;
        }
        Ok((low > min.0).then_some(QueueOffset(low)))
    }

    fn stored_at(&self, queue: &Queue, offset: QueueOffset) -> Result<Option<Timestamp>, Error> {
        let Some(entry) = queue.entry(offset, self.readable()) else { return Ok(None) };
        match self.record(entry.log_offset, entry.size) {
            Err(Error::NotFound(_)) => Ok(None),
            Err(error) => Err(error),
            Ok(bytes) => match RecordView::parse(&bytes) {
                Ok(record) => Ok(Some(record.stored_at())),
                Err(error) => Err(corrupt(entry.log_offset, error.to_string())),
            },
        }
    }

    /// Places of up to `max` records of a topic that have `key` and were stored from `from` to `to` (both included),
    /// newest first. Looks at 10 000 places of the key in the log at most, the newest ones.
    pub fn by_key(
        &self,
        topic: &TopicName,
        key: &str,
        from: Timestamp,
        to: Timestamp,
        max: usize,
    ) -> Result<Vec<LogOffset>, Error> {
        let mut found: Vec<LogOffset> = Vec::new();
        let mut looked_at = 0;
        let keys = &self.shared.keys;
        keys.candidates((topic.as_str(), key), (from, to), self.readable(), |at| {
            if found.len() < max && !found.contains(&at) && self.matches(at, topic, key, (from, to))? {
                found.push(at);
            }
            looked_at += 1;
            Ok(found.len() < max && looked_at < KEY_CANDIDATES)
        })?;
        found.sort_unstable_by(|a, b| b.cmp(a));
        Ok(found)
    }

    fn matches(
        &self,
        at: LogOffset,
        topic: &TopicName,
        key: &str,
        (from, to): (Timestamp, Timestamp),
    ) -> Result<bool, Error> {
        let bytes = match self.record_at(at) {
            Err(Error::NotFound(_)) => return Ok(false),
            bytes => bytes?,
        };
        let Ok(record) = RecordView::parse(&bytes) else { return Ok(false) };
        let in_time = (from..=to).contains(&record.stored_at());
        Ok(in_time && record.topic() == topic.as_str() && has_key(&record, key))
    }

    /// Where the log begins.
    pub fn start(&self) -> LogOffset {
        self.shared.marks.start()
    }

    /// End of what was written.
    pub fn appended(&self) -> LogOffset {
        self.shared.marks.appended()
    }

    /// End of what survives a crash.
    pub fn durable(&self) -> LogOffset {
        self.shared.marks.durable()
    }

    /// End of what readers see.
    pub fn readable(&self) -> LogOffset {
        self.shared.marks.readable()
    }

    /// Where the next start begins to replay.
    pub fn checkpoint(&self) -> LogOffset {
        self.shared.marks.checkpoint()
    }

    /// Names of all topics with a queue, sorted.
    pub fn topics(&self) -> Vec<TopicName> {
        self.shared.queues.topics()
    }

    /// The queues of a topic with their bounds, by id.
    pub fn queues(&self, topic: &TopicName) -> Vec<(QueueId, QueueOffset, QueueOffset)> {
        let queues = self.shared.queues.of(topic).into_iter();
        queues.filter_map(|queue| queue.bounds(self.readable()).map(|(min, end)| (queue.id, min, end))).collect()
    }

    /// Why the log takes nothing any more, if a write or sync of it failed.
    pub fn poisoned(&self) -> Option<String> {
        self.shared.poisoned().map(str::to_owned)
    }

    /// Why appends are refused now: the log is poisoned, or queues or index cannot be written for want of room.
    pub fn refusal(&self) -> Option<Error> {
        self.shared.sound().and_then(|()| self.shared.room()).err()
    }

    /// Bytes that the disk has left.
    pub fn free_bytes(&self) -> Result<u64, Error> {
        self.shared.disk.free_bytes().map_err(|error| Error::io("ask for the free space of", "the disk", error))
    }

    fn queue(&self, topic: &TopicName, queue: QueueId) -> Option<Arc<Queue>> {
        self.shared.queues.get(topic.as_str(), queue)
    }

    /// `len` bytes from `at` on, where a record begins whose size is returned with them.
    fn slice(&self, at: LogOffset, len: usize) -> Result<(usize, Bytes), Error> {
        let outside = || Error::NotFound(format!("a record at {at}"));
        if len < record::MIN_LEN || at.plus(len as u64) > self.readable() || at < self.start() {
            return Err(outside());
        }
        let segment = self.shared.segment(at).ok_or_else(outside)?;
        if at.0 + len as u64 > segment.end() {
            return Err(outside());
        }
        let bytes = segment.file.slice(segment.position(at), len).map_err(|error| segment.failed("read", error))?;
        match record::peek(&bytes) {
            record::Peek::Record { size } if own_offset(&bytes) == at => Ok((size, bytes)),
            _ => Err(corrupt(at, "no record begins here".to_owned())),
        }
    }
}

/// The log offset that a record's header says.
fn own_offset(bytes: &[u8]) -> LogOffset {
    let mut offset = [0; 8];
    offset.copy_from_slice(&bytes[28..36]);
    LogOffset(u64::from_be_bytes(offset))
}

fn corrupt(at: LogOffset, what: String) -> Error {
    Error::Corrupt { file: crate::segment::LOG_DIR.to_owned(), offset: at.0, what }
}
