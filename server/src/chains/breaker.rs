//! A plugin of a chain that fails on most of what it is given is left alone for a while: a circuit breaker.

use std::{
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use crate::priority::Rest;

/// By how many the calls that ended their instance outnumber the good ones when the breaker opens.
const OPENS: u32 = 16;
/// Longest time between two tries.
const REST_LIMIT: Duration = Duration::from_secs(10);
/// How long one try keeps others from trying, when it never tells how it ended.
const TRY_LIMIT: Duration = Duration::from_secs(1);

/// The breaker of one step, shared by the threads of its chain.
pub(super) struct Breaker {
    plugin: String,
    excess: AtomicU32,
    is_open: AtomicBool,
    open: Mutex<Option<Open>>,
}

struct Open {
    /// One call is tried then.
    until: Instant,
    /// What the last call ended with.
    reason: String,
    _rest: Rest,
}

impl Breaker {
    /// Closed. `plugin`: as errors name it.
    pub fn of(plugin: &str) -> Self {
        Self {
            plugin: plugin.to_owned(),
            excess: AtomicU32::new(0),
            is_open: AtomicBool::new(false),
            open: Mutex::new(None),
        }
    }

    /// Whether a call may be made now, or why not.
    pub fn enter(&self) -> Result<(), String> {
        if !self.is_open() {
            return Ok(());
        }
        let now = Instant::now();
        match &mut *self.open.lock() {
            Some(open) if now < open.until => Err(self.text(open)),
            Some(open) => {
                open.until = now + TRY_LIMIT;
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// A call left its instance alive.
    pub fn went_well(&self) {
        let less = |excess: u32| excess.checked_sub(1);
        let _ = self.excess.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        if self.is_open() {
            *self.open.lock() = None;
            self.is_open.store(false, Ordering::Release);
        }
    }

    /// A call ended its instance after so much processor time.
    pub fn failed(&self, wasted: Duration, reason: &str) {
        let more = |excess: u32| (excess < OPENS).then_some(excess + 1);
        let excess = self.excess.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).map_or(OPENS, |was| was + 1);
        if excess >= OPENS {
            let mut open = self.open.lock();
            // It is not one that rests beside itself.
            *open = None;
            let rest = Rest::after(wasted);
            let until = Instant::now() + rest.time.min(REST_LIMIT);
            *open = Some(Open { until, reason: reason.to_owned(), _rest: rest });
            self.is_open.store(true, Ordering::Release);
        }
    }

    pub fn is_open(&self) -> bool {
        self.is_open.load(Ordering::Acquire)
    }

    /// Why no calls are made, when none are.
    pub fn reason(&self) -> Option<String> {
        self.open.lock().as_ref().map(|open| self.text(open))
    }

    fn text(&self, open: &Open) -> String {
        let (plugin, reason) = (&self.plugin, &open.reason);
        format!(
            "plugin {plugin} fails on most of what it is given and is not asked for a while; the last failure: {reason}"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_opens_when_most_calls_fail_and_closes_with_the_first_that_does_not() {
        let breaker = Breaker::of("p@1");
        let wasted = Duration::from_millis(1);
        for _ in 0..100 {
            breaker.failed(wasted, "x");
            breaker.went_well();
        }
        assert!(breaker.enter().is_ok() && breaker.reason().is_none(), "half of them are good");
        (0..OPENS).for_each(|_| breaker.failed(wasted, "a trap"));
        assert!(breaker.enter().is_err_and(|text| text.ends_with("the last failure: a trap")));
        assert_eq!(breaker.reason(), breaker.enter().err());
        let until = breaker.open.lock().as_ref().unwrap().until;
        std::thread::sleep(until.saturating_duration_since(Instant::now()));
        assert!(breaker.enter().is_ok(), "one may try");
        assert!(breaker.enter().is_err(), "but no other");
        breaker.went_well();
        assert!(breaker.enter().is_ok() && breaker.enter().is_ok() && breaker.reason().is_none());
        breaker.failed(wasted, "x");
        assert!(breaker.enter().is_err(), "one good call among bad ones does not make it start anew");
    }
}
