//! Two versions of a chain over the same records. What they make goes nowhere; where they differ is told.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::batch::Record;
use crate::counters::Counters;
use crate::error::Error;
use crate::given::{Begin, Given};
use crate::plan::{Plan, Policy, Then};
use crate::ports::{DeadLetter, Outgoing, PortError, Room, Sink, Unfit, Unit};
use crate::stage::{Stage, Turn};

/// The live version of a chain and the one that may follow it, on one queue.
pub struct Shadow {
    live: Side,
    candidate: Side,
}

/// What the sinks would take that nothing goes to.
#[derive(Clone, Copy, Debug)]
pub struct Sinks {
    /// Of one turn of one version: so much is kept until it is compared.
    pub room: Room,
    /// As [`Sink::check`].
    pub check: fn(&Record) -> Result<(), Unfit>,
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
    /// So many more records were compared, with those of them that became different things.
    On { records: u64, differences: Vec<Difference> },
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
    pub fn open(live: Plan, candidate: Plan, position: u64, sinks: Sinks) -> Result<Self, Error> {
        Ok(Self { live: Side::open(live, position, sinks)?, candidate: Side::open(candidate, position, sinks)? })
    }

    /// Offset that the one reads next that is behind the other: all records before it are compared.
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

    /// Runs the one that is behind for a turn over the records before `next`, which lie at the position or behind it. Both have read them once the
    /// position is `next`; until then they are to be given again. `now` is the broker's time, milliseconds since 1970.
    pub fn turn(&mut self, records: &[Record], next: u64, now: u64) -> Compared {
        let before = self.position();
        let (name, side) = if self.live.stage.position() == before {
            ("the live version", &mut self.live)
        } else {
            ("the candidate", &mut self.candidate)
        };
        let reason = match side.stage.turn(&mut Given { records, next }, &mut side.made, now) {
            Turn::Progressed { .. } => {
                let after = self.position();
                let records = records.iter().filter(|record| (before..after).contains(&record.offset)).count() as u64;
                let (live, candidate) = (self.live.made.take_before(after), self.candidate.made.take_before(after));
                return Compared::On { records, differences: differences(live, candidate) };
            }
            Turn::Wait(wait) => return Compared::Wait(wait),
            Turn::Idle => format!("it does not go past offset {before}"),
            Turn::Stopped(reason) => reason,
        };
        Compared::Stopped(format!("{name} stopped: {reason}"))
    }
}

/// One of the versions.
struct Side {
    stage: Stage,
    made: Made,
}

impl Side {
    fn open(plan: Plan, position: u64, sinks: Sinks) -> Result<Self, Error> {
        let policy = Policy { retries: 0, backoff: Duration::ZERO, then: Then::DeadLetter };
        let home = plan.state.as_ref().map(|state| state.partition.clone());
        let changes = home.and_then(|home| home.lock().as_ref().map(|partition| partition.applied())).unwrap_or(0);
        let stage = Stage::open(Plan { policy, ..plan }, &mut Begin(position))?;
        Ok(Self { stage, made: Made { by_offset: BTreeMap::new(), changes, sinks } })
    }
}

/// Keeps what was made until it is compared.
struct Made {
    by_offset: BTreeMap<u64, Fate>,
    /// Changes of the state so far, with those that it began with: there is no log that they would wait for.
    changes: u64,
    sinks: Sinks,
}

impl Made {
    /// What became of the records before this one.
    fn take_before(&mut self, position: u64) -> BTreeMap<u64, Fate> {
        let behind = self.by_offset.split_off(&position);
        std::mem::replace(&mut self.by_offset, behind)
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

    fn room(&self) -> Room {
        self.sinks.room
    }

    fn check(&self, record: &Record) -> Result<(), Unfit> {
        (self.sinks.check)(record)
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
