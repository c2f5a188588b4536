//! Windows over event time: records are gathered by key and time, and given out once the watermark has passed the end.
//!
//! ```
//! use std::time::Duration;
//!
//! use sluice_sdk::window::Windows;
//! use sluice_sdk::{Context, Emit, Record, Timer, process};
//!
//! const MINUTES: Windows = Windows::tumbling("minutes", Duration::from_secs(60));
//!
//! #[process(needs(key), stores("minutes"), on_timer(closed))]
//! fn count(r: Record<'_>, ctx: &mut Context<'_>) {
//!     MINUTES.count(ctx, r.key().unwrap_or_default(), r.born_at());
//! }
//!
//! fn closed(timer: &Timer, ctx: &mut Context<'_>) {
//!     if let Some(window) = MINUTES.close(ctx, timer) {
//!         ctx.send(Emit::same().value(window.number().to_string()));
//!     }
//! }
//! ```

use std::time::Duration;

use crate::process::{Context, Timer};
use crate::state;

/// Windows of one length. They keep what they gather in the store of their name.
#[derive(Clone, Copy, Debug)]
pub struct Windows {
    name: &'static str,
    /// Milliseconds.
    size: u64,
    /// Milliseconds from the start of one to that of the next.
    hop: u64,
}

/// A window whose end has passed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    pub key: Vec<u8>,
    /// Milliseconds since 1970; the end is not part of it.
    pub start: u64,
    pub end: u64,
    /// What was gathered.
    pub value: Vec<u8>,
}

impl Window {
    /// What [`Windows::count`] and [`Windows::add`] gathered.
    #[must_use]
    pub fn number(&self) -> i64 {
        state::number(&self.value).unwrap_or(0)
    }

    #[must_use]
    pub fn key_text(&self) -> &str {
        str::from_utf8(&self.key).unwrap_or_default()
    }
}

impl Windows {
    /// Windows side by side.
    #[must_use]
    pub const fn tumbling(name: &'static str, size: Duration) -> Windows {
        Windows { name, size: size.as_millis() as u64, hop: size.as_millis() as u64 }
    }

    /// Windows that overlap: one of length `size` begins every `hop`.
    #[must_use]
    pub const fn hopping(name: &'static str, size: Duration, hop: Duration) -> Windows {
        Windows { name, size: size.as_millis() as u64, hop: hop.as_millis() as u64 }
    }

    /// Counts a record of this key and time.
    pub fn count(&self, ctx: &mut Context<'_>, key: impl AsRef<[u8]>, time: u64) {
        self.add(ctx, key, time, 1);
    }

    /// Adds to the sum of every window that `time` is in and that is still open.
    pub fn add(&self, ctx: &mut Context<'_>, key: impl AsRef<[u8]>, time: u64, delta: i64) {
        for start in self.open_at(ctx, time) {
            let place = place(start, key.as_ref());
            ctx.store(self.name).increase(&place, delta);
            ctx.set_event_timer(&place, self.name, start + self.size);
        }
    }

    /// Lets `change` make a new value of what was gathered so far, for every window that `time` is in and that is still open.
    pub fn update(
        &self,
        ctx: &mut Context<'_>,
        key: impl AsRef<[u8]>,
        time: u64,
        mut change: impl FnMut(Option<Vec<u8>>) -> Vec<u8>,
    ) {
        for start in self.open_at(ctx, time) {
            let (place, store) = (place(start, key.as_ref()), ctx.store(self.name));
            store.put(&place, change(store.get(&place)));
            ctx.set_event_timer(&place, self.name, start + self.size);
        }
    }

    /// Whether a record of this time is too late for all of its windows.
    #[must_use]
    pub fn is_late(&self, ctx: &Context<'_>, time: u64) -> bool {
        self.open_at(ctx, time).next().is_none()
    }

    /// The window that this timer ends, which is forgotten; `None` if the timer is not one of these windows'.
    pub fn close(&self, ctx: &mut Context<'_>, timer: &Timer) -> Option<Window> {
        if timer.name != self.name {
            return None;
        }
        let (start, key) = timer.key.split_first_chunk::<8>()?;
        let store = ctx.store(self.name);
        let value = store.get(&timer.key)?;
        store.delete(&timer.key);
        let start = u64::from_be_bytes(*start);
        Some(Window { key: key.to_vec(), start, end: start + self.size, value })
    }

    /// Starts of the windows that a time is in and that are still open, the earliest first.
    fn open_at(&self, ctx: &Context<'_>, time: u64) -> impl Iterator<Item = u64> + use<> {
        let (size, hop, watermark) = (self.size.max(1), self.hop.max(1), ctx.watermark());
        let last = time - time % hop;
        let count = size.div_ceil(hop);
        let starts = (0..count).rev().filter_map(move |back| last.checked_sub(back * hop));
        starts.filter(move |start| start + size > time && start + size > watermark)
    }
}

