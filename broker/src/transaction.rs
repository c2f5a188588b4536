//! Verbs: decide a half message, and find those that nobody decided.

use std::collections::BTreeMap;

use bytes::Bytes;
use sluice_model::{
    GroupName, LogOffset, Message, MessageId, Properties, QueueId, QueueOffset, RecordView, Timestamp, Transaction, key,
};

use crate::{
    Error,
    append::{delay, release},
    broker::{Broker, Effect},
    error::Result,
    halves::{ASKED_UNTIL, CHECKS, Half},
    reader::Reader,
    system::SYSTEM,
};

/// Most half messages looked at in one turn.
const TURN_HALVES: usize = 256;
/// For how long nobody can be asked about a half message before it is given up, ms: it holds the log's segments behind it.
/// Apache RocketMQ keeps its log, and half messages with it, as long (`fileReservedTime`).
const UNASKED_MS: i64 = 72 * 3_600_000;
/// The shell is told of one that nobody was asked about when it waited this part of its time longer, after so many intervals at the most.
const OFFERED_PART: i64 = 8;
const OFFERED_INTERVALS: i64 = 10;

/// Lengths of the unique keys that clients make: with an address of IPv4, of clients of version 5, and with one of IPv6.
const UNIQUE_KEY_LENS: [usize; 3] = [32, 34, 56];

/// What is to become of a half message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Commit,
    Rollback,
}

impl Verdict {
    fn word(self) -> &'static str {
        match self {
            Self::Commit => "commit",
            Self::Rollback => "rollback",
        }
    }
}

/// Who decided a half message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decider<'a> {
    /// A producer of its group, by itself or when it was asked.
    Producer,
    /// The plugin bound to its group, and why, where it said so. Of the reason 1,024 letters are kept, without control characters.
    Checker(Option<&'a str>),
}

impl Decider<'_> {
    fn word(self) -> &'static str {
        match self {
            Self::Producer => "producer",
            Self::Checker(_) => "checker",
        }
    }

    fn reason(self) -> Option<String> {
        let Self::Checker(reason) = self else { return None };
        let kept = |text: &str| text.chars().filter(|letter| !letter.is_control()).take(REASON_LETTERS).collect();
        reason.map(kept).filter(|text: &String| !text.is_empty())
    }
}

/// What became of a half message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decided {
    /// Place of the decision among the decisions.
    pub at: QueueOffset,
    /// Place of the half message among the half messages.
    pub half: QueueOffset,
    /// `commit`, `rollback`, or `expired`: nobody decided it in time.
    pub verdict: String,
    /// `producer`, `checker`, or `broker` for an expired one.
    pub by: String,
    /// What a checker said why.
    pub reason: Option<String>,
    pub group: String,
    /// Where it was to go.
    pub topic: String,
    pub unique_key: String,
    pub decided_at: Timestamp,
}

/// Properties of the record of a decision.
const VERDICT: &str = "verdict";
const BY: &str = "by";
const REASON: &str = "reason";
const REASON_LETTERS: usize = 1024;
const GROUP: &str = "group";
const TOPIC: &str = "topic";
const ID: &str = "id";
const DECISION: &str = "d";
/// Records looked through for decisions at a time, and in one call.
const READ_ENTRIES: usize = 512;
const SCAN_ENTRIES: usize = 16 * READ_ENTRIES;

impl Reader {
    /// Decisions, the newest first: up to `max` of those before `before`, and where to go on; `None` when there are none
    /// further back. They go with the segments of the log.
    pub fn decisions(&self, before: Option<QueueOffset>, max: usize) -> Result<(Vec<Decided>, Option<QueueOffset>)> {
        let (min, end) = self.bounds(&SYSTEM.half_op, QueueId(0));
        let mut to = before.map_or(end, |before| before.min(end));
        let lowest = QueueOffset(to.0.saturating_sub(SCAN_ENTRIES as u64)).max(min);
        let mut found = Vec::new();
        while to > lowest {
            let from = QueueOffset(to.0.saturating_sub(READ_ENTRIES as u64)).max(lowest);
            let mut entries = Vec::new();
            self.store().entries(&SYSTEM.half_op, QueueId(0), from, (to.0 - from.0) as usize, &mut entries);
            for entry in entries.iter().rev() {
                if found.len() == max {
                    return Ok((found, Some(entry.queue_offset.next())));
                }
                let record = self.store().record(entry.log_offset, entry.size)?;
                found.extend(decided(&RecordView::parse(&record)?));
            }
            to = from;
        }
        Ok((found, (lowest > min).then_some(lowest)))
    }
}

