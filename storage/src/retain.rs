//! Retention: old segments go, whole; of a topic that keeps its messages for less, the queues begin later.

use std::sync::Arc;

use sluice_model::{LogOffset, RecordView, Timestamp, TopicName, record};

use crate::{
    Applier, Error, Reader,
    segment::{LOG_DIR, Segment},
};

/// When a segment is too old.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    /// Segments whose records are all older than this many milliseconds go; `None` keeps them.
    pub max_age_ms: Option<i64>,
    /// The oldest segments go while the log has more bytes than this; `None` keeps them.
    pub max_bytes: Option<u64>,
}

impl Applier {
    /// Removes old segments from the front of the log, with the queue entries and keys of their records. Returns where
    /// the log begins afterwards.
    ///
    /// Never removed: the segment that holds `pin` and what is behind it, what either of the two last checkpoints needs
    /// to start from, and the segment that is being written. While the draft of a checkpoint is out, nothing is: it names
    /// files of queues and keys.
    pub fn retain(&mut self, now: Timestamp, policy: &Retention, pin: LogOffset) -> Result<LogOffset, Error> {
        if self.is_drafted() {
            return Ok(self.shared.marks.start());
        }
        let limit = pin.min(self.shared.marks.older_checkpoint());
        let mut gone = Vec::new();
        while let Some(segment) = self.take_old(now, policy, limit)? {
            gone.push(segment);
        }
        let start = self.shared.marks.start();
        if gone.is_empty() {
            return Ok(start);
        }
        let disk = &*self.shared.disk;
        for queue in self.shared.queues.all() {
            queue.cut_front(disk, start);
        }
        self.shared.keys.cut_front(disk, start, self.shared.config.index_runs);
        for segment in gone {
            // Each removal is durable before the next: the log never has a gap.
            let removed = disk.remove(&segment.path).and_then(|()| disk.sync_dir(LOG_DIR));
            removed.map_err(|error| segment.failed("remove", error))?;
        }
        Ok(start)
    }

    /// Has the queues of a topic begin at the first message that was stored at `time` or later. Records, keys and files of
    /// the others stay until [`Self::retain`] takes them.
    ///
    /// Nothing is written: after a crash, queues begin where the last checkpoint has it, and one that is built again begins
    /// with the log, until the next call. A queue of which an entry cannot be read stays as it is. Fails with [`Error::Corrupt`] when a record cannot be read that it has to look at.
    pub fn expire(&mut self, topic: &TopicName, time: Timestamp) -> Result<(), Error> {
        let reader = Reader { shared: self.shared.clone() };
        for queue in self.shared.queues.of(topic) {
            if let Some(first) = reader.later_start(&queue, time)? {
                queue.set_min(first);
            }
        }
        Ok(())
    }

    /// Takes the first segment out of the log if it may and should go.
    fn take_old(&self, now: Timestamp, policy: &Retention, limit: LogOffset) -> Result<Option<Arc<Segment>>, Error> {
        let (first, second) = {
            let segments = self.shared.segments.read();
            let (Some(first), Some(second)) = (segments.front(), segments.get(1)) else { return Ok(None) };
            (first.clone(), second.clone())
        };
        if first.end() > limit.0 {
            return Ok(None);
        }
        let marks = &self.shared.marks;
        let large = policy.max_bytes.is_some_and(|most| marks.appended().0 - marks.start().0 > most);
        if !large && !is_old(&second, now, policy)? {
            return Ok(None);
        }
        marks.publish_start(first.end());
        self.shared.segments.write().pop_front();
        Ok(Some(first))
    }
}

/// Whether everything before `second` is too old: store times never go back, so its first record tells.
fn is_old(second: &Segment, now: Timestamp, policy: &Retention) -> Result<bool, Error> {
    let Some(age) = policy.max_age_ms else { return Ok(false) };
    let failed = |error| second.failed("read", error);
    let header = second.file.slice(0, record::MIN_LEN).map_err(failed)?;
    let record::Peek::Record { size } = record::peek(&header) else { return Ok(false) };
    let bytes = second.file.slice(0, size).map_err(failed)?;
    let stored_at = RecordView::parse(&bytes).map(|record| record.stored_at());
    Ok(stored_at.is_ok_and(|stored_at| now.ms_since(stored_at) > age))
}
