//! Asking about a half message: the group's plugin, its producers, or both, and what becomes of the answer.

use std::{sync::Arc, time::Duration};

use sluice_broker::{Decider, HalfCheck, Verdict};
use sluice_model::{
    Kind, Message, MessageId, key, limits,
    record::{self, Placement, UnitPlace},
};
use sluice_protocol::{compress, request::CheckTransaction};
use sluice_runtime::{Decision, HalfMessage, Instance, Setup, processor_time};

use super::{Bound, CheckPolicy, context, lane::Came};
use crate::{
    breaker::Entry,
    clock,
    failure::{Failure, Result},
    priority,
    remoting::Sessions,
    shell::Shell,
};

/// What a plugin answered, since it was bound or since the server started.
#[derive(Clone, Copy, Debug, Default)]
pub struct Answers {
    pub commit: u64,
    pub rollback: u64,
    pub unknown: u64,
    /// It wants to be asked again later.
    pub later: u64,
    /// It trapped, or could not be started.
    pub failed: u64,
    /// Half messages that it was not asked about, since it fails on most of them.
    pub unasked: u64,
}

impl Answers {
    fn count(&mut self, answer: &Result<Decision>) {
        *match answer {
            Ok(Decision::Commit) => &mut self.commit,
            Ok(Decision::Rollback(_)) => &mut self.rollback,
            Ok(Decision::Unknown) => &mut self.unknown,
            Ok(Decision::AskAgainAfter(_)) => &mut self.later,
            Err(_) => &mut self.failed,
        } += 1;
    }
}

/// What is needed to ask and to decide. Cheap to clone.
#[derive(Clone)]
pub struct Desk {
    pub shell: Shell,
    pub sessions: Arc<Sessions>,
}

impl Desk {
    /// Has a half message decided whose time has come. Blocks for as long as a plugin may take.
    pub fn check(&self, bound: &Bound, seat: &mut Option<Instance>, check: &HalfCheck) -> Came {
        let policy = bound.spec.policy;
        if policy == CheckPolicy::ProducerFirst && self.ask_producer(check) {
            return Came::Done { wasted: Duration::ZERO };
        }
        let (decision, wasted) = match half_message(check).map(|message| (message, bound.breaker.enter())) {
            Ok((message, Ok(entry))) => decide(bound, entry, seat, &message),
            Ok((_, Err(_))) => {
                let asked = policy == CheckPolicy::PluginFirst && self.ask_producer(check);
                if !asked {
                    // It must not go by as one that was asked about.
                    return Came::Later { wait: bound.breaker.rests() };
                }
                bound.answers.lock().unasked += 1;
                return Came::Done { wasted: Duration::ZERO };
            }
            Err(failure) => {
                bound.answers.lock().failed += 1;
                tracing::warn!(group = %check.half.group, %failure, "a half message cannot be read and stays undecided");
                (Decision::Unknown, Duration::ZERO)
            }
        };
        if decision == Decision::Unknown && policy == CheckPolicy::PluginFirst {
            self.ask_producer(check);
        } else {
            self.settle(check, decision);
        }
        // While it rests, nobody has to wait behind it for that.
        Came::Done { wasted: if bound.breaker.is_open() { Duration::ZERO } else { wasted } }
    }

    fn settle(&self, check: &HalfCheck, decision: Decision) {
        let half = check.half.clone();
        let verdict = match decision {
            Decision::Commit => Verdict::Commit,
            Decision::Rollback(reason) => {
                tracing::info!(group = %half.group, half = %half.queue_offset, reason, "a checker rolled back");
                Verdict::Rollback
            }
            // It is asked again when it is due.
            Decision::Unknown => return,
            Decision::AskAgainAfter(wait) => return self.ask_again(check, wait),
        };
        let settled = self.shell.ask_blocking(move |broker, now| {
            broker.decide(&half.group, half.queue_offset, half.at, &[], (verdict, Decider::Checker), now)
        });
        if let Err(failure) = settled {
            tracing::warn!(group = %check.half.group, %failure, "a decision came to nothing");
        }
    }

    fn ask_again(&self, check: &HalfCheck, wait: Duration) {
        let wait_ms = i64::try_from(wait.as_millis()).unwrap_or(i64::MAX);
        let half = check.half.queue_offset;
        let asked = self.shell.ask_blocking(move |broker, now| broker.ask_again(half, now.plus_ms(wait_ms), now));
        if let Err(failure) = asked {
            tracing::warn!(group = %check.half.group, %failure, "a half message is asked about at its usual time");
        }
    }