/// What a record of the decisions' topic decided; `None` for one that is a question.
fn decided(record: &RecordView<'_>) -> Option<Decided> {
    let own = |name| record.property(name).map(str::to_owned);
    Some(Decided {
        at: record.queue_offset(),
        half: QueueOffset(std::str::from_utf8(record.body()).ok()?.parse().ok()?),
        verdict: own(VERDICT)?,
        by: own(BY)?,
        reason: own(REASON),
        group: own(GROUP)?,
        topic: own(TOPIC)?,
        unique_key: own(ID)?,
        decided_at: record.stored_at(),
    })
}

/// A half message to ask about.
#[derive(Clone, Debug, PartialEq)]
pub struct HalfCheck {
    pub half: Half,
    /// The record as it is stored, under the half topic.
    pub record: Bytes,
}

impl HalfCheck {
    /// The message as it will be if it is committed: under its own topic and queue.
    pub fn message(&self) -> Result<Message> {
        let mut message = RecordView::parse(&self.record)?.to_message()?;
        release(&mut message, &[])?;
        Ok(message)
    }
}

/// Half messages of topics that do not wait for the disk: their producers may decide them before readers can see them. The next send to such
/// a topic forgets those that readers see by then, so there are at most as many as were once not on disk, which the log's writer bounds.
#[derive(Default)]
pub(crate) struct FreshHalves(BTreeMap<LogOffset, Message>);

impl FreshHalves {
    /// Keeps messages by their places, and forgets those that readers see by now.
    pub fn keep(&mut self, halves: impl Iterator<Item = (LogOffset, Message)>, readable: LogOffset) {
        self.0 = self.0.split_off(&readable);
        self.0.extend(halves);
    }

    fn get(&self, at: LogOffset) -> Option<&Message> {
        self.0.get(&at)
    }
}

