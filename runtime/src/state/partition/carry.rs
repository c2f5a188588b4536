//! Carrying the state forward: its entries are written to the log again, page by page, before the log lets go of the changes that they came
//! from. A state whose file is lost is made again from the log then, however old its entries are.
//!
//! A round goes over all entries that there were when it began. At its end the log makes the whole state from the change on with which the
//! round began: an entry has been carried since, or changed.

use std::time::{Duration, Instant};

use super::{
    super::{StateError, change, change::Became, places},
    OVERHEAD, Partition,
};
use crate::ports::Changelog;

/// The name of what says from which change on the log makes the whole state.
const CARRIED: &str = "\u{0}carried";
/// What is carried with one turn, and how much in a second; more where the state changes faster than that.
const PAGE_BYTES: usize = 512 * 1024;
const BYTES_PER_SECOND: usize = 1024 * 1024;
/// A page is not worth less.
const SMALLEST_PAGE: usize = 16 * 1024;
/// A turn that changes more carries nothing besides.
const BUSY_BYTES: usize = 4 * 1024 * 1024;
/// How often it is asked whether the log lets go of changes soon.
const LOOK_EVERY: Duration = Duration::from_secs(10);

#[derive(Default)]
pub(super) struct Carry {
    round: Option<Round>,
    page: Page,
    looked_at: Option<Instant>,
}

struct Round {
    /// Changes that were in the state and its file when it began.
    began: u64,
    /// The last key on disk that was carried.
    after: Option<Vec<u8>>,
    page_at: Instant,
}

/// What the running turn carries.
#[derive(Default)]
struct Page {
    entries: Vec<Carried>,
    /// The last key on disk that it is about.
    end: Option<Vec<u8>>,
    /// There is nothing behind it.
    last: bool,
}

struct Carried {
    /// As in memory.
    key: Vec<u8>,
    value: Vec<u8>,
    expires_at: u64,
}

impl Carry {
    /// Adds what the turn carries to what it changes.
    pub fn write(&self, places: &places::Places, writer: &mut change::Writer) {
        for Carried { key, value, expires_at } in &self.page.entries {
            let (store, key) = places::split(key);
            writer.push(&Became { name: places.name(store), key, value: Some(value), expires_at: *expires_at });
        }
    }

    /// The running turn stands.
    pub fn committed(&mut self) {
        let Page { end, last, .. } = std::mem::take(&mut self.page);
        if last {
            self.round = None;
        } else if let Some(round) = self.round.as_mut().filter(|_| end.is_some()) {
            (round.after, round.page_at) = (end, Instant::now());
        }
    }

    /// It is taken back.
    pub fn roll_back(&mut self) {
        self.page = Page::default();
    }
}

impl Partition {
    /// The number of the change from which on the log makes the whole state, as far as it is known; 0 at first.
    pub(in super::super) fn carried(&mut self) -> Result<u64, StateError> {
        let store = self.places.number(CARRIED);
        Ok(self.entry(store, &[])?.value.as_deref().map_or(0, number))
    }

    /// Whether a round is to begin. `fading` tells which changes the log lets go of before long: those before the one it gives.
    pub(crate) fn is_to_be_carried(&mut self, fading: impl FnOnce() -> u64) -> Result<bool, StateError> {
        let Carry { round, looked_at, .. } = &mut self.carry;
        let lately = looked_at.is_some_and(|at| at.elapsed() < LOOK_EVERY);
        if lately || round.is_some() || self.applied == 0 {
            return Ok(false);
        }
        *looked_at = Some(Instant::now());
        Ok(fading() > self.carried()?)
    }

    /// Begins a round, between two turns, if none is under way and the log has on its disk what the file is to have.
    pub(crate) fn begin_round(&mut self, durable: u64) -> Result<(), StateError> {
        if self.carry.round.is_some() || durable < self.applied || !self.journal.is_empty() {
            return Ok(());
        }
        // The file has all entries that there are: it is gone through.
        self.flush(false)?;
        self.carry.round = Some(Round { began: self.applied, after: None, page_at: Instant::now() });
        Ok(())
    }

    /// How many bytes the turn may carry.
    pub(in super::super) fn page_bytes(&self) -> usize {
        let Some(round) = self.carry.round.as_ref().filter(|_| self.written <= BUSY_BYTES) else { return 0 };
        let millis = usize::try_from(round.page_at.elapsed().as_millis()).unwrap_or(usize::MAX);
        let earned = millis.saturating_mul(BYTES_PER_SECOND / 1_000).saturating_add(self.written / 4);
        if earned < SMALLEST_PAGE { 0 } else { earned.min(PAGE_BYTES) }
    }

    /// Carries entries at the end of a turn, of about so many bytes, or one that has more.
    pub(in super::super) fn carry(&mut self, bytes: usize) -> Result<(), StateError> {
        let Some(round) = self.carry.round.as_ref().filter(|_| bytes > 0) else { return Ok(()) };
        let began = round.began;
        let (mut rows, mut read, mut last) = (Vec::new(), 0, true);
        self.engine.scan(&self.queue.to_be_bytes(), round.after.as_deref(), |row| {
            last = read < bytes;
            if last {
                read += row.0.len() + row.2.len() + OVERHEAD;
                rows.push(row);
            }
            last
        })?;
        let end = rows.last().map(|(key, ..)| key.clone());
        let mut entries = Vec::with_capacity(rows.len());
        for (on_disk, expires_at, value) in rows {
            let Some(key) = self.places.inner_of(&on_disk) else { continue };
            // It may have changed since it was written to the file.
            match self.young.get(&*key).or_else(|| self.old.get(&*key)) {
                None => entries.push(Carried { key, value, expires_at }),
                Some(entry) => {
                    let expires_at = entry.expires_at;
                    entries.extend(entry.value.as_deref().map(|value| Carried {
                        value: value.to_vec(),
                        expires_at,
                        key,
                    }));
                }
            }
        }
        if last {
            let store = self.places.number(CARRIED);
            self.set(store, &[], Some(Box::from(began.to_le_bytes().as_slice())), 0)?;
        }
        self.carry.page = Page { entries, end, last };
        Ok(())
    }
}

/// Whether the changes from `first` on make the whole state.
pub(super) fn is_whole(changes: &mut dyn Changelog, first: u64, end: u64) -> Result<bool, StateError> {
    let mut at = first;
    while at < end {
        let read = changes.read(at)?;
        if read.is_empty() {
            break;
        }
        at += read.len() as u64;
        for bytes in read {
            let mut whole = false;
            change::read(&bytes, |Became { name, value, .. }| {
                whole |= name == CARRIED && value.map_or(0, number) >= first;
            })?;
            if whole {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

fn number(value: &[u8]) -> u64 {
    value.try_into().map_or(0, u64::from_le_bytes)
}
