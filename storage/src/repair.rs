//! Queues and key runs of a checkpoint that are damaged or missing are built again from the log.

use std::{collections::HashMap, sync::Arc};

use sluice_model::{LogOffset, QueueId, QueueOffset, RecordView, Timestamp};

use crate::{
    Entry, Error, Reader,
    checkpoint::QueueMark,
    keys::{self, Keys},
    queue::{self, BLOCK, ENTRY_LEN, Queue},
    run::{Extent, KeyEntry, Run},
    scan::{End, scan},
    segment::Segment,
    shared::Shared,
};

/// Whether the files of a queue have what the checkpoint says: looks at the ends of each file and at its newest entries.
pub(crate) fn is_sound(queue: &Queue, mark: &QueueMark, reader: &Reader) -> bool {
    let mut first = mark.min.0;
    let mut last_at = None;
    while first < mark.end.0 {
        let end = queue::end_of_file(first).min(mark.end.0);
        let newest = first.max(end.saturating_sub(BLOCK as u64));
        let mut entries: Vec<Entry> = Vec::with_capacity(BLOCK + 1);
        queue.entries(QueueOffset(first), 1, ALL, &mut entries);
        queue.entries(QueueOffset(newest), (end - newest) as usize, ALL, &mut entries);
        let whole = entries.len() as u64 == 1 + end - newest;
        let places = last_at.into_iter().chain(entries.iter().map(|entry| entry.log_offset));
        if !whole || !places.is_sorted() {
            return false;
        }
        let ends = [entries.first(), entries.last()];
        if !ends.into_iter().flatten().all(|entry| leads_to_its_record(queue, entry, reader)) {
            return false;
        }
        last_at = entries.last().map(|entry| entry.log_offset);
        first = end;
    }
    true
}

const ALL: LogOffset = LogOffset(u64::MAX);

fn leads_to_its_record(queue: &Queue, entry: &Entry, reader: &Reader) -> bool {
    if entry.log_offset < reader.start() {
        return true;
    }
    let Ok(bytes) = reader.record(entry.log_offset, entry.size) else { return false };
    RecordView::parse(&bytes).is_ok_and(|record| {
        let place = (record.topic(), record.queue(), record.queue_offset());
        place == (queue.topic.as_str(), queue.id, entry.queue_offset)
    })
}

/// What is to be built again.
pub(crate) struct Repair {
    queues: HashMap<(String, QueueId), Rebuilt>,
    gaps: Vec<Extent>,
    /// Keys found so far for the first of the gaps.
    entries: Vec<KeyEntry>,
    times: (Timestamp, Timestamp),
    /// Up to where queues and runs are built again; what comes after was replayed.
    to: LogOffset,
}

struct Rebuilt {
    queue: Arc<Queue>,
    mark: QueueMark,
    first: Option<QueueOffset>,
    /// Entries not written yet, encoded, and the offset of the first of them.
    block: Vec<u8>,
    block_at: u64,
}

impl Repair {
    /// `gaps` are the extents of missing runs, in order.
    pub fn new(queues: Vec<(Arc<Queue>, QueueMark)>, gaps: Vec<Extent>, to: LogOffset) -> Self {
        let rebuilt = |(queue, mark): (Arc<Queue>, QueueMark)| {
            let name = (mark.topic.to_string(), mark.queue);
            (name, Rebuilt { queue, mark, first: None, block: Vec::new(), block_at: 0 })
        };
        let queues = queues.into_iter().map(rebuilt).collect();
        Self { queues, gaps, entries: Vec::new(), times: NO_TIMES, to }
    }

    /// Reads the log once and builds everything.
    pub fn run(mut self, shared: &Shared) -> Result<(), Error> {
        let births = self.queues.values().map(|rebuilt| rebuilt.mark.born.0);
        let Some(from) = births.chain(self.gaps.iter().map(|gap| gap.from)).min() else { return Ok(()) };
        let segments: Vec<Arc<Segment>> = shared.segments.read().iter().cloned().collect();
        let to = self.to.0;
        for segment in segments.iter().filter(|segment| segment.end() > from && segment.base < to) {
            let end = scan(segment, &mut |records| records.iter().try_for_each(|record| self.take(record, shared)))?;
            if let End::Broken { position, what } = end
                && segment.base + position < to
            {
                let durable = shared.marks.durable().0;
                return Err(Error::Hole { file: segment.path.clone(), offset: position, what, durable });
            }
        }
        while !self.gaps.is_empty() {
            self.close_gap(shared)?;
        }
        for rebuilt in self.queues.values_mut() {
            rebuilt.write(shared)?;
            rebuilt.queue.set_min(rebuilt.first.unwrap_or(rebuilt.mark.end));
        }
        Ok(())
    }

    fn take(&mut self, record: &RecordView<'_>, shared: &Shared) -> Result<(), Error> {
        let at = record.log_offset();
        if at >= self.to {
            return Ok(());
        }
        while self.gaps.first().is_some_and(|gap| gap.to <= at.0) {
            self.close_gap(shared)?;
        }
        if self.gaps.first().is_some_and(|gap| gap.from <= at.0) {
            let before = self.entries.len();
            keys::each_key(record, |entry| self.entries.push(entry));
            if self.entries.len() > before {
                self.times = (self.times.0.min(record.stored_at()), self.times.1.max(record.stored_at()));
            }
        }
        if self.queues.is_empty() {
            return Ok(());
        }
        match self.queues.get_mut(&(record.topic().to_owned(), record.queue())) {
            Some(rebuilt) => rebuilt.take(record, shared),
            None => Ok(()),
        }
    }

    /// Writes the run of the first gap.
    fn close_gap(&mut self, shared: &Shared) -> Result<(), Error> {
        let gap = self.gaps.remove(0);
        let mut entries = std::mem::take(&mut self.entries);
        let (oldest, latest) = std::mem::replace(&mut self.times, NO_TIMES);
        if entries.is_empty() {
            return Ok(());
        }
        entries.sort_unstable();
        let extent = Extent { oldest, latest, count: entries.len() as u64, ..gap };
        let run = Run::write(&*shared.disk, shared.handles.new_owner(), extent, &entries)?;
        Keys::insert_run(&shared.keys, run);
        Ok(())
    }
}

const NO_TIMES: (Timestamp, Timestamp) = (Timestamp(i64::MAX), Timestamp(i64::MIN));

impl Rebuilt {
    fn take(&mut self, record: &RecordView<'_>, shared: &Shared) -> Result<(), Error> {
        let offset = record.queue_offset();
        if record.log_offset() < self.mark.born || !(self.mark.min..self.mark.end).contains(&offset) {
            return Ok(());
        }
        let count = self.block.len() / ENTRY_LEN;
        if offset.0 != self.block_at + count as u64 || queue::begins_file(offset.0) || count >= BLOCK {
            self.write(shared)?;
            self.block_at = offset.0;
        }
        self.first.get_or_insert(offset);
        self.block.extend_from_slice(&queue::encode(&entry_of(record)));
        Ok(())
    }

    fn write(&mut self, shared: &Shared) -> Result<(), Error> {
        if self.block.is_empty() {
            return Ok(());
        }
        self.queue.write(&*shared.disk, self.block_at, &self.block)?;
        self.block.clear();
        Ok(())
    }
}

fn entry_of(record: &RecordView<'_>) -> Entry {
    Entry {
        queue_offset: record.queue_offset(),
        log_offset: record.log_offset(),
        size: record.bytes().len() as u32,
        tag: record.tag_code(),
    }
}
