use std::{
    borrow::Cow,
    collections::BTreeSet,
    ops::Bound,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use hashbrown::hash_map::EntryRef;
use parking_lot::Mutex;

use super::{
    Domain, Engine, StateError, Timer,
    change::{self, Became},
    engine::{Write, wheel_prefix},
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
/// Entries given by one scan.
pub(crate) const SCAN_LIMIT: usize = 1_024;

/// A key and its value.
pub type KeyValue = (Vec<u8>, Vec<u8>);

/// Entries of a store, by key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    pub entries: Vec<KeyValue>,
    /// There are others behind the last one.
    pub more: bool,
}

/// A page that is being read.
struct Filling {
    page: Page,
    /// How many entries it has room for.
    limit: usize,
    /// For how many more bytes; the first entry is taken whatever it has.
    bytes: usize,
}

impl Filling {
    fn take(&mut self, key: &[u8], value: Cow<'_, [u8]>) {
        let Page { entries, more } = &mut self.page;
        let left = self.bytes.checked_sub(key.len() + value.len());
        *more |= entries.len() >= self.limit || (left.is_none() && !entries.is_empty());
        if !*more {
            self.bytes = left.unwrap_or(0);
            entries.push((key.to_vec(), value.into_owned()));
        }
    }
}

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
    /// [`StateError::Gap`] when the log does not hold the changes that are missing.
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
            return Err(StateError::Gap { stands, first, end });
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
        (!writer.is_empty()).then(|| writer.finish(self.newest).into())
    }

    /// The turn's changes stand in the log, if it made some.
    pub(crate) fn committed(&mut self, changed: bool) {
        self.journal.clear();
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

    /// Deletes what has expired; answers what the turn changed.
    pub(crate) fn end_turn(&mut self, now: u64) -> Result<Option<Bytes>, StateError> {
        self.expire(now)?;
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
        let row = |due: &Due| {
            let mut row = wheel_prefix(queue, owner(places, due.whose), due.domain);
            row.extend_from_slice(&due.at.to_be_bytes());
            if due.domain == Domain::Expiry {
                row.extend(on_disk(&due.what))
            } else {
                row.extend_from_slice(&due.what)
            }
            row
        };
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

    // Entries.

    /// The value of a key, looked at a time.
    pub(crate) fn get(&mut self, store: u16, key: &[u8], at: u64) -> Result<Option<&[u8]>, StateError> {
        self.check_time()?;
        // Room is made between turns only: until then what is only read must not fill the memory.
        if self.young_bytes > 2 * self.young_limit && !self.is_in_memory(store, key) {
            let found = self.engine.get(&places::outer(self.queue, self.places.name(store), key))?;
            let alive = found.filter(|(expires_at, _)| *expires_at == 0 || *expires_at > at);
            let Some((_, value)) = alive else { return Ok(None) };
            self.passing = value;
            return Ok(Some(&self.passing));
        }
        let entry = self.entry(store, key)?;
        Ok(entry.value.as_deref().filter(|_| entry.expires_at == 0 || entry.expires_at > at))
    }

    pub(crate) fn put(&mut self, store: u16, key: &[u8], value: &[u8], expires_at: u64) -> Result<(), StateError> {
        self.check_time()?;
        self.count_written(key.len() + value.len() + OVERHEAD);
        self.set(store, key, Some(value.into()), expires_at)
    }

    pub(crate) fn delete(&mut self, store: u16, key: &[u8]) -> Result<(), StateError> {
        self.check_time()?;
        self.count_written(key.len() + OVERHEAD);
        if self.entry(store, key)?.value.is_none() {
            return Ok(());
        }
        self.set(store, key, None, 0)
    }

    pub(crate) fn add(
        &mut self,
        store: u16,
        key: &[u8],
        delta: i64,
        at: u64,
        expires_at: u64,
    ) -> Result<i64, StateError> {
        self.check_time()?;
        self.count_written(key.len() + 8 + OVERHEAD);
        let call = self.call;
        let entry = self.entry(store, key)?;
        let alive = entry.expires_at == 0 || entry.expires_at > at;
        let number = entry.value.as_deref().filter(|_| alive).and_then(|value| <[u8; 8]>::try_from(value).ok());
        let sum = number.map_or(0, i64::from_le_bytes).wrapping_add(delta);
        // A number that stays one, in an entry that is to be written anyway: nothing but the journal hangs on it, and that only once a call.
        if entry.dirty
            && entry.expires_at == expires_at
            && let Some(value) = entry.value.as_deref_mut().filter(|value| value.len() == 8)
        {
            let touched = std::mem::replace(&mut entry.call, call);
            let mut before = sum.to_le_bytes();
            value.swap_with_slice(&mut before);
            if touched != call {
                self.journal.push(&self.scratch, Some(&before), expires_at, touched);
            }
            return Ok(sum);
        }
        self.set(store, key, Some(Box::from(sum.to_le_bytes().as_slice())), expires_at)?;
        Ok(sum)
    }

    /// The entries whose keys begin with `prefix`, behind `after`, by key, looked at a time: at most so many, and so many bytes unless the
    /// first has more.
    pub(crate) fn scan(
        &self,
        store: u16,
        prefix: &[u8],
        after: Option<&[u8]>,
        (limit, bytes): (usize, usize),
        at: u64,
    ) -> Result<Page, StateError> {
        let name = self.places.name(store);
        // What is before the prefix has nothing to do with it.
        let after = after.filter(|after| *after >= prefix);
        let (mut from, mut start) = (Vec::new(), Vec::new());
        places::inner(store, prefix, &mut start);
        places::inner(store, after.unwrap_or(prefix), &mut from);
        let from = if after.is_some() { Bound::Excluded(from.as_slice()) } else { Bound::Included(from.as_slice()) };
        // What changed stands in memory as it is now, whatever the file has of it.
        let changed = self.dirty.range::<[u8], _>((from, Bound::Unbounded));
        let mut changed = changed.take_while(|key| key.starts_with(&start)).peekable();
        let alive = |expires_at: u64| expires_at == 0 || expires_at > at;
        let mut filling = Filling { page: Page::default(), limit: limit.min(SCAN_LIMIT), bytes };
        let take_changed = |filling: &mut Filling, key: &[u8]| {
            let entry = self.young.get(key).or_else(|| self.old.get(key)).filter(|entry| alive(entry.expires_at));
            if let Some(value) = entry.and_then(|entry| entry.value.as_deref()) {
                filling.take(places::split(key).1, Cow::Borrowed(value));
            }
            !filling.page.more && !self.time_is_up()
        };
        let prefix = places::outer(self.queue, name, prefix);
        let after = after.map(|after| places::outer(self.queue, name, after));
        let mut inner = Vec::new();
        self.engine.scan(&prefix, after.as_deref(), |(key, expires_at, value)| {
            let own = places::own_key(&key, name);
            places::inner(store, own, &mut inner);
            let mut changed_since = false;
            while let Some(key) = changed.next_if(|key| ***key <= *inner) {
                changed_since = **key == *inner;
                if !take_changed(&mut filling, key) {
                    return false;
                }
            }
            if !changed_since && alive(expires_at) {
                filling.take(own, Cow::Owned(value));
            }
            !filling.page.more && !self.time_is_up()
        })?;
        if !filling.page.more {
            changed.all(|key| take_changed(&mut filling, key));
        }
        self.check_time()?;
        Ok(filling.page)
    }

    /// Looks into a store from outside: `store` is `step/store`, or the store's own name when only one step has such a store. What has expired
    /// by `at`, milliseconds since 1970, is not there.
    ///
    /// # Errors
    /// [`StateError::File`].
    pub fn look(&mut self, store: &str, key: &[u8], at: u64) -> Result<Option<Vec<u8>>, StateError> {
        let Some(number) = self.named(store) else { return Ok(None) };
        Ok(self.get(number, key, at)?.map(<[u8]>::to_vec))
    }

    /// [`Self::look`] for the entries whose keys begin with `prefix`, by key, behind `after`: at most `limit` and 1024, and at most so many
    /// bytes unless the first has more.
    ///
    /// # Errors
    /// [`StateError::File`].
    pub fn look_through(
        &mut self,
        store: &str,
        prefix: &[u8],
        after: Option<&[u8]>,
        (limit, bytes): (usize, usize),
        at: u64,
    ) -> Result<Page, StateError> {
        let Some(number) = self.named(store) else { return Ok(Page::default()) };
        self.scan(number, prefix, after, (limit, bytes), at)
    }

    /// Names of the stores, `step/store`.
    #[must_use]
    pub fn stores(&self) -> Vec<String> {
        self.places.names().map(str::to_owned).collect()
    }

    fn named(&self, store: &str) -> Option<u16> {
        let whole = self.places.find(store);
        whole.or_else(|| {
            let short = |name: &&str| name.rsplit_once('/').is_some_and(|(_, own)| own == store);
            let mut fitting = self.places.names().filter(short);
            let first = fitting.next()?;
            if fitting.next().is_some() { None } else { self.places.find(first) }
        })
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

    fn is_in_memory(&mut self, store: u16, key: &[u8]) -> bool {
        places::inner(store, key, &mut self.scratch);
        let key = self.scratch.as_slice();
        self.young.contains_key(key) || self.old.contains_key(key)
    }

    /// The entry as it stands, brought into memory.
    fn entry(&mut self, store: u16, key: &[u8]) -> Result<&mut Entry, StateError> {
        let mut inner = std::mem::take(&mut self.scratch);
        places::inner(store, key, &mut inner);
        let entry = match self.young.entry_ref(inner.as_slice()) {
            EntryRef::Occupied(entry) => entry.into_mut(),
            EntryRef::Vacant(place) => {
                let entry = match self.old.remove(inner.as_slice()) {
                    Some(entry) => entry,
                    None => match self.engine.get(&places::outer(self.queue, self.places.name(store), key))? {
                        Some((expires_at, value)) => {
                            Entry { value: Some(value.into()), expires_at, ..Entry::default() }
                        }
                        None => Entry::default(),
                    },
                };
                self.young_bytes += inner.len() + entry.size() + OVERHEAD;
                place.insert_with_key(inner.as_slice().into(), entry)
            }
        };
        self.scratch = inner;
        Ok(entry)
    }

    /// Writes an entry and, once a call, how it was to the journal.
    fn set(&mut self, store: u16, key: &[u8], value: Option<Box<[u8]>>, expires_at: u64) -> Result<(), StateError> {
        let call = self.call;
        let before = self.replace(store, key, value, expires_at, call)?;
        if before.call != call {
            self.journal.push(&self.scratch, before.value.as_deref(), before.expires_at, before.call);
        }
        Ok(())
    }

    /// Writes an entry and gives the one before, leaves its key in `scratch`, and keeps the wheel and the list of what is dirty in step.
    fn replace(
        &mut self,
        store: u16,
        key: &[u8],
        value: Option<Box<[u8]>>,
        expires_at: u64,
        call: u64,
    ) -> Result<Entry, StateError> {
        let holds_timers = self.places.holds_timers(store);
        let entry = self.entry(store, key)?;
        let before = std::mem::replace(entry, Entry { value, expires_at, call, dirty: true });
        let (size, was) = (entry.size(), before.size());
        let (due_before, due_after) = (before.expiry(), entry.expiry());
        let timers = holds_timers.then(|| (before.as_due(), entry.as_due()));
        self.young_bytes = (self.young_bytes + size).saturating_sub(was);
        self.dirty_bytes += size;
        if !before.dirty {
            self.dirty_bytes += key.len() + OVERHEAD;
            self.dirty.insert(self.scratch.as_slice().into());
        }
        if due_before != due_after {
            let due =
                |at: u64| Due { whose: ALL_STORES, domain: Domain::Expiry, at, what: self.scratch.as_slice().into() };
            let (gone, new) = (due_before.map(due), due_after.map(due));
            self.wheel.change(gone, new);
        }
        if let Some((gone, new)) = timers.filter(|(gone, new)| gone != new) {
            let domain = Domain::from_number(key.first().copied().unwrap_or_default());
            let due = |at: u64| Due { whose: store, domain, at, what: key.into() };
            self.wheel.change(gone.map(due), new.map(due));
        }
        Ok(before)
    }

    // Timers.

    /// Sets a timer, or moves it.
    pub(crate) fn set_timer(&mut self, timers: u16, timer: &Timer) -> Result<(), StateError> {
        self.put(timers, &timer.own_key(), &timer.due.to_le_bytes(), 0)
    }

    pub(crate) fn cancel_timer(
        &mut self,
        timers: u16,
        domain: Domain,
        key: &[u8],
        name: &str,
    ) -> Result<(), StateError> {
        let timer = Timer { domain, key: key.to_vec(), name: name.to_owned(), due: 0 };
        self.delete(timers, &timer.own_key())
    }

    /// When the first timer of a step is due.
    pub(crate) fn next_due(&mut self, timers: u16, domain: Domain) -> Result<Option<u64>, StateError> {
        if self.holds_timers && domain == Domain::EventTime {
            return Ok(None);
        }
        self.first_due(timers, domain)
    }

    /// When the first of what is due by a clock is due.
    fn first_due(&mut self, whose: u16, domain: Domain) -> Result<Option<u64>, StateError> {
        let Self { engine, places, wheel, watch, .. } = self;
        let prefix = wheel_prefix(self.queue, owner(places, whose), domain);
        let first = wheel.first(whose, domain, |gone| {
            let (mut first, mut late) = (None, false);
            engine.wheel(&prefix, |row| {
                let due = what(places, domain, row.what).map(|what| Due { whose, domain, at: row.at, what });
                first = due.filter(|due| !gone(due));
                late = watch.as_ref().is_some_and(Watch::is_over);
                first.is_none() && !late
            })?;
            if first.is_none() && late { Err(StateError::TimeIsUp) } else { Ok(first) }
        })?;
        Ok(first.map(|due| due.at))
    }

    /// Takes out the timers that are due at a time, the earliest first, `most` of them or [`TIMERS_AT_ONCE`].
    pub(crate) fn take_timers(
        &mut self,
        timers: u16,
        domain: Domain,
        now: u64,
        most: usize,
    ) -> Result<Vec<Timer>, StateError> {
        if self.next_due(timers, domain)?.is_none_or(|due| due > now) {
            return Ok(Vec::new());
        }
        let due = self.due(timers, domain, now, TIMERS_AT_ONCE)?;
        let mut taken = Vec::with_capacity(due.len());
        for Due { at, what, .. } in due.into_iter().take(most) {
            self.delete(timers, &what)?;
            taken.extend(Timer::from_own_key(&what, at));
        }
        self.took_timers |= domain == Domain::EventTime;
        Ok(taken)
    }

    /// What is due at a time, the earliest first, at most `most`.
    fn due(&mut self, whose: u16, domain: Domain, now: u64, most: usize) -> Result<Vec<Due>, StateError> {
        let Self { engine, places, wheel, watch, .. } = self;
        let (added, removed) = wheel.changes();
        let from = Due { whose, domain, at: 0, what: Box::default() };
        let added = added.range(from..).take_while(|due| due.whose == whose && due.domain == domain && due.at <= now);
        let mut found: BTreeSet<Due> = added.take(most).cloned().collect();
        let mut read = 0;
        engine.wheel(&wheel_prefix(self.queue, owner(places, whose), domain), |row| {
            if row.at > now || watch.as_ref().is_some_and(Watch::is_over) {
                return false;
            }
            let Some(what) = what(places, domain, row.what) else { return true };
            let due = Due { whose, domain, at: row.at, what };
            if !removed.contains(&due) {
                found.insert(due);
                read += 1;
            }
            read < most
        })?;
        self.check_time()?;
        Ok(found.into_iter().take(most).collect())
    }
}

/// The name under which what is due stands on disk.
fn owner(places: &Places, whose: u16) -> &str {
    if whose == ALL_STORES { "" } else { places.name(whose) }
}

/// [`Due::what`] of what stands on disk.
fn what(places: &mut Places, domain: Domain, row: Vec<u8>) -> Option<Box<[u8]>> {
    if domain == Domain::Expiry { places.inner_of(&row).map(Vec::into_boxed_slice) } else { Some(row.into()) }
}

impl Entry {
    fn size(&self) -> usize {
        self.value.as_ref().map_or(0, |value| value.len())
    }

    fn expiry(&self) -> Option<u64> {
        (self.value.is_some() && self.expires_at != 0).then_some(self.expires_at)
    }

    /// When it is due, if it is a timer.
    fn as_due(&self) -> Option<u64> {
        let value = self.value.as_deref()?;
        Some(u64::from_le_bytes(value.try_into().ok()?))
    }
}