impl Broker {
    /// Decides a half message: with [`Verdict::Commit`] the message itself and the decision are one unit.
    ///
    /// `named` are ids that the decision gives for the message, if any. Fails with `NotFound` when the half message is decided already,
    /// never was, or is another than the one named; and with `Conflict` when group or log offset are not those of the half message
    /// at `queue_offset`.
    pub fn decide(
        &mut self,
        group: &GroupName,
        queue_offset: QueueOffset,
        at: LogOffset,
        named: &[&str],
        (verdict, by): (Verdict, Decider<'_>),
        now: Timestamp,
    ) -> Result<()> {
        let half = self.half(queue_offset)?;
        if half.group != *group || half.at != at {
            let text = format!("half message {queue_offset} is not group {group:?}'s at log offset {at}");
            return Err(Error::Conflict(text));
        }
        let mut message = self.half_message(&half)?;
        // A half message acknowledged ahead of the disk may be lost in a crash, and another one has its places then.
        if names_another(named, &message, at) {
            return Err(Error::not_found("half message", queue_offset));
        }
        let (said, reason) = ((verdict.word(), by.word()), by.reason());
        let decision = decision_message(&half, &message, said, reason.as_deref(), now)?;
        let unit = match verdict {
            Verdict::Rollback => vec![decision],
            Verdict::Commit => {
                release(&mut message, &[key::TRANSACTION_PREPARED])?;
                message.sys_flag = message.sys_flag.with_transaction(Transaction::Commit);
                message.prepared_at = half.at.0;
                let topic = self.topic(&message.topic).ok_or_else(|| Error::not_found("topic", &message.topic))?;
                message.queue = topic.queue_for(message.queue);
                delay(&mut message, now)?;
                vec![message, decision]
            }
        };
        self.stage(&unit, now)?;
        Ok(())
    }

    /// Counts a question about a half message: somebody was asked, and is to be asked again at `due`; after the usual interval without.
    ///
    /// Fails with `NotFound` when it is decided already, and with `Conflict` when another one is at its place by now.
    pub fn asked(&mut self, of: &Half, due: Option<Timestamp>, now: Timestamp) -> Result<()> {
        let half = self.half(of.queue_offset)?;
        if half.at != of.at {
            return Err(Error::Conflict(format!("half message {} is another one by now", of.queue_offset)));
        }
        let due = due.unwrap_or_else(|| now.plus_ms(self.config().transaction_interval_ms));
        self.stage_one(question_message(of.queue_offset, due, half.checks + 1, now)?, now)?;
        Ok(())
    }

    /// Emits an effect for every half message whose time has come, up to a bound, and again now and then until [`Self::asked`] says
    /// that somebody was asked. One that was asked about too often, or that nobody could be asked about for days, goes to
    /// `TRANS_CHECK_MAX_TIME_TOPIC`, in one unit with that decision.
    pub fn check_halves(&mut self, now: Timestamp) -> Result<()> {
        let (checks, interval) = (self.config().transaction_checks, self.config().transaction_interval_ms);
        let due = self.shared.state.read().halves.due(now, TURN_HALVES);
        for (half, offered) in due {
            // One that cannot be read yet is due again in the next turn.
            if self.reader.store().readable() <= half.at {
                continue;
            }
            // Whoever was away while the broker was has the time of all questions to come back.
            let unasked = now.ms_since(half.due) >= UNASKED_MS && offered >= interval.saturating_mul(checks.into());
            if half.checks >= checks || unasked {
                self.expire(&half, now)?;
                continue;
            }
            let record = self.reader.store().record_at(half.at)?;
            let wait = (offered / OFFERED_PART).clamp(interval, interval.saturating_mul(OFFERED_INTERVALS));
            self.shared.state.write().halves.offer(half.queue_offset, now, now.plus_ms(wait));
            self.effects.push(Effect::CheckHalf(HalfCheck { half, record }));
        }
        Ok(())
    }

    fn expire(&mut self, half: &Half, now: Timestamp) -> Result<()> {
        let mut message = self.half_message(half)?;
        let decision = decision_message(half, &message, ("expired", "broker"), None, now)?;
        message.topic = SYSTEM.half_expired.clone();
        message.queue = QueueId(0);
        self.stage(&[message, decision], now)?;
        Ok(())
    }

    fn half(&self, queue_offset: QueueOffset) -> Result<Half> {
        let state = self.shared.state.read();
        state.halves.get(queue_offset).cloned().ok_or_else(|| Error::not_found("half message", queue_offset))
    }

    fn half_message(&self, half: &Half) -> Result<Message> {
        if let Some(message) = self.fresh_halves.get(half.at) {
            return Ok(message.clone());
        }
        let record = self.reader.store().record_at(half.at)?;
        Ok(RecordView::parse(&record)?.to_message()?)
    }
}

/// Whether the ids are certainly those of another message than this one at `at`. Clients give its unique key, the transaction's id that it
/// carries, or its address and log offset; what has the form of none of these says nothing.
fn names_another(named: &[&str], message: &Message, at: LogOffset) -> bool {
    let Some(unique) = message.properties.get(key::UNIQUE_KEY) else { return false };
    let own = |id: &str| id == unique || message.properties.get(key::TRANSACTION_ID) == Some(id);
    !named.iter().any(|id| own(id)) && named.iter().any(|id| is_unique_key(id, at))
}

/// Whether `id` has the form of the keys that clients and brokers make, and is not the place `at` in a broker's log, which has it too.
fn is_unique_key(id: &str, at: LogOffset) -> bool {
    let place = MessageId::parse(id).is_ok_and(|place| place.log_offset == at);
    UNIQUE_KEY_LENS.contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_hexdigit()) && !place
}

/// A record of the decisions' topic: the half message is decided.
fn decision_message(
    half: &Half,
    message: &Message,
    (verdict, by): (&str, &str),
    reason: Option<&str>,
    now: Timestamp,
) -> Result<Message> {
    let own = |name| message.properties.get(name).unwrap_or_default();
    let pairs = [
        (key::TAGS, DECISION),
        (VERDICT, verdict),
        (BY, by),
        (GROUP, half.group.as_str()),
        (TOPIC, own(key::REAL_TOPIC)),
        (ID, own(key::UNIQUE_KEY)),
    ];
    let pairs: Vec<_> = pairs.into_iter().chain(reason.map(|reason| (REASON, reason))).collect();
    half_op_message(half.queue_offset, &pairs, now)
}

/// A record of the decisions' topic: `checks` questions were put, and from when on the next is to be.
fn question_message(offset: QueueOffset, due: Timestamp, checks: u32, now: Timestamp) -> Result<Message> {
    half_op_message(offset, &[(ASKED_UNTIL, &due.to_string()), (CHECKS, &checks.to_string())], now)
}

fn half_op_message(offset: QueueOffset, pairs: &[(&str, &str)], now: Timestamp) -> Result<Message> {
    let properties = Properties::from_pairs(pairs.iter().copied())?;
    Ok(Message::new(SYSTEM.half_op.clone(), QueueId(0), now, properties, offset.to_string().into_bytes().into()))
}
