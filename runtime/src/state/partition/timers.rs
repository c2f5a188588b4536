//! Timers, and what else is due at a time.

use std::collections::BTreeSet;

use super::{
    super::{
        Domain, StateError, Timer,
        engine::wheel_prefix,
        places::{self, Places},
        wheel::{ALL_STORES, Due},
    },
    Partition, TIMERS_AT_ONCE,
};
use crate::watch::Watch;

impl Partition {
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
    pub(super) fn first_due(&mut self, whose: u16, domain: Domain) -> Result<Option<u64>, StateError> {
        let Self { engine, places, wheel, watch, .. } = self;
        let prefix = wheel_prefix(self.queue, owner(places, whose), domain);
        let first = wheel.first(whose, domain, |from, gone| {
            let (mut first, mut late) = (None, false);
            let from = from.map(|from| row(self.queue, places, from));
            engine.wheel(&prefix, from.as_deref(), |row| {
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

    /// When the first timer is due behind so many others, if that is before a time or at it.
    pub(crate) fn due_after(
        &mut self,
        timers: u16,
        domain: Domain,
        others: usize,
        until: u64,
    ) -> Result<Option<u64>, StateError> {
        Ok(self.due(timers, domain, until, others + 1)?.get(others).map(|due| due.at))
    }

    /// What is due at a time, the earliest first, at most `most`.
    pub(super) fn due(&mut self, whose: u16, domain: Domain, now: u64, most: usize) -> Result<Vec<Due>, StateError> {
        let Self { engine, places, wheel, watch, .. } = self;
        let (added, removed) = wheel.changes();
        let from = Due { whose, domain, at: 0, what: Box::default() };
        let added = added.range(from..).take_while(|due| due.whose == whose && due.domain == domain && due.at <= now);
        let mut found: BTreeSet<Due> = added.take(most).cloned().collect();
        let mut read = 0;
        let prefix = wheel_prefix(self.queue, owner(places, whose), domain);
        let from = wheel.from(whose, domain).map(|from| row(self.queue, places, from));
        engine.wheel(&prefix, from.as_deref(), |row| {
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

/// What is due, as it stands on disk.
pub(super) fn row(queue: u32, places: &Places, due: &Due) -> Vec<u8> {
    let mut row = wheel_prefix(queue, owner(places, due.whose), due.domain);
    row.extend_from_slice(&due.at.to_be_bytes());
    if due.domain == Domain::Expiry {
        let (store, own) = places::split(&due.what);
        row.extend(places::outer(queue, places.name(store), own));
    } else {
        row.extend_from_slice(&due.what);
    }
    row
}

/// The name under which what is due stands on disk.
fn owner(places: &Places, whose: u16) -> &str {
    if whose == ALL_STORES { "" } else { places.name(whose) }
}

/// [`Due::what`] of what stands on disk.
fn what(places: &mut Places, domain: Domain, row: Vec<u8>) -> Option<Box<[u8]>> {
    if domain == Domain::Expiry { places.inner_of(&row).map(Vec::into_boxed_slice) } else { Some(row.into()) }
}