fn place(start: u64, key: &[u8]) -> Vec<u8> {
    [&start.to_be_bytes(), key].concat()
}

/// Windows that last as long as records of a key keep coming, with at most `gap` between them.
#[derive(Clone, Copy, Debug)]
pub struct Sessions {
    name: &'static str,
    /// Milliseconds.
    gap: u64,
}

/// First time, last time and value of a session, as they stand in the store.
type Session = (u64, u64, Vec<u8>);

impl Sessions {
    #[must_use]
    pub const fn new(name: &'static str, gap: Duration) -> Sessions {
        Sessions { name, gap: gap.as_millis() as u64 }
    }

    /// Counts a record of this key and time.
    pub fn count(&self, ctx: &mut Context<'_>, key: impl AsRef<[u8]>, time: u64) {
        let sum = |a: &[u8], b: &[u8]| {
            let number = |bytes| state::number(bytes).unwrap_or(0);
            number(a).wrapping_add(number(b)).to_le_bytes().to_vec()
        };
        self.update(ctx, key, time, 1_i64.to_le_bytes().to_vec(), sum);
    }

    /// Puts a value into the session of this key and time; `merge` makes one of two, the earlier first. A record may join two sessions.
    pub fn update(
        &self,
        ctx: &mut Context<'_>,
        key: impl AsRef<[u8]>,
        time: u64,
        value: Vec<u8>,
        merge: impl Fn(&[u8], &[u8]) -> Vec<u8>,
    ) {
        if time.saturating_add(self.gap) <= ctx.watermark() {
            return;
        }
        let (key, store) = (key.as_ref(), ctx.store(self.name));
        let mut open = read_sessions(&store.get(key).unwrap_or_default());
        let at = open.partition_point(|(first, ..)| *first <= time);
        open.insert(at, (time, time, value));
        let mut joined: Vec<Session> = Vec::with_capacity(open.len());
        for (first, last, value) in open {
            match joined.last_mut() {
                Some(before) if first <= before.1.saturating_add(self.gap) => {
                    before.1 = before.1.max(last);
                    before.2 = merge(&before.2, &value);
                }
                _ => joined.push((first, last, value)),
            }
        }
        let next = joined.iter().map(|(_, last, _)| last.saturating_add(self.gap)).min();
        store.put(key, write_sessions(&joined));
        if let Some(next) = next {
            ctx.set_event_timer(key, self.name, next);
        }
    }

    /// The sessions that this timer ends, which are forgotten; none if the timer is not one of these sessions'.
    pub fn close(&self, ctx: &mut Context<'_>, timer: &Timer) -> Vec<Window> {
        if timer.name != self.name {
            return Vec::new();
        }
        let store = ctx.store(self.name);
        let open = read_sessions(&store.get(&timer.key).unwrap_or_default());
        let (ended, left): (Vec<_>, Vec<_>) =
            open.into_iter().partition(|(_, last, _)| last.saturating_add(self.gap) <= timer.due);
        match left.iter().map(|(_, last, _)| last.saturating_add(self.gap)).min() {
            Some(next) => {
                store.put(&timer.key, write_sessions(&left));
                ctx.set_event_timer(&timer.key, self.name, next);
            }
            None => store.delete(&timer.key),
        }
        let window = |(start, last, value)| Window { key: timer.key.clone(), start, end: last, value };
        ended.into_iter().map(window).collect()
    }
}

fn write_sessions(sessions: &[Session]) -> Vec<u8> {
    let mut out = Vec::new();
    for (first, last, value) in sessions {
        out.extend_from_slice(&first.to_le_bytes());
        out.extend_from_slice(&last.to_le_bytes());
        out.extend_from_slice(&(value.len() as u64).to_le_bytes());
        out.extend_from_slice(value);
    }
    out
}

fn read_sessions(mut bytes: &[u8]) -> Vec<Session> {
    let mut sessions = Vec::new();
    while let Some((head, rest)) = bytes.split_first_chunk::<24>() {
        let number = |at: usize| {
            let mut eight = [0; 8];
            eight.copy_from_slice(&head[at..at + 8]);
            u64::from_le_bytes(eight)
        };
        let Some((value, rest)) = rest.split_at_checked(number(16) as usize) else { break };
        sessions.push((number(0), number(8), value.to_vec()));
        bytes = rest;
    }
    sessions
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_are_read_as_they_were_written() {
        let sessions = vec![(1, 2, b"a".to_vec()), (7, 7, Vec::new())];
        assert_eq!(read_sessions(&write_sessions(&sessions)), sessions);
    }
}
