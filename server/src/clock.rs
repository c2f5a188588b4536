//! The one place where clocks are read.
//!
//! The broker's clock follows the wall's, but never goes back: when the wall clock is set back, it runs on at the pace of
//! real time until the wall has caught up. So a delay of a second takes a second, whatever happens to the wall clock. The
//! log's store times are this clock's, so it begins at the newest of them.

use std::{
    sync::{
        LazyLock,
        atomic::{AtomicI64, Ordering},
    },
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use sluice_model::Timestamp;

const NANOS_PER_MS: i64 = 1_000_000;

static CLOCK: LazyLock<Clock> = LazyLock::new(|| Clock::new(wall_nanos()));
static START: LazyLock<Instant> = LazyLock::new(Instant::now);

pub fn now() -> Timestamp {
    // The wall first: what passes between the two readings must not count as a lead of the wall.
    let wall = wall_nanos();
    CLOCK.read(wall, steady_nanos())
}

/// From now on the clock is at `at` or later.
pub fn begin_at(at: Timestamp) {
    CLOCK.raise(at.0.saturating_mul(NANOS_PER_MS), steady_nanos());
}

/// How far this clock is ahead of the wall's, ms: 0 unless the wall clock was set back.
pub fn lead_ms() -> i64 {
    let lead = now().0 - wall_nanos() / NANOS_PER_MS;
    // Between two readings there may be a moment.
    if lead > 1 { lead } else { 0 }
}

fn wall_nanos() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX / 2)
}

fn steady_nanos() -> i64 {
    i64::try_from(START.elapsed().as_nanos()).unwrap_or(i64::MAX / 2)
}

/// Time since 1970 when the steady clock began, as far ahead as the wall ever was.
struct Clock(AtomicI64);

impl Clock {
    fn new(began: i64) -> Self {
        Self(AtomicI64::new(began))
    }

    fn read(&self, wall: i64, steady: i64) -> Timestamp {
        Timestamp(self.raise(wall, steady).saturating_add(steady) / NANOS_PER_MS)
    }

    fn raise(&self, to: i64, steady: i64) -> i64 {
        let began = to.saturating_sub(steady);
        self.0.fetch_max(began, Ordering::Relaxed).max(began)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: i64 = 1_000 * NANOS_PER_MS;

    #[test]
    fn it_follows_the_wall_but_never_back() {
        let clock = Clock::new(100 * S);
        assert_eq!(clock.read(101 * S, S), Timestamp(101_000));
        // Set back by a minute: it runs on.
        assert_eq!(clock.read(42 * S, 2 * S), Timestamp(102_000));
        assert_eq!(clock.read(52 * S, 12 * S), Timestamp(112_000));
        // Set right again: nothing jumps.
        assert_eq!(clock.read(113 * S, 13 * S), Timestamp(113_000));
        // Set forward: it follows.
        assert_eq!(clock.read(200 * S, 14 * S), Timestamp(200_000));
    }

    #[test]
    fn it_begins_no_earlier_than_told() {
        let clock = Clock::new(100 * S);
        clock.raise(500 * S, S);
        assert_eq!(clock.read(102 * S, 2 * S), Timestamp(501_000));
    }
}
