//! The state of one queue of a pipeline, in turns that stand or are taken back.

mod carry;
mod entries;
mod look;
mod timers;

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use parking_lot::Mutex;

use carry::Carry;
pub use look::{KeyValue, Page};

use super::{
    Domain, Engine, StateError,
    change::{self, Became},
    engine::Write,
    journal::{Before, Journal},
    places::{self, Places},
    wheel::{ALL_STORES, Due, Wheel},
};
use crate::ports::{Changelog, PortError};
use crate::watch::Watch;

/// A partition that its stage and whoever looks into it share. It is away while a plugin is called.
pub type Shared = Arc<Mutex<Option<Box<Partition>>>>;

/// How much changes before it is written to the file.
const DIRTY_BYTES: usize = 8 * 1024 * 1024;
const DIRTY_FOR: Duration = Duration::from_secs(2);
/// How often what was written is brought to the disk as well.
const DURABLE_EVERY: Duration = Duration::from_secs(20);
/// What an entry takes beside its bytes, roughly.
const OVERHEAD: usize = 96;
/// Timers taken at once.
pub(crate) const TIMERS_AT_ONCE: usize = 256;
/// For how long a turn deletes what has expired, and how many bytes of keys: they stand in its change.
const EXPIRE_FOR: Duration = Duration::from_millis(20);
const EXPIRE_BYTES: usize = 1024 * 1024;

type Map = hashbrown::HashMap<Box<[u8]>, Entry, foldhash::fast::RandomState>;

#[derive(Clone, Debug, Default)]
struct Entry {
    /// `None`: known to be absent.
    value: Option<Box<[u8]>>,
    /// Milliseconds since 1970; 0: never.
    expires_at: u64,
    /// The number of the call that last touched it.
    call: u64,
    /// It differs from what is on disk.
    dirty: bool,
}

/// A point in the journal to which a failed call is taken back.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mark {
    journal: usize,
}

/// The state of one queue of a pipeline.
pub struct Partition {
    engine: Arc<Engine>,
    queue: u32,
    places: Places,
    /// Entries that were used lately, and those that were before them. What is in neither is on disk as it is.
    young: Map,
    old: Map,
    /// Most bytes of the young ones.
    young_limit: usize,
    young_bytes: usize,
    /// Keys whose entries differ from those on disk.
    dirty: BTreeSet<Box<[u8]>>,
    dirty_bytes: usize,
    wheel: Wheel,
    carry: Carry,
    journal: Journal,
    call: u64,
    /// The number that calls of the running turn have at least.
    turn: u64,
    /// Bytes that this turn wrote, and of them the running call.
    written: usize,
    written_by_call: usize,
    /// The running call took event-time timers out.
    took_timers: bool,
    /// No event-time timer is due, whatever the time.
    holds_timers: bool,
    /// The newest producer's time of the queue, as it stood when steps had no clocks of their own; they begin there.
    newest: u64,
    /// Changes of the log that are in it.
    applied: u64,
    scratch: Vec<u8>,
    /// A value that passes through without being kept in memory.
    passing: Vec<u8>,
    /// The time of the call that runs.
    watch: Option<Watch>,
    flushed_at: Instant,
    durable_at: Instant,
    /// Something was written to the file that a crash may take back.
    unsynced: bool,
}

