//! A processor's state and timers, as its plugin reaches them.

use wasmtime::{Result, bail};

use crate::bindings::sluice::plugin::state::{Found, Page};
use crate::bindings::sluice::plugin::types::ColumnResult as Column;
use crate::bindings::sluice::plugin::{state, timers};
use crate::host::{DeadlineReached, State};
use crate::output::short;
use crate::state::{Domain, Partition, StateError, Timer};

/// Largest key of an entry or a timer, bytes.
const MAX_KEY: usize = 4096;
/// Bytes of entries as they were that are kept while they are changed, as a multiple of what one answer may have.
const OVERWRITTEN: u64 = 4;
const MAX_TIMER_NAME: usize = 64;

/// What a processor's calls work on.
#[derive(Default)]
pub(crate) struct Keep {
    /// Names and numbers of the stores, in the manifest's order.
    pub(crate) stores: Vec<(String, u16)>,
    /// The number of what holds the step's timers.
    pub(crate) timers: u16,
    /// The number of what holds the step's event clock.
    pub(crate) clock: u16,
    /// How much older than the newest a record may be and still be on time, milliseconds.
    pub(crate) lateness: u64,
    /// There while a processor's function runs.
    pub(crate) partition: Option<Box<Partition>>,
    /// The broker's time at which the running call is told of timers, if it is one that is.
    pub(crate) fired_at: Option<u64>,
    /// Why the state could not be read or written: not the plugin's fault.
    pub(crate) broken: Option<String>,
    /// The plugin wrote more than it may.
    pub(crate) too_much: bool,
}

impl Keep {
    fn partition(&mut self) -> Result<&mut Partition> {
        match &mut self.partition {
            Some(partition) => Ok(partition),
            None => bail!("state and timers are there only in the functions of a processor"),
        }
    }

    fn store(&self, store: u32) -> Result<u16> {
        match self.stores.get(store as usize) {
            Some((_, number)) => Ok(*number),
            None => bail!("state: store {store} was not opened"),
        }
    }

    /// Runs what reads or writes the partition; a failure of the file ends the call.
    fn with<R>(&mut self, f: impl FnOnce(&mut Partition) -> std::result::Result<R, StateError>) -> Result<R> {
        let done = f(self.partition()?);
        done.or_else(|problem| {
            if matches!(problem, StateError::TimeIsUp) {
                return Err(DeadlineReached.into());
            }
            self.broken = Some(problem.to_string());
            bail!("state: {problem}")
        })
    }
}

impl State {
    /// Runs what writes. A call may write half as many bytes as one answer may have: two calls make one change in the log.
    fn write<R>(&mut self, f: impl FnOnce(&mut Partition) -> std::result::Result<R, StateError>) -> Result<R> {
        let (limit, most) = (self.limits.output / 2, self.limits.output * OVERWRITTEN);
        let done = self.keep.with(f)?;
        let partition = self.keep.partition()?;
        let (written, overwritten) = (partition.written_by_call() as u64, partition.overwritten() as u64);
        if written > limit || overwritten > most {
            self.keep.too_much = true;
            bail!("state: more than {limit} bytes were written in one call, or over more than {most}");
        }
        Ok(done)
    }
}

fn check_key(key: &[u8]) -> Result<()> {
    if key.len() > MAX_KEY {
        bail!("state: a key has at most {MAX_KEY} bytes, got {}", key.len());
    }
    Ok(())
}

/// The items of a column that a guest gave.
fn items(column: &Column) -> Result<impl Iterator<Item = &[u8]>> {
    let mut start = 0;
    for end in &column.ends {
        if (*end as usize) < start || *end as usize > column.data.len() {
            bail!("state: a column's ends do not fit its data");
        }
        start = *end as usize;
    }
    let mut start = 0;
    Ok(column.ends.iter().map(move |end| {
        let item = &column.data[start..*end as usize];
        start = *end as usize;
        item
    }))
}

fn push(column: &mut Column, item: &[u8]) -> Result<()> {
    column.data.extend_from_slice(item);
    column.ends.push(u32::try_from(column.data.len())?);
    Ok(())
}

fn empty() -> Column {
    Column { data: Vec::new(), ends: Vec::new() }
}

impl state::Host for State {
    fn open(&mut self, name: String) -> Result<std::result::Result<u32, String>> {
        let known = self.keep.stores.iter().position(|(known, _)| *known == name);
        Ok(match known {
            Some(at) => Ok(u32::try_from(at)?),
            None => Err(format!("store {} is not in the plugin's manifest", short(name, 64))),
        })
    }

    fn get(&mut self, store: u32, key: Vec<u8>, at: u64) -> Result<Option<Vec<u8>>> {
        check_key(&key)?;
        let store = self.keep.store(store)?;
        self.keep.with(|partition| Ok(partition.get(store, &key, at)?.map(<[u8]>::to_vec)))
    }

    fn put(&mut self, store: u32, key: Vec<u8>, value: Vec<u8>, expires_at: u64) -> Result<()> {
        check_key(&key)?;
        let store = self.keep.store(store)?;
        self.write(|partition| partition.put(store, &key, &value, expires_at))
    }

    fn delete(&mut self, store: u32, key: Vec<u8>) -> Result<()> {
        check_key(&key)?;
        let store = self.keep.store(store)?;
        self.write(|partition| partition.delete(store, &key))
    }

    fn add(&mut self, store: u32, key: Vec<u8>, delta: i64, at: u64, expires_at: u64) -> Result<i64> {
        check_key(&key)?;
        let store = self.keep.store(store)?;
        self.write(|partition| partition.add(store, &key, delta, at, expires_at))
    }

