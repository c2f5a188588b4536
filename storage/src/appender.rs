//! The one writer of the log.

use std::{collections::HashMap, sync::Arc};

use foldhash::fast::RandomState;
use sluice_model::{
    Host, LogOffset, Message, QueueId, QueueOffset, Timestamp, TopicName, limits,
    record::{self, Placement, UnitPlace},
};
use smallvec::SmallVec;

use crate::{Error, segment::Segment, shared::Shared};

/// Where the records of a unit went, in their order.
pub type Placements = SmallVec<[Placement; 1]>;

const PAGE: u64 = 4096;

/// Assigns offsets, encodes records and writes them. There is one per log.
pub struct Appender {
    shared: Arc<Shared>,
    segment: Arc<Segment>,
    /// The segment to come, made when it was first needed.
    next_segment: Option<(Arc<Segment>, u64)>,
    /// Position in the segment up to which blocks are reserved.
    allocated: u64,
    /// Staged bytes; those before `written` are in a finished segment already.
    pending: Vec<u8>,
    pending_base: u64,
    written: usize,
    /// Where the next record goes.
    end: u64,
    last_stored_at: Timestamp,
    next_offsets: HashMap<TopicName, HashMap<u32, u64, RandomState>, RandomState>,
    spare: Option<Vec<u8>>,
}

/// Records that were written to the log, for the applier.
#[derive(Debug)]
pub struct Written {
    pub base: LogOffset,
    pub end: LogOffset,
    /// The records one after the other. A filler that ends a segment is there with its first 8 bytes only.
    pub bytes: Vec<u8>,
}

impl Appender {
    pub(crate) fn new(
        shared: Arc<Shared>,
        segment: Arc<Segment>,
        last_stored_at: Timestamp,
        ends: impl IntoIterator<Item = (TopicName, QueueId, QueueOffset)>,
    ) -> Self {
        let end = shared.marks.appended().0;
        let mut next_offsets: HashMap<TopicName, HashMap<u32, u64, RandomState>, RandomState> = HashMap::default();
        for (topic, queue, offset) in ends {
            next_offsets.entry(topic).or_default().insert(queue.0, offset.0);
        }
        Self {
            allocated: end - segment.base,
            shared,
            segment,
            next_segment: None,
            pending: Vec::new(),
            pending_base: end,
            written: 0,
            end,
            last_stored_at,
            next_offsets,
            spare: None,
        }
    }

    /// Stages records that stand or fall together: gives each its place in its queue and in the log and encodes it.
    ///
    /// All or nothing: after an error nothing of the unit is staged and no offset is used up. Times never go back:
    /// a record is stored at `now` or at the time of the record before it, whichever is later. A unit that does not
    /// fit into the current segment ends it, which writes and syncs it.
    ///
    /// Fails with [`Error::Invalid`] for a unit that can never fit, [`Error::Full`] when the disk has no room now,
    /// [`Error::Busy`] when too much is staged, [`Error::Poisoned`] after a failed write or sync.
    pub fn stage(&mut self, unit: &[Message], now: Timestamp, store_host: Host) -> Result<Placements, Error> {
        self.shared.sound()?;
        self.shared.room()?;
        if self.pending_bytes() >= self.shared.config.pending_bytes {
            return Err(Error::Busy(self.pending_bytes()));
        }
        let len = self.measure(unit, store_host)?;
        self.make_room(len)?;
        let stored_at = now.max(self.last_stored_at);
        self.last_stored_at = stored_at;
        self.pending.reserve(len as usize);
        let mut placements = Placements::with_capacity(unit.len());
        for (index, message) in unit.iter().enumerate() {
            let place = Placement {
                queue_offset: self.next_offset(&message.topic, message.queue),
                log_offset: LogOffset(self.end),
                stored_at,
                store_host,
                unit: UnitPlace { index: index as u16, count: unit.len() as u16 },
            };
            let before = self.pending.len();
            record::encode(&mut self.pending, message, &place);
            self.end += (self.pending.len() - before) as u64;
            placements.push(place);
        }
        Ok(placements)
    }

    /// Where the next record will stand: behind all that are staged.
    pub fn end(&self) -> LogOffset {
        LogOffset(self.end)
    }

    /// Writes everything staged and publishes it as appended; `None` when nothing is staged.
    ///
    /// A failure poisons the log: what reached the disk is not known.
    pub fn write(&mut self) -> Result<Option<Written>, Error> {
        self.shared.sound()?;
        if self.pending.is_empty() {
            return Ok(None);
        }
        self.write_pending()?;
        self.shared.marks.publish_appended(self.end);
        let bytes = std::mem::replace(&mut self.pending, self.spare.take().unwrap_or_default());
        let written = Written { base: LogOffset(self.pending_base), end: LogOffset(self.end), bytes };
        self.pending_base = self.end;
        self.written = 0;
        Ok(Some(written))
    }

    /// Bytes staged and not yet handed out by [`Self::write`].
    pub fn pending_bytes(&self) -> usize {
        self.pending.len()
    }

    /// A topic is being deleted: whatever is staged for it from now on starts at queue offset 0.
    ///
    /// To be called right after the record of the deletion was staged.
    pub fn forget(&mut self, topic: &TopicName) {
        self.next_offsets.remove(topic);
    }