    /// Asks one connected producer of the group, another one each time; answers whether there is one.
    pub fn ask_producer(&self, check: &HalfCheck) -> bool {
        let producers: Vec<_> = self
            .shell
            .reader
            .members(|members| members.producers(&check.half.group).map(|member| member.session).collect());
        let turn = check.attempt as usize;
        let order = producers.iter().cycle().skip(turn).take(producers.len());
        let request = match question(self.shell.reader.config(), check) {
            Ok(request) => request.encode(),
            Err(failure) => {
                tracing::error!(half = %check.half.queue_offset, %failure, "a half message cannot be read");
                return false;
            }
        };
        let mut sessions = order.filter_map(|id| self.sessions.get(*id));
        sessions.any(|session| session.send_oneway(request.clone()).is_ok())
    }
}

/// What the plugin decides, and how much processor time came to nothing.
fn decide(bound: &Bound, entry: Entry, seat: &mut Option<Instance>, message: &HalfMessage) -> (Decision, Duration) {
    let began = processor_time();
    let mut ask = || ask_plugin(bound, seat, message);
    let answer = if entry == Entry::Free { ask() } else { priority::aside(ask) };
    let took = Duration::from_nanos(processor_time().saturating_sub(began));
    bound.answers.lock().count(&answer);
    let wasted = match &answer {
        Err(failure) if seat.is_none() && failure.kind == Kind::Internal => {
            bound.breaker.failed(entry, took, &failure.text);
            took
        }
        // There is no plugin, or no instance was to be had.
        Err(_) if seat.is_none() => {
            bound.breaker.left(entry);
            Duration::ZERO
        }
        _ => {
            bound.breaker.went_well(entry, 1);
            Duration::ZERO
        }
    };
    let decision = answer.unwrap_or_else(|failure| {
        tracing::warn!(group = %message.producer_group, %failure, "a checker failed: the half message stays undecided");
        Decision::Unknown
    });
    (decision, wasted)
}

/// Asks the plugin. Its instance is made for the first question, and again after a trap.
fn ask_plugin(bound: &Bound, seat: &mut Option<Instance>, message: &HalfMessage) -> Result<Decision> {
    let mut instance = match seat.take() {
        Some(instance) => instance,
        None => start(bound, message)?,
    };
    let decided = instance.check(message);
    if !instance.is_dead() {
        *seat = Some(instance);
    }
    decided.map_err(|failure| Failure::new(Kind::Internal, failure.to_string()))
}

fn start(bound: &Bound, message: &HalfMessage) -> Result<Instance> {
    let plugin = bound.plugin.as_ref().map_err(|reason| Failure::new(Kind::NotFound, reason.clone()))?;
    let setup = Setup {
        config: bound.spec.config.clone(),
        context: context(&message.producer_group, &bound.spec),
        grants: bound.grants.clone(),
        observer: bound.logs.clone(),
        ..Setup::default()
    };
    plugin.instance(setup).map_err(|error| Failure::not_started(&error, |text| Failure::new(Kind::Internal, text)))
}

/// The question as a producer gets it: the message as a stored record, under its own topic.
fn question(config: &sluice_broker::Config, check: &HalfCheck) -> Result<CheckTransaction> {
    let message = check.message()?;
    let half = &check.half;
    let place = Placement {
        queue_offset: half.queue_offset,
        log_offset: half.at,
        stored_at: half.stored_at,
        store_host: config.advertised,
        unit: UnitPlace::ALONE,
    };
    let mut body = Vec::new();
    record::encode(&mut body, &message, &place);
    let own = |name| message.properties.get(name).map(str::to_owned);
    Ok(CheckTransaction {
        topic: Some(message.topic.to_string()),
        half_offset: half.queue_offset,
        log_offset: half.at,
        message_id: own(key::UNIQUE_KEY),
        transaction_id: own(key::TRANSACTION_ID).or_else(|| own(key::UNIQUE_KEY)),
        stored_id: Some(MessageId { broker: config.advertised, log_offset: half.at }.to_string()),
        broker: Some(config.name.clone()),
        body: body.into(),
    })
}

fn half_message(check: &HalfCheck) -> Result<HalfMessage> {
    let message: Message = check.message()?;
    let own = |name| message.properties.get(name).map(str::to_owned);
    let body = match message.sys_flag.compression() {
        None => message.body.to_vec(),
        Some(compression) => compress::decompress(&message.body, compression, limits::SYSTEM_BODY_LEN)
            .map_err(|error| Failure::new(Kind::Corrupt, error.to_string()))?,
    };
    Ok(HalfMessage {
        transaction_id: own(key::TRANSACTION_ID).or_else(|| own(key::UNIQUE_KEY)).unwrap_or_default(),
        topic: message.topic.to_string(),
        producer_group: check.half.group.to_string(),
        key: own(key::KEYS),
        headers: message.properties.iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect(),
        body,
        born_at: u64::try_from(message.born_at.0).unwrap_or(0),
        attempt: check.attempt,
        max_attempts: check.attempts,
        now: u64::try_from(clock::now().0).unwrap_or(0),
    })
}