    fn get_many(&mut self, store: u32, keys: Column, at: u64) -> Result<Found> {
        let store = self.keep.store(store)?;
        let limit = self.limits.output;
        let mut found = Found { present: vec![0; keys.ends.len().div_ceil(8)], values: empty() };
        for (index, key) in items(&keys)?.enumerate() {
            check_key(key)?;
            let Found { present, values } = &mut found;
            self.keep.with(|partition| {
                if let Some(value) = partition.get(store, key, at)? {
                    present[index / 8] |= 1 << (index % 8);
                    values.data.extend_from_slice(value);
                }
                Ok(())
            })?;
            values.ends.push(u32::try_from(values.data.len())?);
            if values.data.len() as u64 > limit {
                self.keep.too_much = true;
                bail!("state: more than {limit} bytes were asked for at once");
            }
        }
        Ok(found)
    }

    fn put_many(&mut self, store: u32, keys: Column, values: Column, expires_at: u64) -> Result<()> {
        let store = self.keep.store(store)?;
        if keys.ends.len() != values.ends.len() {
            bail!("state: {} keys and {} values", keys.ends.len(), values.ends.len());
        }
        for (key, value) in items(&keys)?.zip(items(&values)?) {
            check_key(key)?;
            self.write(|partition| partition.put(store, key, value, expires_at))?;
        }
        Ok(())
    }

    fn delete_many(&mut self, store: u32, keys: Column) -> Result<()> {
        let store = self.keep.store(store)?;
        for key in items(&keys)? {
            check_key(key)?;
            self.write(|partition| partition.delete(store, key))?;
        }
        Ok(())
    }

    fn add_many(&mut self, store: u32, keys: Column, deltas: Vec<i64>, at: u64, expires_at: u64) -> Result<Vec<i64>> {
        let store = self.keep.store(store)?;
        if keys.ends.len() != deltas.len() {
            bail!("state: {} keys and {} deltas", keys.ends.len(), deltas.len());
        }
        let mut sums = Vec::with_capacity(deltas.len());
        for (key, delta) in items(&keys)?.zip(deltas) {
            check_key(key)?;
            sums.push(self.write(|partition| partition.add(store, key, delta, at, expires_at))?);
        }
        Ok(sums)
    }

    fn scan(&mut self, store: u32, prefix: Vec<u8>, after: Option<Vec<u8>>, limit: u32, at: u64) -> Result<Page> {
        let store = self.keep.store(store)?;
        let most = (limit as usize, usize::try_from(self.limits.output)?);
        let found = self.keep.with(|partition| partition.scan(store, &prefix, after.as_deref(), most, at))?;
        let mut page = Page { keys: empty(), values: empty() };
        for (key, value) in found.entries {
            push(&mut page.keys, &key)?;
            push(&mut page.values, &value)?;
        }
        Ok(page)
    }
}

impl timers::Host for State {
    fn set(&mut self, timer: timers::TimerResult) -> Result<()> {
        check_key(&timer.key)?;
        if timer.name.len() > MAX_TIMER_NAME {
            bail!("timers: a name has at most {MAX_TIMER_NAME} bytes, got {}", timer.name.len());
        }
        let (timers, domain) = (self.keep.timers, domain(timer.domain));
        // Or one that sets itself would be due for ever within one tick of the clock.
        let earliest = self.keep.fired_at.filter(|_| domain == Domain::ProcessingTime).map_or(0, |at| at + 1);
        let timer = Timer { domain, key: timer.key, name: timer.name, due: timer.due.max(earliest) };
        self.write(|partition| partition.set_timer(timers, &timer))
    }

    fn cancel(&mut self, of: timers::Domain, key: Vec<u8>, name: String) -> Result<()> {
        check_key(&key)?;
        let timers = self.keep.timers;
        self.write(|partition| partition.cancel_timer(timers, domain(of), &key, &name))
    }

    fn clock(&mut self) -> Result<timers::EventClock> {
        let Keep { timers, clock, lateness, .. } = self.keep;
        self.keep.with(|partition| {
            let next_due = partition.next_due(timers, Domain::EventTime)?.unwrap_or(u64::MAX);
            Ok(timers::EventClock { newest: partition.clock(clock)?, lateness, next_due })
        })
    }

    fn take_due(&mut self, time: u64) -> Result<timers::DueTimers> {
        let timers = self.keep.timers;
        let (taken, next_due) = self.write(|partition| {
            let taken = partition.take_timers(timers, Domain::EventTime, time, usize::MAX)?;
            Ok((taken, partition.next_due(timers, Domain::EventTime)?.unwrap_or(u64::MAX)))
        })?;
        Ok(timers::DueTimers { timers: taken.into_iter().map(to_wit).collect(), next_due })
    }
}

fn domain(domain: timers::Domain) -> Domain {
    match domain {
        timers::Domain::EventTime => Domain::EventTime,
        timers::Domain::ProcessingTime => Domain::ProcessingTime,
    }
}

/// A timer as it is given to the plugin.
pub(crate) fn to_param(timer: &Timer) -> timers::TimerParam<'_> {
    let Timer { domain, key, name, due } = timer;
    let domain = if *domain == Domain::EventTime { timers::Domain::EventTime } else { timers::Domain::ProcessingTime };
    timers::TimerParam { domain, key, name, due: *due }
}

fn to_wit(timer: Timer) -> timers::TimerResult {
    let Timer { domain, key, name, due } = timer;
    let domain = if domain == Domain::EventTime { timers::Domain::EventTime } else { timers::Domain::ProcessingTime };
    timers::TimerResult { domain, key, name, due }
}
