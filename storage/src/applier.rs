//! Turns durable records into queues, keys and views, and drafts checkpoints of them.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use sluice_model::{
    LogOffset, QueueId, QueueOffset, RecordView, Timestamp, TopicName,
    record::{self, Peek},
};

use crate::{
    Applied, Entry, Error, Views, Written,
    checkpoint::{Checkpoint, QueueMark},
    checkpointer::Draft,
    queue::{BLOCK, Queue, topic_dir},
    shared::Shared,
};

/// After this many checkpoints of log keys are written even though they are few.
const KEY_CHECKPOINTS: u64 = 4;
/// Runs of keys that may wait for the [`Checkpointer`](crate::Checkpointer); more are written here.
const SEALED_RUNS: usize = 2;

/// The one writer of queues and key index, and driver of the views.
pub struct Applier {
    pub(crate) shared: Arc<Shared>,
    /// Up to where records are dispatched; ahead of `readable` only within a batch.
    pub(crate) dispatched: u64,
    last_stored_at: Timestamp,
    /// Whether a draft of a checkpoint is out.
    drafted: Arc<AtomicBool>,
    /// Queues with a block of entries to write.
    backlog: Vec<Arc<Queue>>,
    keys_full: bool,
}

impl Applier {
    pub(crate) fn new(shared: Arc<Shared>, from: &Checkpoint) -> Self {
        Self {
            shared,
            dispatched: from.offset.0,
            last_stored_at: from.last_stored_at,
            drafted: Arc::default(),
            backlog: Vec::new(),
            keys_full: false,
        }
    }

    /// Takes in a batch that is durable, and makes it readable as a whole.
    ///
    /// Batches come in the order in which they were written. Fails when a view refuses a record or a record is not
    /// what it must be; nothing can be applied any more then, and the log is poisoned.
    pub fn apply(&mut self, written: &Written, views: &mut dyn Views) -> Result<(), Error> {
        assert!(written.end <= self.shared.marks.durable(), "only durable records are applied");
        assert_eq!(written.base.0, self.dispatched, "batches are applied in order");
        assert_eq!(written.base, self.shared.marks.readable(), "an earlier batch failed");
        self.apply_all(&written.bytes, views).map_err(|error| self.shared.poison(error))?;
        assert_eq!(written.end.0, self.dispatched, "a batch is applied to its end");
        self.shared.marks.publish_readable(self.dispatched);
        self.write_blocks();
        Ok(())
    }

    fn apply_all(&mut self, mut bytes: &[u8], views: &mut dyn Views) -> Result<(), Error> {
        while !bytes.is_empty() {
            if let Peek::Blank { size } = record::peek(bytes) {
                self.dispatched += size as u64;
                bytes = &bytes[record::BLANK_LEN..];
                continue;
            }
            let record = RecordView::parse(bytes).map_err(|error| corrupt(self.dispatched, error))?;
            bytes = &bytes[record.bytes().len()..];
            self.dispatch(&record, views)?;
        }
        Ok(())
    }

    /// Queue, keys, views: what is done with every record, once.
    pub(crate) fn dispatch(&mut self, record: &RecordView<'_>, views: &mut dyn Views) -> Result<(), Error> {
        self.enqueue(record)?;
        let waiting = self.shared.keys.add(record);
        self.keys_full = waiting >= self.shared.config.index_run_entries;
        self.last_stored_at = record.stored_at();
        let at = record.log_offset().0;
        match views.apply(record).map_err(|what| Error::View { at, what })? {
            Applied::Nothing => {}
            Applied::DeleteTopic(topic) => self.delete_topic(&topic),
        }
        self.dispatched = at + record.bytes().len() as u64;
        Ok(())
    }

    /// A filler was passed.
    pub(crate) fn skip_to(&mut self, offset: u64) {
        self.dispatched = self.dispatched.max(offset);
    }

    fn enqueue(&mut self, record: &RecordView<'_>) -> Result<(), Error> {
        let queue = match self.shared.queues.get(record.topic(), record.queue()) {
            Some(queue) => queue,
            None => self.new_queue(record)?,
        };
        let waiting = queue.push(Entry {
            queue_offset: record.queue_offset(),
            log_offset: record.log_offset(),
            size: record.bytes().len() as u32,
            tag: record.tag_code(),
        })?;
        if waiting == BLOCK {
            self.backlog.push(queue);
        }
        Ok(())
    }

    fn new_queue(&self, record: &RecordView<'_>) -> Result<Arc<Queue>, Error> {
        let at = record.log_offset();
        let topic = TopicName::parse(record.topic()).map_err(|error| corrupt(at.0, error))?;
        let first = record.queue_offset();
        let name = (topic, record.queue());
        let queue = Arc::new(Queue::new(name, at, (first, first), self.shared.handles.clone()));
        self.shared.queues.insert(queue.clone());
        Ok(queue)
    }

