//! Verbs: decide a half message, and find those that nobody decided.

use bytes::Bytes;
use sluice_model::{
    GroupName, LogOffset, Message, Properties, QueueId, QueueOffset, RecordView, Timestamp, Transaction, key,
};

use crate::{
    Error,
    append::{delay, release},
    broker::{Broker, Effect},
    error::Result,
    halves::{ASKED_UNTIL, CHECKS, Half},
    system::SYSTEM,
};

/// Most half messages looked at in one turn.
const TURN_HALVES: usize = 256;

/// What is to become of a half message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Commit,
    Rollback,
}

/// A half message to ask about.
#[derive(Clone, Debug, PartialEq)]
pub struct HalfCheck {
    pub half: Half,
    /// The record as it is stored, under the half topic.
    pub record: Bytes,
    /// Which question this is, from 1, and how many there will be.
    pub attempt: u32,
    pub attempts: u32,
}

impl HalfCheck {
    /// The message as it will be if it is committed: under its own topic and queue.
    pub fn message(&self) -> Result<Message> {
        let mut message = RecordView::parse(&self.record)?.to_message()?;
        release(&mut message, &[])?;
        Ok(message)
    }
}

impl Broker {
    /// Decides a half message: with [`Verdict::Commit`] the message itself and the decision are one unit.
    ///
    /// Fails with `NotFound` when the half message is decided already or never was, and with `Conflict` when group or
    /// log offset are not those of the half message at `queue_offset`.
    pub fn decide(
        &mut self,
        group: &GroupName,
        queue_offset: QueueOffset,
        at: LogOffset,
        verdict: Verdict,
        now: Timestamp,
    ) -> Result<()> {
        let half = self.half(queue_offset)?;
        if half.group != *group || half.at != at {
            let text = format!("half message {queue_offset} is not group {group:?}'s at log offset {at}");
            return Err(Error::Conflict(text));
        }
        self.decide_half(&half, verdict, now)
    }

    fn decide_half(&mut self, half: &Half, verdict: Verdict, now: Timestamp) -> Result<()> {
        let decision = decision_message(half.queue_offset, now)?;
        let unit = match verdict {
            Verdict::Rollback => vec![decision],
            Verdict::Commit => {
                let mut message = self.half_message(half)?;
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

    /// Puts off the next question about a half message without counting it as asked again.
    pub fn ask_again(&mut self, queue_offset: QueueOffset, due: Timestamp, now: Timestamp) -> Result<()> {
        let half = self.half(queue_offset)?;
        self.stage_one(question_message(queue_offset, due, half.checks, now)?, now)?;
        Ok(())
    }

    /// Emits an effect for every half message whose time has come, up to a bound. One that was asked about too often
    /// goes to `TRANS_CHECK_MAX_TIME_TOPIC`, in one unit with that decision.
    pub fn check_halves(&mut self, now: Timestamp) -> Result<()> {
        let due = self.shared.state.read().halves.due(now, TURN_HALVES);
        for half in due {
            // One that cannot be read yet is due again in the next turn.
            if self.reader.store().readable() <= half.at {
                continue;
            }
            if half.checks >= self.config().transaction_checks {
                self.expire(&half, now)?;
                continue;
            }
            let until = now.plus_ms(self.config().transaction_interval_ms);
            let record = self.reader.store().record_at(half.at)?;
            self.stage_one(question_message(half.queue_offset, until, half.checks + 1, now)?, now)?;
            let (attempt, attempts) = (half.checks + 1, self.config().transaction_checks);
            self.effects.push(Effect::CheckHalf(HalfCheck { half, record, attempt, attempts }));
        }
        Ok(())
    }

    fn expire(&mut self, half: &Half, now: Timestamp) -> Result<()> {
        let mut message = self.half_message(half)?;
        message.topic = SYSTEM.half_expired.clone();
        message.queue = QueueId(0);
        self.stage(&[message, decision_message(half.queue_offset, now)?], now)?;
        Ok(())
    }

    fn half(&self, queue_offset: QueueOffset) -> Result<Half> {
        let state = self.shared.state.read();
        state.halves.get(queue_offset).cloned().ok_or_else(|| Error::not_found("half message", queue_offset))
    }

    fn half_message(&self, half: &Half) -> Result<Message> {
        let record = self.reader.store().record_at(half.at)?;
        Ok(RecordView::parse(&record)?.to_message()?)
    }
}

/// A record of the decisions' topic: the half message is decided.
fn decision_message(offset: QueueOffset, now: Timestamp) -> Result<Message> {
    half_op_message(offset, &[(key::TAGS, "d")], now)
}

/// A record of the decisions' topic: `checks` questions were put, and when to put the next.
fn question_message(offset: QueueOffset, due: Timestamp, checks: u32, now: Timestamp) -> Result<Message> {
    half_op_message(offset, &[(ASKED_UNTIL, &due.to_string()), (CHECKS, &checks.to_string())], now)
}

fn half_op_message(offset: QueueOffset, pairs: &[(&str, &str)], now: Timestamp) -> Result<Message> {
    let properties = Properties::from_pairs(pairs.iter().copied())?;
    Ok(Message::new(SYSTEM.half_op.clone(), QueueId(0), now, properties, offset.to_string().into_bytes().into()))
}
