//! Half messages: prepared, not yet committed or rolled back.

use std::collections::{BTreeMap, BTreeSet};

use sluice_model::{GroupName, LogOffset, QueueOffset, RecordView, Timestamp, key};

use crate::{
    codec::{In, Out},
    error::Result,
};

/// Property of a record of the decisions' topic that decides nothing: when to ask again, ms.
pub(crate) const ASKED_UNTIL: &str = "asked-until";
/// How often somebody was asked by then; one time more than before where the record does not say.
pub(crate) const CHECKS: &str = "checks";

/// A prepared message that waits for its producer's decision.
#[derive(Clone, Debug, PartialEq)]
pub struct Half {
    /// Its place in the half topic.
    pub queue_offset: QueueOffset,
    /// Where its record stands.
    pub at: LogOffset,
    pub group: GroupName,
    pub stored_at: Timestamp,
    /// How often its producer, or the checker of its group, was asked.
    pub checks: u32,
    /// From when on somebody is to be asked.
    pub due: Timestamp,
}

/// A half message, and what is known of it only until the process ends.
struct Waiting {
    half: Half,
    /// When the shell is told of it next.
    next: Timestamp,
    /// When the shell was told of it first since it was due.
    offered: Option<Timestamp>,
}

/// View: the undecided half messages, and when each is to be asked about.
#[derive(Default)]
pub struct Halves {
    by_offset: BTreeMap<QueueOffset, Waiting>,
    by_next: BTreeSet<(Timestamp, QueueOffset)>,
}

impl Halves {
    pub fn get(&self, offset: QueueOffset) -> Option<&Half> {
        self.by_offset.get(&offset).map(|waiting| &waiting.half)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Half> {
        self.by_offset.values().map(|waiting| &waiting.half)
    }

    pub fn len(&self) -> usize {
        self.by_offset.len()
    }

    /// Those from `offset` on, by offset.
    pub fn from(&self, offset: QueueOffset) -> impl Iterator<Item = &Half> {
        self.by_offset.range(offset..).map(|(_, waiting)| &waiting.half)
    }

    /// The oldest place in the log that an undecided half message lives in.
    pub fn oldest(&self) -> Option<LogOffset> {
        self.iter().next().map(|half| half.at)
    }

    /// Up to `max` half messages of which the shell is to be told, the longest due first, and for how long each was offered already.
    pub(crate) fn due(&self, now: Timestamp, max: usize) -> Vec<(Half, i64)> {
        let due = self.by_next.range(..=(now, QueueOffset(u64::MAX))).take(max);
        let offered = |waiting: &Waiting| waiting.offered.map_or(0, |offered| now.ms_since(offered));
        due.filter_map(|(_, offset)| self.by_offset.get(offset))
            .map(|waiting| (waiting.half.clone(), offered(waiting)))
            .collect()
    }

    /// Notes that the shell is told of a half message now, and again at `next` unless somebody was asked by then. That is no part of the view: the
    /// next process tells its shell of all that are due.
    pub(crate) fn offer(&mut self, offset: QueueOffset, now: Timestamp, next: Timestamp) {
        if let Some(waiting) = self.by_offset.get_mut(&offset) {
            self.by_next.remove(&(waiting.next, offset));
            self.by_next.insert((next, offset));
            waiting.next = next;
            waiting.offered.get_or_insert(now);
        }
    }

    /// Applies a record of the half topic; `timeout_ms` is the age at which it is first asked about.
    pub(crate) fn apply_half(&mut self, record: &RecordView<'_>, timeout_ms: i64) -> Result<()> {
        let immunity = record.property(key::CHECK_IMMUNITY_SECONDS).and_then(|text| text.parse::<i64>().ok());
        let wait = immunity.map_or(timeout_ms, |seconds| seconds.saturating_mul(1000));
        let half = Half {
            queue_offset: record.queue_offset(),
            at: record.log_offset(),
            group: GroupName::parse(record.property(key::PRODUCER_GROUP).unwrap_or_default())?,
            stored_at: record.stored_at(),
            checks: 0,
            due: record.stored_at().plus_ms(wait),
        };
        self.put(half);
        Ok(())
    }

    /// Applies a record of the decisions' topic: each offset it names is decided, or was asked about and is due later.
    pub(crate) fn apply_decision(&mut self, record: &RecordView<'_>) -> Result<()> {
        let Some(due) = record.property(ASKED_UNTIL) else {
            for offset in record.body().split(|byte| *byte == b',') {
                if let Some(offset) = std::str::from_utf8(offset).ok().and_then(|text| text.parse().ok()) {
                    self.remove(QueueOffset(offset));
                }
            }
            return Ok(());
        };
        let offset = std::str::from_utf8(record.body()).ok().and_then(|text| text.parse().ok()).unwrap_or(u64::MAX);
        if let (Some(half), Ok(due)) = (self.remove(QueueOffset(offset)), due.parse()) {
            let checks = record.property(CHECKS).and_then(|text| text.parse().ok());
            self.put(Half { checks: checks.unwrap_or(half.checks + 1), due: Timestamp(due), ..half });
        }
        Ok(())
    }

    fn put(&mut self, half: Half) {
        let next = half.due;
        self.by_next.insert((next, half.queue_offset));
        self.by_offset.insert(half.queue_offset, Waiting { half, next, offered: None });
    }

    fn remove(&mut self, offset: QueueOffset) -> Option<Half> {
        let waiting = self.by_offset.remove(&offset)?;
        self.by_next.remove(&(waiting.next, offset));
        Some(waiting.half)
    }

    pub(crate) fn snapshot(&self, out: &mut Out) {
        out.u32(self.by_offset.len() as u32);
        for half in self.iter() {
            out.u64(half.queue_offset.0).u64(half.at.0).text(half.group.as_str());
            out.i64(half.stored_at.0).u32(half.checks).i64(half.due.0);
        }
    }

    pub(crate) fn restore(&mut self, from: &mut In<'_>) -> Result<()> {
        for _ in 0..from.u32()? {
            self.put(Half {
                queue_offset: QueueOffset(from.u64()?),
                at: LogOffset(from.u64()?),
                group: GroupName::parse(from.text()?)?,
                stored_at: Timestamp(from.i64()?),
                checks: from.u32()?,
                due: Timestamp(from.i64()?),
            });
        }
        Ok(())
    }
}
