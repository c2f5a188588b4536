//! Messages for an arbitrary time: which are delivered and which are recalled, and the wheel that finds those that are due.
//!
//! They wait in a system topic with a queue for every slot of [`SLOT_MS`]; a message stands in the queue of the slot in which
//! it is due. So the consume queues, which are on disk and follow the log, are the index, and only the messages of the
//! slot at hand and the one after it are in memory, 24 bytes each.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use sluice_model::{LogOffset, Message, Properties, QueueId, QueueOffset, RecordView, Timestamp, key};
use sluice_storage::Entry;

use crate::{
    Error,
    append::{hold, release},
    broker::Broker,
    codec::{In, Out},
    error::Result,
    offsets::Position,
    schedule,
    system::SYSTEM,
};

/// Longest delay, ms: three days (Apache RocketMQ `timerMaxDelaySec`).
pub const LONGEST_DELAY_MS: i64 = 3 * 24 * 60 * 60 * 1_000;
const SLOT_MS: i64 = 5 * 60 * 1_000;
/// Slots of the wheel: more than the longest delay takes, so that two times at once pending never share a queue unless the
/// broker was down for days.
pub(crate) const SLOTS: u32 = (LONGEST_DELAY_MS / SLOT_MS) as u32 + 3;
/// The next slot is read so long before it begins.
const LEAD_MS: i64 = 20_000;
/// Entries of the queues read in one turn, and at a time.
const TURN_ENTRIES: usize = 65_536;
const READ_ENTRIES: usize = 2_048;
/// Most messages delivered in one unit, and most bytes.
const UNIT_MESSAGES: usize = 256;
const UNIT_BYTES: usize = 8 * 1024 * 1024;
/// Slots passed in one turn.
const TURN_SLOTS: i64 = 1_024;
/// Most points kept of how the log grew.
const POINTS: usize = 256;
/// Most recalled messages that are not due yet.
const RECALLED_LIMIT: usize = 1_000_000;

/// Tag of the records that say up to where messages are delivered; others name a recalled message.
const DELIVERED: &str = "d";
const RECALLED: &str = "r";

/// Messages are delivered in this order.
type Due = (Timestamp, LogOffset);

/// View: what became of the messages for a time.
#[derive(Default)]
pub struct Timers {
    /// The last one delivered; all before it are as well.
    delivered: Due,
    /// Time and unique key of those that are not to be delivered.
    recalled: BTreeSet<(Timestamp, String)>,
}

impl Timers {
    /// Applies a record of the timers' own topic.
    pub(crate) fn apply(&mut self, record: &RecordView<'_>) -> Result<()> {
        let expected = || Error::invalid("body", "expected a time and a place or key");
        let body = std::str::from_utf8(record.body()).map_err(|_| expected())?;
        let (time, what) = body.split_once(' ').ok_or_else(expected)?;
        let time = Timestamp(time.parse().map_err(|_| expected())?);
        if record.property(key::TAGS) == Some(RECALLED) {
            self.recalled.insert((time, what.to_owned()));
        } else {
            self.delivered = (time, LogOffset(what.parse().map_err(|_| expected())?));
            // What was recalled for an earlier time is of no more use.
            self.recalled = self.recalled.split_off(&(time, String::new()));
        }
        Ok(())
    }

    pub(crate) fn snapshot(&self, out: &mut Out) {
        out.i64(self.delivered.0.0).u64(self.delivered.1.0).u32(self.recalled.len() as u32);
        for (time, unique) in &self.recalled {
            out.i64(time.0).text(unique);
        }
    }

    pub(crate) fn restore(&mut self, from: &mut In<'_>) -> Result<()> {
        self.delivered = (Timestamp(from.i64()?), LogOffset(from.u64()?));
        for _ in 0..from.u32()? {
            let time = Timestamp(from.i64()?);
            self.recalled.insert((time, from.text()?.to_owned()));
        }
        Ok(())
    }
}

/// What the writer keeps at hand.
#[derive(Default)]
pub struct Wheel {
    /// The slot at hand, counted from 1970; none before the first turn.
    slot: Option<i64>,
    /// How far the queues of this slot and the next are read.
    read: [QueueOffset; 2],
    due: BTreeMap<Due, u32>,
    /// How long the log was when.
    points: VecDeque<(Timestamp, LogOffset)>,
    /// Every message that came before this time can be read.
    settled: Timestamp,
}

impl Wheel {
    /// A message comes before it is due. So once everything that came before a time can be read, everything that is due by
    /// that time is known.
    fn observe(&mut self, now: Timestamp, end: LogOffset, readable: LogOffset) {
        if self.points.len() < POINTS && self.points.back().is_none_or(|(last, _)| *last < now) {
            self.points.push_back((now, end));
        }
        while let Some((time, _)) = self.points.front().copied().filter(|(_, end)| *end <= readable) {
            self.settled = time;
            self.points.pop_front();
        }
    }
}

