//! Asking about a half message: the group's plugin, its producers, or both, and what becomes of the answer.

use std::{sync::Arc, time::Duration};

use sluice_broker::{Decider, Half, HalfCheck, Verdict};
use sluice_model::{
    Kind, Message, MessageId, Timestamp, key, limits,
    record::{self, Placement, UnitPlace},
};
use sluice_protocol::{compress, request::CheckTransaction};
use sluice_runtime::{Decision, HalfMessage, Instance, Setup, processor_time};

use super::{Bound, CheckPolicy, context, lane::Came};
use crate::{
    breaker::Entry,
    clock,
    failure::{Failure, Result},
    priority::{self, Calls},
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
    /// Questions that were put to producers instead, since it fails on most of them.
    pub unasked: u64,
    /// Processor time of its calls, and of starting instances.
    pub cpu: Duration,
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

/// The half messages of a group come from one side.
const SENDER: u64 = 0;

/// What the thread of a group's checker has in hand.
#[derive(Default)]
pub struct Seat {
    pub instance: Option<Instance>,
    calls: Calls,
}

/// What a plugin made of a question.
struct Said {
    decision: Decision,
    /// It was called.
    asked: bool,
    /// Processor time that came to nothing.
    wasted: Duration,
}

impl Desk {
    /// Has a half message decided whose time has come. Blocks for as long as a plugin may take.
    pub fn check(&self, bound: &Bound, seat: &mut Seat, check: &HalfCheck) -> Came {
        // It may have waited here for long, and somebody else may have decided it or been asked.
        let Some(half) = self.due(&check.half) else { return Came::Done { wasted: Duration::ZERO } };
        let check = &HalfCheck { half, record: check.record.clone() };
        let policy = bound.spec.policy;
        if policy == CheckPolicy::ProducerFirst && self.ask_producer(check) {
            return Came::Done { wasted: Duration::ZERO };
        }
        let message = half_message(check, self.shell.reader.config().transaction_checks);
        let said = match message.map(|message| (message, bound.breaker.enter(SENDER))) {
            Ok((message, Ok(entry))) => decide(bound, entry, seat, &message),
            Ok((_, Err(rest))) => {
                if policy != CheckPolicy::PluginFirst || !self.ask_producer(check) {
                    return Came::Later { wait: rest.wait };
                }
                bound.answers.lock().unasked += 1;
                return Came::Done { wasted: Duration::ZERO };
            }
            Err(failure) => {
                bound.answers.lock().failed += 1;
                tracing::warn!(group = %check.half.group, %failure, "a half message cannot be read and stays undecided");
                Said { decision: Decision::Unknown, asked: false, wasted: Duration::ZERO }
            }
        };
        match said.decision {
            Decision::Commit => self.settle(&check.half, Verdict::Commit, None),
            Decision::Rollback(reason) => {
                let half = &check.half;
                tracing::info!(group = %half.group, half = %half.queue_offset, reason, "a checker rolled back");
                self.settle(half, Verdict::Rollback, Some(reason));
            }
            Decision::AskAgainAfter(wait) => {
                let wait_ms = i64::try_from(wait.as_millis()).unwrap_or(i64::MAX);
                self.count(&check.half, Some(clock::now().plus_ms(wait_ms)));
            }
            Decision::Unknown => {
                let told = policy == CheckPolicy::PluginFirst && self.tell_producer(check);
                if said.asked || told {
                    self.count(&check.half, None);
                }
            }
        }
        // While it rests, nobody has to wait behind it for that.
        Came::Done { wasted: if bound.breaker.is_open() { Duration::ZERO } else { said.wasted } }
    }

    /// The half message as it is by now, if somebody is to be asked about it still.
    fn due(&self, half: &Half) -> Option<Half> {
        let known = self.shell.reader.half(half.queue_offset);
        known.filter(|known| known.at == half.at && known.due <= clock::now())
    }

    fn settle(&self, half: &Half, verdict: Verdict, reason: Option<String>) {
        let its = half.clone();
        let settled = self.shell.ask_blocking(move |broker, now| {
            let by = Decider::Checker(reason.as_deref());
            broker.decide(&its.group, its.queue_offset, its.at, &[], (verdict, by), now)
        });
        if let Err(failure) = settled {
            tracing::warn!(group = %half.group, %failure, "a decision came to nothing");
        }
    }

    /// Somebody was asked, and is to be asked again at `due`; after the usual interval without. Does not block.
    fn count(&self, half: &Half, due: Option<Timestamp>) {
        let (its, group) = (half.clone(), half.group.clone());
        self.shell.call(
            move |broker, now| broker.asked(&its, due, now),
            move |counted| match counted {
                // It is decided already.
                Err(failure) if failure.kind == Kind::NotFound => {}
                Err(failure) => tracing::warn!(%group, %failure, "a question about a half message does not count"),
                Ok(()) => {}
            },
        );
    }

    /// Asks one connected producer of the group, another one each time; answers whether there is one.
    pub fn ask_producer(&self, check: &HalfCheck) -> bool {
        let told = self.tell_producer(check);
        if told {
            self.count(&check.half, None);
        }
        told
    }

    fn tell_producer(&self, check: &HalfCheck) -> bool {
        let producers: Vec<_> = self
            .shell
            .reader
            .members(|members| members.producers(&check.half.group).map(|member| member.session).collect());
        let turn = check.half.checks as usize;
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

/// What the plugin says.
fn decide(bound: &Bound, entry: Entry, seat: &mut Seat, message: &HalfMessage) -> Said {
    let began = processor_time();
    let Seat { instance: place, calls } = seat;
    let ask = || {
        let mut instance =
            place.take().map_or_else(|| start(bound, message), Ok).map_err(|failure| (failure, false))?;
        let decided = instance.check(message);
        if !instance.is_dead() {
            *place = Some(instance);
        }
        decided.map_err(|failure| (Failure::new(Kind::Internal, failure.to_string()), true))
    };
    let answer = if entry == Entry::Free { calls.run(ask) } else { priority::aside(ask) };
    let took = Duration::from_nanos(processor_time().saturating_sub(began));
    let asked = answer.as_ref().map_or_else(|(_, asked)| *asked, |_| true);
    let answer = answer.map_err(|(failure, _)| failure);
    {
        let mut answers = bound.answers.lock();
        answers.count(&answer);
        answers.cpu += took;
    }
    let wasted = match &answer {
        Err(failure) if seat.instance.is_none() && failure.kind == Kind::Internal => {
            bound.breaker.failed(entry, SENDER, took, &failure.text);
            took
        }
        // There is no plugin, or no instance was to be had.
        Err(_) if seat.instance.is_none() => {
            bound.breaker.left(entry, SENDER);
            Duration::ZERO
        }
        _ => {
            bound.breaker.went_well(entry, std::iter::once(SENDER));
            Duration::ZERO
        }
    };
    if wasted.is_zero() {
        seat.calls.returns();
    } else {
        seat.calls.wasted(wasted);
    }
    let decision = answer.unwrap_or_else(|failure| {
        tracing::warn!(group = %message.producer_group, %failure, "a checker failed: the half message stays undecided");
        Decision::Unknown
    });
    Said { decision, asked, wasted }
}

/// For the first question, and again after a trap.
fn start(bound: &Bound, message: &HalfMessage) -> Result<Instance> {
    let plugin = bound.plugin.as_ref().map_err(|reason| Failure::new(Kind::NotFound, reason.clone()))?;
    let setup = Setup {
        config: bound.spec.config.clone(),
        context: context(&message.producer_group, &bound.spec),
        grants: bound.grants.clone(),
        observer: bound.logs.clone(),
        limits: bound.limits.clone(),
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

fn half_message(check: &HalfCheck, max_attempts: u32) -> Result<HalfMessage> {
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
        attempt: check.half.checks,
        max_attempts,
        now: u64::try_from(clock::now().0).unwrap_or(0),
    })
}