impl Partition {
    /// Brings a queue's state up to the log's. `memory` bounds what is kept in memory, roughly, in bytes.
    ///
    /// # Errors
    /// [`StateError::Gap`] when the log does not hold the changes that are missing, and nothing that was carried forward instead.
    pub fn open(
        engine: Arc<Engine>,
        queue: u32,
        memory: usize,
        changes: &mut dyn Changelog,
    ) -> Result<Self, StateError> {
        let (mut stands, mut newest) = engine.stands(queue)?;
        let (first, end) = changes.bounds()?;
        if stands > end {
            // The log lost its unsynced end in a crash, and the file did not.
            tracing::warn!(queue, stands, end, "the state's file is ahead of the log: it is made anew");
            engine.clear(queue)?;
            (stands, newest) = (0, 0);
        }
        if stands < first {
            if !carry::is_whole(changes, first, end)? {
                return Err(StateError::Gap { stands, first, end });
            }
            tracing::warn!(
                queue,
                stands,
                first,
                "the state's file is lost or old: it is made anew from what was carried forward"
            );
            engine.clear(queue)?;
            (stands, newest) = (first, 0);
        }
        let now = Instant::now();
        let mut partition = Self {
            engine,
            queue,
            places: Places::default(),
            young: Map::default(),
            old: Map::default(),
            young_limit: (memory / 2).max(64 * 1024),
            young_bytes: 0,
            dirty: BTreeSet::new(),
            dirty_bytes: 0,
            wheel: Wheel::default(),
            carry: Carry::default(),
            journal: Journal::default(),
            call: 1,
            turn: 1,
            written: 0,
            written_by_call: 0,
            took_timers: false,
            holds_timers: false,
            newest,
            applied: stands,
            scratch: Vec::new(),
            passing: Vec::new(),
            watch: None,
            flushed_at: now,
            durable_at: now,
            unsynced: false,
        };
        while partition.applied < end {
            let read = changes.read(partition.applied)?;
            if read.is_empty() {
                return Err(StateError::Gap { stands: partition.applied, first, end });
            }
            for bytes in read {
                partition.apply(&bytes)?;
            }
            partition.tidy(end)?;
        }
        Ok(partition)
    }

    /// An empty one that keeps everything in memory, for trying a processor out.
    ///
    /// # Errors
    /// [`StateError::File`].
    pub fn fresh() -> Result<Self, StateError> {
        Self::without_log(Arc::new(Engine::in_memory()?), 0, DIRTY_BYTES)
    }

    /// One whose changes no log holds: it begins with what the engine has of the queue.
    ///
    /// # Errors
    /// [`StateError::File`].
    pub fn without_log(engine: Arc<Engine>, queue: u32, memory: usize) -> Result<Self, StateError> {
        struct Nothing;
        impl Changelog for Nothing {
            fn bounds(&self) -> Result<(u64, u64), PortError> {
                Ok((0, 0))
            }
            fn read(&mut self, _: u64) -> Result<Vec<Bytes>, PortError> {
                Ok(Vec::new())
            }
        }
        Self::open(engine, queue, memory, &mut Nothing)
    }

    /// Takes over a change that stands in the log.
    fn apply(&mut self, bytes: &[u8]) -> Result<(), StateError> {
        let mut entries = Vec::new();
        let newest = change::read(bytes, |Became { name, key, value, expires_at }| {
            entries.push((name.to_owned(), key.to_vec(), value.map(Box::from), expires_at));
        })?;
        for (name, key, value, expires_at) in entries {
            let store = self.places.number(&name);
            self.set(store, &key, value, expires_at)?;
        }
        self.newest = self.newest.max(newest);
        self.journal.clear();
        self.applied += 1;
        self.begin_turn();
        Ok(())
    }

    /// How many changes are in it.
    pub(crate) fn applied(&self) -> u64 {
        self.applied
    }

    /// The number of a store, by its whole name.
    pub(crate) fn store(&mut self, name: &str) -> u16 {
        self.places.number(name)
    }

    /// The newest producer's time that a step has seen.
    pub(crate) fn clock(&mut self, clock: u16) -> Result<u64, StateError> {
        let kept = self.entry(clock, &[])?.value.as_deref().and_then(|value| value.try_into().ok());
        Ok(kept.map_or(0, u64::from_le_bytes).max(self.newest))
    }

    /// A call that stands has seen records up to this producer's time. It is a change like others: taken back with its turn, and there again
    /// after a crash.
    pub(crate) fn advance(&mut self, clock: u16, newest: u64) -> Result<(), StateError> {
        if newest > self.clock(clock)? {
            self.set(clock, &[], Some(Box::from(newest.to_le_bytes().as_slice())), 0)?;
        }
        Ok(())
    }