    /// Takes the buffer of an applied [`Written`] for use again.
    pub fn recycle(&mut self, mut buffer: Vec<u8>) {
        buffer.clear();
        if buffer.capacity() <= self.shared.config.pending_bytes {
            self.spare = Some(buffer);
        }
    }

    fn measure(&self, unit: &[Message], store_host: Host) -> Result<u64, Error> {
        if unit.is_empty() || unit.len() > limits::UNIT_RECORDS {
            let expected = format!("expected 1 to {} records, got {}", limits::UNIT_RECORDS, unit.len());
            return Err(Error::Invalid { field: "unit", expected });
        }
        let place = UnitPlace { index: 0, count: unit.len() as u16 };
        let mut len = 0;
        for message in unit {
            if message.body.len() > limits::SYSTEM_BODY_LEN {
                let (limit, got) = (limits::SYSTEM_BODY_LEN, message.body.len());
                return Err(Error::Invalid {
                    field: "body",
                    expected: format!("expected at most {limit} bytes, got {got}"),
                });
            }
            len += record::encoded_len(message, store_host, place) as u64;
        }
        let most = self.shared.config.segment_len - record::BLANK_LEN as u64;
        if len > most {
            let expected = format!("expected at most {most} bytes, all records of a unit together, got {len}");
            return Err(Error::Invalid { field: "unit", expected });
        }
        Ok(len)
    }

    fn next_offset(&mut self, topic: &TopicName, queue: QueueId) -> QueueOffset {
        if !self.next_offsets.contains_key(topic) {
            self.next_offsets.insert(topic.clone(), HashMap::default());
        }
        let next = self.next_offsets.get_mut(topic).map(|queues| queues.entry(queue.0).or_insert(0));
        next.map_or(QueueOffset(0), |next| {
            *next += 1;
            QueueOffset(*next - 1)
        })
    }

    /// Makes sure that `len` bytes at the end of the log, and a filler behind them, can be written.
    fn make_room(&mut self, len: u64) -> Result<(), Error> {
        let filler = record::BLANK_LEN as u64;
        let position = self.end - self.segment.base;
        if position + len + filler > self.segment.len {
            return self.roll(len + filler);
        }
        if position + len + filler > self.allocated {
            self.allocated = allocate(&self.shared, &self.segment, self.allocated, position + len + filler)?;
        }
        Ok(())
    }

    /// Ends the segment and goes on in a new one with room for `need` bytes.
    ///
    /// The finished segment is synced before anything is written to the next, so that an unreadable place in a segment
    /// that has a successor with data is never the torn end of the log.
    fn roll(&mut self, need: u64) -> Result<(), Error> {
        let (segment, allocated) = self.next_segment(need)?;
        let filled = self.end - self.segment.base + record::BLANK_LEN as u64;
        if filled > self.allocated {
            self.allocated = allocate(&self.shared, &self.segment, self.allocated, filled)?;
        }
        let room = self.segment.end() - self.end;
        self.pending.extend_from_slice(&record::blank(room as u32));
        self.write_pending()?;
        self.shared.sync(std::slice::from_ref(&self.segment))?;
        self.shared.segments.write().push_back(segment.clone());
        self.next_segment = None;
        self.written = self.pending.len();
        self.end = segment.base;
        self.segment = segment;
        self.allocated = allocated;
        Ok(())
    }

    fn next_segment(&mut self, need: u64) -> Result<(Arc<Segment>, u64), Error> {
        let (segment, allocated) = match &self.next_segment {
            Some(next) => next.clone(),
            None => {
                let len = self.shared.config.segment_len;
                let segment = Segment::create(&*self.shared.disk, self.segment.end(), len)?;
                (Arc::new(segment), 0)
            }
        };
        self.next_segment = Some((segment.clone(), allocated));
        let allocated = if need > allocated { allocate(&self.shared, &segment, allocated, need)? } else { allocated };
        self.next_segment = Some((segment.clone(), allocated));
        Ok((segment, allocated))
    }

    /// Writes what is staged for the current segment and not written yet.
    fn write_pending(&mut self) -> Result<(), Error> {
        let bytes = &self.pending[self.written..];
        if bytes.is_empty() {
            return Ok(());
        }
        let at = if self.written == 0 { self.pending_base } else { self.segment.base };
        let result = self.segment.file.write_at(bytes, at - self.segment.base);
        result.map_err(|error| self.shared.poison(self.segment.failed("write", error)))?;
        self.written = self.pending.len();
        Ok(())
    }
}

/// Reserves blocks of `segment` from position `from` to at least `need`; a whole step if the disk has it, and leaving
/// the reserve for the views. Returns up to where.
fn allocate(shared: &Shared, segment: &Segment, from: u64, need: u64) -> Result<u64, Error> {
    let (config, failed) = (&shared.config, |error| segment.failed("reserve room in", error));
    let free = shared.disk.free_bytes().map_err(failed)?.saturating_sub(config.reserve_bytes);
    let need = need.next_multiple_of(PAGE).min(segment.len);
    let mut to = (from + config.allocate_step).next_multiple_of(PAGE).clamp(need, segment.len);
    loop {
        let result = if to - from <= free {
            segment.file.allocate(from, to - from).map_err(failed)
        } else {
            Err(Error::Full(format!("{}: {} bytes needed, {free} left", segment.path, need - from)))
        };
        match result {
            Ok(()) => return Ok(to),
            Err(Error::Full(_)) if to > need => to = need.max(from + (to - from) / 2),
            Err(error) => return Err(error),
        }
    }
}
