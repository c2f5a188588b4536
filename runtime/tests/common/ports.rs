//! Fake ports of a stage.

use sluice_runtime::Record;
use sluice_runtime::ports::{PortError, Portion, Progress, Room, Sink, Source, Unfit, Unit};

/// A queue, and everything that was committed.
#[derive(Default)]
pub struct Queue(pub Vec<Record>);

impl Source for Queue {
    fn read(&mut self, at: u64, most: usize, _: usize, into: &mut Vec<Record>) -> Result<u64, PortError> {
        into.extend(self.0.iter().filter(|r| r.offset >= at).take(most).cloned());
        Ok(into.last().map_or(at, |r| r.offset + 1))
    }
}

#[derive(Default)]
pub struct Store {
    pub units: Vec<Unit>,
    /// The next commit is refused.
    pub busy: bool,
    /// Most outputs of a unit, and longest value, where it matters.
    pub most: Option<usize>,
    pub longest: Option<usize>,
    /// How much a turn is to make, where it matters.
    pub portion: Option<Portion>,
}

impl Sink for Store {
    fn commit(&mut self, unit: Unit) -> Result<(), PortError> {
        if std::mem::take(&mut self.busy) {
            return Err(PortError::Busy("full".into()));
        }
        self.units.push(unit);
        Ok(())
    }

    fn room(&self) -> Room {
        Room { outputs: self.most.unwrap_or(usize::MAX), ..Room::default() }
    }

    fn portion(&mut self) -> Portion {
        self.portion.unwrap_or_default()
    }

    fn check(&self, record: &Record) -> Result<(), Unfit> {
        let fits = self.longest.is_none_or(|longest| record.value.len() <= longest);
        if fits { Ok(()) } else { Err(Unfit::TooLarge("the value is too long".into())) }
    }

    fn durable_changes(&self) -> u64 {
        0
    }
}

impl Progress for Store {
    fn load(&mut self) -> Result<u64, PortError> {
        Ok(self.units.last().map_or(0, |unit| unit.position))
    }
}

impl Store {
    pub fn sent(&self) -> Vec<String> {
        let all = self.units.iter().flat_map(|unit| &unit.outputs);
        all.map(|out| String::from_utf8(out.record.value.to_vec()).unwrap()).collect()
    }

    pub fn dead(&self) -> Vec<(u64, String, u32)> {
        let all = self.units.iter().flat_map(|unit| &unit.dead_letters);
        all.map(|dead| (dead.record.offset, dead.code.clone(), dead.tries)).collect()
    }
}