    /// Bytes that the running turn wrote so far.
    pub(crate) fn written(&self) -> usize {
        self.written
    }

    /// Bytes of entries as they were before the running turn changed them.
    pub(crate) fn overwritten(&self) -> usize {
        self.journal.bytes()
    }

    /// Bytes that the running call wrote so far.
    pub(crate) fn written_by_call(&self) -> usize {
        self.written_by_call
    }

    /// Whether the last call took event-time timers out.
    pub(crate) fn took_timers(&self) -> bool {
        self.took_timers
    }

    /// Does what a call does as if no event-time timer were due, and takes it back.
    pub(crate) fn try_without_timers<R>(
        home: &mut Option<Box<Self>>,
        call: impl FnOnce(&mut Option<Box<Self>>) -> R,
    ) -> Result<R, StateError> {
        let mark = home.as_mut().map(|partition| {
            partition.holds_timers = true;
            partition.begin_call()
        });
        let done = call(home);
        if let Some((partition, mark)) = home.as_mut().zip(mark) {
            partition.holds_timers = false;
            partition.take_back(mark)?;
        }
        Ok(done)
    }

    fn count_written(&mut self, bytes: usize) {
        self.written += bytes;
        self.written_by_call += bytes;
    }

    // A turn.

    /// Begins a call; what it does can be taken back.
    pub(crate) fn begin_call(&mut self) -> Mark {
        self.call += 1;
        self.written_by_call = 0;
        self.took_timers = false;
        Mark { journal: self.journal.len() }
    }

    /// Takes the last call back.
    pub(crate) fn take_back(&mut self, mark: Mark) -> Result<(), StateError> {
        self.written = self.written.saturating_sub(self.written_by_call);
        while self.journal.len() > mark.journal {
            let Some(Before { key, value, expires_at, call }) = self.journal.pop() else { break };
            let (store, own) = places::split(&key);
            let own = own.to_vec();
            self.replace(store, &own, value, expires_at, call)?;
        }
        Ok(())
    }

    /// Takes the whole turn back.
    pub(crate) fn roll_back(&mut self) -> Result<(), StateError> {
        self.carry.roll_back();
        self.take_back(Mark { journal: 0 })?;
        self.written = 0;
        Ok(())
    }

    /// What the turn changed, as it is to stand in the log; `None` when it changed nothing.
    pub(super) fn changes(&self) -> Option<Bytes> {
        let mut writer = change::Writer::default();
        for (key, touched) in self.journal.keys() {
            // A call of this turn touched it before: it was here already.
            if touched >= self.turn {
                continue;
            }
            let Some(entry) = self.young.get(key).or_else(|| self.old.get(key)) else { continue };
            let (store, own) = places::split(key);
            let (value, expires_at) = (entry.value.as_deref(), entry.expires_at);
            writer.push(&Became { name: self.places.name(store), key: own, value, expires_at });
        }
        self.carry.write(&self.places, &mut writer);
        (!writer.is_empty()).then(|| writer.finish(self.newest).into())
    }

    /// The turn's changes stand in the log, if it made some.
    pub(crate) fn committed(&mut self, changed: bool) {
        self.journal.clear();
        self.carry.committed();
        self.written = 0;
        self.applied += u64::from(changed);
        self.begin_turn();
    }

    /// Ends a turn whose changes no log holds.
    pub(crate) fn keep(&mut self, now: u64) -> Result<(), StateError> {
        let changed = self.end_turn(now)?.is_some();
        self.committed(changed);
        self.tidy(self.applied)
    }

    fn begin_turn(&mut self) {
        self.call += 1;
        self.turn = self.call;
    }

    /// Deletes what has expired; answers what the turn changed, and what it carries forward.
    pub(crate) fn end_turn(&mut self, now: u64) -> Result<Option<Bytes>, StateError> {
        self.expire(now)?;
        self.carry(self.page_bytes())?;
        Ok(self.changes())
    }