    fn delete_topic(&mut self, topic: &TopicName) {
        for queue in self.shared.queues.remove(topic) {
            queue.drop_all();
        }
        // What stays behind is overwritten when the topic comes back, or removed at the next start.
        let _ = self.shared.disk.remove_dir_all(&topic_dir(topic));
    }

    /// Writes what has gathered. A failure is noted: the log takes no records until writing works again.
    pub(crate) fn write_blocks(&mut self) {
        if self.backlog.is_empty() && !self.keys_full {
            return;
        }
        let written = self.try_write_blocks();
        self.shared.note(written.err().as_ref());
    }

    fn try_write_blocks(&mut self) -> Result<(), Error> {
        while let Some(queue) = self.backlog.last() {
            queue.flush(&*self.shared.disk)?;
            self.backlog.pop();
        }
        if self.keys_full {
            self.shared.keys.seal(LogOffset(self.dispatched));
            self.keys_full = false;
        }
        self.write_runs(SEALED_RUNS)
    }

    /// Writes runs of keys until so many wait.
    fn write_runs(&self, most: usize) -> Result<(), Error> {
        while self.shared.keys.sealed() > most {
            self.shared.keys.write_run(&*self.shared.disk)?;
        }
        Ok(())
    }

    /// How far records are applied.
    pub fn applied(&self) -> LogOffset {
        LogOffset(self.dispatched)
    }

    /// Tries again to write queues and keys that could not be written, so that the log takes records again.
    ///
    /// To be called now and then while [`Reader::refusal`](crate::Reader::refusal) says that they cannot be.
    pub fn retry(&mut self) -> Result<(), Error> {
        if self.shared.room().is_err() {
            let written = self.write_queues().and_then(|()| self.write_runs(0));
            self.shared.note(written.err().as_ref());
        }
        self.shared.room()
    }

    /// Whether enough was applied since the last checkpoint, and no draft of another is out.
    pub fn checkpoint_due(&self) -> bool {
        let behind = self.dispatched - self.shared.marks.checkpoint().0;
        behind >= self.shared.config.checkpoint_bytes && !self.is_drafted()
    }

    /// Whether a draft is with the [`Checkpointer`](crate::Checkpointer).
    pub fn is_drafted(&self) -> bool {
        self.drafted.load(Ordering::Acquire)
    }

    /// Writes down what queues, keys and views are now, for the [`Checkpointer`](crate::Checkpointer) to make durable.
    ///
    /// `views` are those that everything was applied to. Fails with [`Error::Full`] when there is no room for the queues.
    /// Panics when a draft is out already.
    pub fn draft(&mut self, views: &dyn Views) -> Result<Draft, Error> {
        self.shared.sound()?;
        let written = self.write_queues();
        self.shared.note(written.as_ref().err());
        written?;
        Ok(Draft::new(self.describe(views), &self.drafted))
    }

    fn write_queues(&mut self) -> Result<(), Error> {
        self.try_write_blocks()?;
        for queue in self.shared.queues.all() {
            queue.flush(&*self.shared.disk)?;
        }
        let lag = self.dispatched - self.shared.keys.unwritten_from().0;
        if lag >= KEY_CHECKPOINTS * self.shared.config.checkpoint_bytes {
            self.shared.keys.seal(LogOffset(self.dispatched));
            self.write_runs(SEALED_RUNS)?;
        }
        self.shared.keys.cut_front(&*self.shared.disk, self.shared.marks.start(), self.shared.config.index_runs);
        Ok(())
    }

    fn describe(&self, views: &dyn Views) -> Checkpoint {
        let mut snapshot = Vec::new();
        views.snapshot(&mut snapshot);
        let (keys_to, runs) = self.shared.keys.describe();
        let mark = |queue: &Arc<Queue>| QueueMark {
            topic: queue.topic.clone(),
            queue: queue.id,
            born: queue.born,
            min: queue.min(),
            end: queue.end(),
        };
        Checkpoint {
            sequence: 0,
            offset: LogOffset(self.dispatched),
            last_stored_at: self.last_stored_at,
            keys_to,
            queues: self.shared.queues.all().iter().map(mark).collect(),
            runs,
            snapshot,
        }
    }

    pub(crate) fn last_stored_at(&self) -> Timestamp {
        self.last_stored_at
    }

    /// Where each queue goes on.
    pub(crate) fn ends(&self) -> Vec<(TopicName, QueueId, QueueOffset)> {
        self.shared.queues.all().iter().map(|queue| (queue.topic.clone(), queue.id, queue.end())).collect()
    }
}

pub(crate) fn corrupt(at: u64, error: sluice_model::Error) -> Error {
    Error::Corrupt { file: crate::segment::LOG_DIR.to_owned(), offset: at, what: error.to_string() }
}
