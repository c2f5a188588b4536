//! Delayed messages by level: each level is a queue of the schedule topic, in due order by construction.

use sluice_model::{GroupName, Message, Properties, QueueId, QueueOffset, RecordView, Timestamp, key};
use sluice_storage::Entry;

use crate::{
    Error,
    append::{hold, release},
    broker::Broker,
    error::Result,
    offsets::{self, Position},
    system::SYSTEM,
};

/// Delay of each level, ms: level 1 is the first (Apache RocketMQ `messageDelayLevel`).
pub const LEVELS_MS: [i64; 18] = [
    1_000, 5_000, 10_000, 30_000, 60_000, 120_000, 180_000, 240_000, 300_000, 360_000, 420_000, 480_000, 540_000,
    600_000, 1_200_000, 1_800_000, 3_600_000, 7_200_000,
];

/// The name under which the schedule's own positions are kept.
const CURSOR: &str = "rmq_sys_SLUICE_SCHEDULE";
/// Most messages of one level delivered in one unit.
const TURN_MESSAGES: usize = 256;
/// Most bytes delivered in one unit.
const TURN_BYTES: usize = 8 * 1024 * 1024;

/// The group under which the schedule's own positions are kept.
pub(crate) fn cursor() -> Option<GroupName> {
    GroupName::parse(CURSOR).ok()
}

/// When the first message of each level is due, as far as known.
#[derive(Default)]
pub struct Schedule {
    head_due: [Option<Timestamp>; LEVELS_MS.len()],
}

/// The delay level a message asks for, from 1; more than the highest is the highest, 0 is none.
pub(crate) fn level(properties: &Properties) -> Result<Option<usize>> {
    let Some(text) = properties.get(key::DELAY) else { return Ok(None) };
    let level: i64 =
        text.parse().map_err(|_| Error::invalid("DELAY", format!("expected a number from 0 to 18, got {text:?}")))?;
    Ok((level > 0).then_some(level.min(LEVELS_MS.len() as i64) as usize))
}

/// Turns a message to the queue of its level.
pub(crate) fn redirect(message: &mut Message, level: usize) -> Result<()> {
    hold(message, &SYSTEM.schedule, QueueId(level as u32 - 1))
}

impl Broker {
    /// Stages every delayed message whose time has come, up to a bound; call again while it answers `true`.
    ///
    /// Messages and the level's new position are one unit: none is delivered twice.
    pub fn deliver_due(&mut self, now: Timestamp) -> Result<bool> {
        let mut more = false;
        for level in 0..LEVELS_MS.len() {
            if self.schedule.head_due[level].is_none_or(|due| due <= now) {
                more |= self.deliver_level(level, now)?;
            }
        }
        Ok(more)
    }

    fn deliver_level(&mut self, level: usize, now: Timestamp) -> Result<bool> {
        let queue = QueueId(level as u32);
        let Some(cursor) = cursor() else { return Ok(false) };
        let from = self.shared.state.read().offsets.get(&cursor, &SYSTEM.schedule, queue);
        let from = from.unwrap_or_else(|| self.reader.bounds(&SYSTEM.schedule, queue).0);
        let mut entries: Vec<Entry> = Vec::new();
        self.reader.store().entries(&SYSTEM.schedule, queue, from, TURN_MESSAGES, &mut entries);
        let (mut unit, mut next, mut bytes) = (Vec::new(), from, 0);
        // A unit stays within a segment; half of one leaves room for the position and what encoding adds.
        let most = (TURN_BYTES as u64).min(self.shared.segment_len / 2) as usize;
        self.schedule.head_due[level] = None;
        for entry in &entries {
            let record = self.reader.store().record(entry.log_offset, entry.size)?;
            let record = RecordView::parse(&record)?;
            let due = record.stored_at().plus_ms(LEVELS_MS[level]);
            if due > now {
                self.schedule.head_due[level] = Some(due);
                break;
            }
            bytes += record.bytes().len();
            if bytes > most && !unit.is_empty() {
                break;
            }
            next = entry.queue_offset.next();
            let mut message = record.to_message()?;
            release(&mut message, &[key::DELAY])?;
            // A topic deleted meanwhile takes its delayed messages with it.
            if let Some(topic) = self.topic(&message.topic) {
                message.queue = topic.queue_for(message.queue);
                unit.push(message);
            }
        }
        if next == from {
            return Ok(false);
        }
        unit.push(self.positions_message(&[position(cursor, queue, next)], now));
        self.stage(&unit, now)?;
        Ok(self.schedule.head_due[level].is_none())
    }

    pub(crate) fn positions_message(&self, positions: &[Position], now: Timestamp) -> Message {
        let body = offsets::encode(positions).into();
        Message::new(SYSTEM.offsets.clone(), QueueId(0), now, Properties::default(), body)
    }
}

fn position(group: GroupName, queue: QueueId, offset: QueueOffset) -> Position {
    Position { group, topic: SYSTEM.schedule.clone(), queue, offset }
}