    /// Deletes entries whose time is over: twice as many as the turn touched, so that they do not become more and more. To be called at the
    /// end of a turn.
    pub(super) fn expire(&mut self, now: u64) -> Result<(), StateError> {
        if self.first_due(ALL_STORES, Domain::Expiry)?.is_none_or(|due| due > now) {
            return Ok(());
        }
        let (began, mut bytes) = (Instant::now(), 0);
        let most = TIMERS_AT_ONCE.max(2 * self.journal.len()).min(EXPIRE_BYTES / OVERHEAD);
        for due in self.due(ALL_STORES, Domain::Expiry, now, most)? {
            bytes += due.what.len() + OVERHEAD;
            if bytes > EXPIRE_BYTES || began.elapsed() > EXPIRE_FOR {
                break;
            }
            let (store, own) = places::split(&due.what);
            self.set(store, own, None, 0)?;
        }
        Ok(())
    }

    /// Whether it is time for [`Self::tidy`].
    pub(crate) fn is_untidy(&self) -> bool {
        let many = self.dirty_bytes + self.wheel.len() * OVERHEAD > DIRTY_BYTES;
        let long = self.flushed_at.elapsed() >= DIRTY_FOR && !self.dirty.is_empty();
        self.is_full() || many || long || (self.unsynced && self.is_stale())
    }

    fn is_full(&self) -> bool {
        self.young_bytes > self.young_limit
    }

    /// It is long ago that what was written was brought to the disk.
    fn is_stale(&self) -> bool {
        self.durable_at.elapsed() >= DURABLE_EVERY
    }

    /// Writes to the file what there is to write, and forgets what was not used lately. `durable` is how many changes are on the log's
    /// disk: the file must never be ahead of it.
    pub(crate) fn tidy(&mut self, durable: u64) -> Result<(), StateError> {
        if self.is_untidy() && durable >= self.applied {
            let full = self.is_full();
            self.flush(self.is_stale())?;
            if full {
                self.old = std::mem::take(&mut self.young);
                self.young_bytes = 0;
            }
        }
        Ok(())
    }

    /// Writes all of it to the file and the disk, if the log has it on disk as well and no turn is under way.
    pub(crate) fn save(&mut self, durable: u64) -> Result<(), StateError> {
        if durable >= self.applied && self.journal.is_empty() { self.flush(true) } else { Ok(()) }
    }

    fn flush(&mut self, durable: bool) -> Result<(), StateError> {
        let (places, queue) = (&self.places, self.queue);
        let on_disk = |key: &[u8]| {
            let (store, own) = places::split(key);
            places::outer(queue, places.name(store), own)
        };
        let row = |due: &Due| timers::row(queue, places, due);
        let entry = |key: &[u8]| self.young.get(key).or_else(|| self.old.get(key));
        let (added, removed) = self.wheel.changes();
        let write = Write {
            queue,
            applied: self.applied,
            newest: self.newest,
            entries: self
                .dirty
                .iter()
                .map(|key| {
                    let stands = entry(key).and_then(|entry| Some((entry.expires_at, entry.value.as_deref()?)));
                    (on_disk(key), stands)
                })
                .collect(),
            added: added.iter().map(row).collect(),
            removed: removed.iter().map(row).collect(),
            durable,
        };
        self.engine.write(write)?;
        for key in std::mem::take(&mut self.dirty) {
            if let Some(entry) = self.young.get_mut(&key).or_else(|| self.old.get_mut(&key)) {
                entry.dirty = false;
            }
        }
        self.dirty_bytes = 0;
        self.wheel.written();
        self.flushed_at = Instant::now();
        self.unsynced = !durable;
        if durable {
            self.durable_at = self.flushed_at;
        }
        Ok(())
    }

    /// Whose call it works for, or nobody's: then it takes as long as it takes.
    pub(crate) fn watched_by(&mut self, watch: Option<Watch>) {
        self.watch = watch;
    }

    fn time_is_up(&self) -> bool {
        self.watch.as_ref().is_some_and(Watch::is_over)
    }

    fn check_time(&self) -> Result<(), StateError> {
        if self.time_is_up() { Err(StateError::TimeIsUp) } else { Ok(()) }
    }
}