/// When a message is to be seen, if it says so (properties `TIMER_DELAY_SEC`, `TIMER_DELAY_MS`, `TIMER_DELIVER_MS`, of which
/// the first counts) and that is not past. Source: Apache RocketMQ `HookUtils.transformTimerMessage`.
///
/// Fails with `Invalid` for what is no number, and for more than [`LONGEST_DELAY_MS`].
pub(crate) fn due(properties: &Properties, now: Timestamp) -> Result<Option<Timestamp>> {
    // It was delivered once already.
    if properties.get(key::TIMER_OUT_MS).is_some() {
        return Ok(None);
    }
    for (name, unit, from) in
        [(key::TIMER_DELAY_SECONDS, 1_000, now.0), (key::TIMER_DELAY_MS, 1, now.0), (key::TIMER_DELIVER_MS, 1, 0)]
    {
        let Some(text) = properties.get(name) else { continue };
        let number: Option<i64> = text.parse().ok();
        let due = number.and_then(|number| number.checked_mul(unit)?.checked_add(from));
        let due =
            due.ok_or_else(|| Error::invalid("properties", format!("{name}: expected a number, got {text:?}")))?;
        if due.saturating_sub(now.0) > LONGEST_DELAY_MS {
            let text = format!("{name}: expected a time at most {} s from now", LONGEST_DELAY_MS / 1_000);
            return Err(Error::invalid("properties", text));
        }
        return Ok((due > now.0).then_some(Timestamp(due)));
    }
    Ok(None)
}

/// Turns a message to the queue of the slot in which it is due.
pub(crate) fn redirect(message: &mut Message, due: Timestamp) -> Result<()> {
    message.properties = message.properties.with(key::TIMER_OUT_MS, &due.to_string())?;
    hold(message, &SYSTEM.timers, queue_of(slot_of(due)))
}

fn slot_of(time: Timestamp) -> i64 {
    time.0.div_euclid(SLOT_MS)
}

fn begin_of(slot: i64) -> Timestamp {
    Timestamp(slot.saturating_mul(SLOT_MS))
}

fn queue_of(slot: i64) -> QueueId {
    QueueId(slot.rem_euclid(i64::from(SLOTS)) as u32)
}

fn due_of(record: &RecordView<'_>) -> Result<Timestamp> {
    let due = record.property(key::TIMER_OUT_MS).and_then(|text| text.parse().ok());
    due.map(Timestamp).ok_or_else(|| Error::invalid(key::TIMER_OUT_MS, "expected a time in a held message"))
}

impl Broker {
    /// Takes back a message that is not due yet: `due` and `unique_key` as the answer to its sender said. Whether there is such
    /// a message is not looked up.
    ///
    /// Fails with `Invalid` when the time is past or too far, and `Full` when too many are recalled.
    pub fn recall(&mut self, due: Timestamp, unique_key: &str, now: Timestamp) -> Result<()> {
        if due <= now || due.ms_since(now) > LONGEST_DELAY_MS || unique_key.is_empty() || unique_key.contains(' ') {
            return Err(Error::invalid("recallHandle", "expected one of a message that is not due yet"));
        }
        if self.shared.state.read().timers.recalled.len() >= RECALLED_LIMIT {
            return Err(Error::Conflict(format!("{RECALLED_LIMIT} recalled messages wait for their time already")));
        }
        self.stage_one(op_message(RECALLED, due, unique_key, now)?, now)?;
        Ok(())
    }

    /// Stages messages whose time has come, up to a bound; call again, after a write, while it answers `true`.
    ///
    /// Messages and how far delivery came are one unit: none is delivered twice.
    pub fn deliver_timers(&mut self, now: Timestamp) -> Result<bool> {
        let (end, readable) = (self.appender.end(), self.reader.store().readable());
        self.wheel.observe(now, end, readable);
        let first = match self.wheel.slot {
            Some(slot) => slot,
            None => {
                // What comes from now on may be due before what waits already.
                let first = self.first_slot()?.map_or(slot_of(now), |first| first.min(slot_of(now)));
                self.wheel.read = [self.position(first), self.position(first + 1)];
                self.wheel.slot = Some(first);
                first
            }
        };
        for slot in first..first.saturating_add(TURN_SLOTS) {
            let next_begins = begin_of(slot + 1);
            let mut known = self.read_slot(slot, 0)?;
            if self.wheel.settled.plus_ms(LEAD_MS) >= next_begins {
                known &= self.read_slot(slot + 1, 1)?;
            }
            if !known {
                return Ok(true);
            }
            if self.wheel.due.keys().next().is_some_and(|(due, _)| *due <= self.wheel.settled) {
                self.deliver_unit(now)?;
                return Ok(true);
            }
            if self.wheel.settled < next_begins {
                return Ok(false);
            }
            self.finish_slot(slot, now)?;
            self.wheel.slot = Some(slot + 1);
        }
        Ok(true)
    }

