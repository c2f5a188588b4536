//! Two versions of a chain over the same records. What they make goes nowhere; where they differ is told.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::batch::Record;
use crate::counters::Counters;
use crate::error::Error;
use crate::given::{Begin, Given};
use crate::plan::{Plan, Policy, Then};
use crate::ports::{DeadLetter, Outgoing, PortError, Sink, Unit};
use crate::stage::{Stage, Turn};

/// The live version of a chain and the one that may follow it, on one queue.
pub struct Shadow {
    live: Side,
    candidate: Side,
}

/// What became of one record in one version.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fate {
    pub outputs: Vec<Outgoing>,
    pub failed: Option<DeadLetter>,
}

/// A record that became something else in the candidate than in the live version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Of the record in its queue; what timers made counts to the record behind them.
    pub offset: u64,
    pub live: Fate,
    pub candidate: Fate,
}

/// How far a comparison came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Compared {
    /// All records, with those that became different things.
    Whole(Vec<Difference>),
    /// There was no room for an instance; call again with the same records after this time.
    Wait(Duration),
    /// A version that stops goes no further; with its own reason.
    Stopped(String),
}

impl Shadow {
    /// Starts both at this position. What processors keep must be apart in the two plans, and neither the live pipeline's own; each goes on from
    /// what is there already.
    ///
    /// A record that fails is not tried again: both versions see every record once.
    ///
    /// # Errors
    /// As [`Stage::open`].
    pub fn open(live: Plan, candidate: Plan, position: u64) -> Result<Self, Error> {
        Ok(Self { live: Side::open(live, position)?, candidate: Side::open(candidate, position)? })
    }

    /// Offset that both read next.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.live.stage.position().min(self.candidate.stage.position())
    }

    /// What the live version and the candidate did so far.
    #[must_use]
    pub fn counters(&self) -> (Counters, Counters) {
        (self.live.stage.counters(), self.candidate.stage.counters())
    }

    /// Processor time of calls that ended their instance, of both.
    #[must_use]
    pub fn wasted(&self) -> Duration {
        self.live.stage.wasted() + self.candidate.stage.wasted()
    }

    /// Runs both over the records before `next`, which lie at the position or behind it. `now` is the broker's time, milliseconds since 1970.
    pub fn run(&mut self, records: &[Record], next: u64, now: u64) -> Compared {
        for (name, side) in [("the live version", &mut self.live), ("the candidate", &mut self.candidate)] {
            match side.run(records, next, now) {
                Ok(None) => {}
                Ok(Some(wait)) => return Compared::Wait(wait),
                Err(reason) => return Compared::Stopped(format!("{name} stopped: {reason}")),
            }
        }
        Compared::Whole(differences(self.live.made.take(), self.candidate.made.take()))
    }
}

/// One of the versions.
struct Side {
    stage: Stage,
    made: Made,
}

impl Side {
    fn open(plan: Plan, position: u64) -> Result<Self, Error> {
        let policy = Policy { retries: 0, backoff: Duration::ZERO, then: Then::DeadLetter };
        let home = plan.state.as_ref().map(|state| state.partition.clone());
        let changes = home.and_then(|home| home.lock().as_ref().map(|partition| partition.applied())).unwrap_or(0);
        let stage = Stage::open(Plan { policy, ..plan }, &mut Begin(position))?;
        Ok(Self { stage, made: Made { changes, ..Made::default() } })
    }

    /// `Some`: there is more to do, after this time.
    fn run(&mut self, records: &[Record], next: u64, now: u64) -> Result<Option<Duration>, String> {
        let mut given = Given { records, next };
        while self.stage.position() < next {
            match self.stage.turn(&mut given, &mut self.made, now) {
                Turn::Progressed { .. } => {}
                Turn::Idle => return Err(format!("it does not go past offset {}", self.stage.position())),
                Turn::Wait(wait) => return Ok(Some(wait)),
                Turn::Stopped(reason) => return Err(reason),
            }
        }
        Ok(None)
    }
}

/// Keeps what was made until it is compared.
#[derive(Default)]
struct Made {
    by_offset: BTreeMap<u64, Fate>,
    /// Changes of the state so far, with those that it began with: there is no log that they would wait for.
    changes: u64,
}

impl Made {
    fn take(&mut self) -> BTreeMap<u64, Fate> {
        std::mem::take(&mut self.by_offset)
    }
}

impl Sink for Made {
    fn commit(&mut self, unit: Unit) -> Result<(), PortError> {
        for out in unit.outputs {
            self.by_offset.entry(out.record.offset).or_default().outputs.push(out);
        }
        for dead in unit.dead_letters {
            let fate = self.by_offset.entry(dead.record.offset).or_default();
            fate.failed = Some(dead);
        }
        self.changes += u64::from(unit.state.is_some());
        Ok(())
    }

    fn durable_changes(&self) -> u64 {
        self.changes
    }
}

impl Fate {
    /// Failures are alike when their codes are: texts and digests name the version.
    fn is_like(&self, other: &Self) -> bool {
        let code = |fate: &Self| fate.failed.as_ref().map(|dead| dead.code.clone());
        self.outputs == other.outputs && code(self) == code(other)
    }
}

fn differences(mut live: BTreeMap<u64, Fate>, candidate: BTreeMap<u64, Fate>) -> Vec<Difference> {
    let mut all: BTreeMap<u64, (Fate, Fate)> = BTreeMap::new();
    for (offset, candidate) in candidate {
        all.insert(offset, (live.remove(&offset).unwrap_or_default(), candidate));
    }
    all.extend(live.into_iter().map(|(offset, live)| (offset, (live, Fate::default()))));
    let differ = all.into_iter().filter(|(_, (live, candidate))| !live.is_like(candidate));
    differ.map(|(offset, (live, candidate))| Difference { offset, live, candidate }).collect()
}