    /// The first slot that has messages to deliver.
    fn first_slot(&self) -> Result<Option<i64>> {
        let mut first = None;
        for entry in self.reader.held(&SYSTEM.timers) {
            let record = self.reader.store().record(entry.log_offset, entry.size)?;
            let slot = slot_of(due_of(&RecordView::parse(&record)?)?);
            first = Some(first.map_or(slot, |first: i64| first.min(slot)));
        }
        Ok(first)
    }

    /// Where the messages of a slot begin in its queue.
    fn position(&self, slot: i64) -> QueueOffset {
        let queue = queue_of(slot);
        let known = schedule::cursor().and_then(|cursor| self.reader.offset(&cursor, &SYSTEM.timers, queue));
        known.unwrap_or_default().max(self.reader.bounds(&SYSTEM.timers, queue).0)
    }

    /// Reads on in the queue of a slot; answers whether all that is there is read.
    fn read_slot(&mut self, slot: i64, at: usize) -> Result<bool> {
        let delivered = self.shared.state.read().timers.delivered;
        let mut entries: Vec<Entry> = Vec::new();
        for _ in 0..TURN_ENTRIES / READ_ENTRIES {
            entries.clear();
            self.reader.store().entries(
                &SYSTEM.timers,
                queue_of(slot),
                self.wheel.read[at],
                READ_ENTRIES,
                &mut entries,
            );
            for entry in &entries {
                let record = self.reader.store().record(entry.log_offset, entry.size)?;
                let due = due_of(&RecordView::parse(&record)?)?;
                if slot_of(due) > slot {
                    // Of a later turn of the wheel; all of this turn came before it.
                    return Ok(true);
                }
                self.wheel.read[at] = entry.queue_offset.next();
                if (due, entry.log_offset) > delivered {
                    self.wheel.due.insert((due, entry.log_offset), entry.size);
                }
            }
            if entries.len() < READ_ENTRIES {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn deliver_unit(&mut self, now: Timestamp) -> Result<()> {
        // A unit stays within a segment; half of one leaves room for what encoding adds.
        let most = (UNIT_BYTES as u64).min(self.shared.segment_len / 2) as usize;
        let (mut unit, mut bytes, mut last) = (Vec::new(), 0, None);
        let mut taken = Vec::new();
        for (due, size) in self.wheel.due.range(..=(self.wheel.settled, LogOffset(u64::MAX))).take(UNIT_MESSAGES) {
            bytes += *size as usize;
            if bytes > most && last.is_some() {
                break;
            }
            last = Some(*due);
            taken.push((*due, *size));
        }
        let Some(last) = last else { return Ok(()) };
        for ((due, at), size) in &taken {
            let record = self.reader.store().record(*at, *size)?;
            let record = RecordView::parse(&record)?;
            let unique = record.property(key::UNIQUE_KEY).unwrap_or_default().to_owned();
            if self.shared.state.read().timers.recalled.contains(&(*due, unique)) {
                continue;
            }
            let mut message = record.to_message()?;
            release(&mut message, &[])?;
            // A topic deleted meanwhile takes its messages with it.
            if let Some(topic) = self.topic(&message.topic) {
                message.queue = topic.queue_for(message.queue);
                unit.push(message);
            }
        }
        unit.push(op_message(DELIVERED, last.0, &last.1.to_string(), now)?);
        self.stage(&unit, now)?;
        for (due, _) in taken {
            self.wheel.due.remove(&due);
        }
        Ok(())
    }

    /// The slot is over: its queue is not looked at again before the wheel comes round.
    fn finish_slot(&mut self, slot: i64, now: Timestamp) -> Result<()> {
        let [read, next] = self.wheel.read;
        if read > self.position(slot)
            && let Some(group) = schedule::cursor()
        {
            let position = Position { group, topic: SYSTEM.timers.clone(), queue: queue_of(slot), offset: read };
            self.stage_one(self.positions_message(&[position], now), now)?;
        }
        self.wheel.read = [next, self.position(slot + 2)];
        Ok(())
    }
}

fn op_message(tag: &str, time: Timestamp, what: &str, now: Timestamp) -> Result<Message> {
    let properties = Properties::from_pairs([(key::TAGS, tag)])?;
    Ok(Message::new(SYSTEM.timer_op.clone(), QueueId(0), now, properties, format!("{time} {what}").into()))
}
