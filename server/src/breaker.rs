//! A plugin that fails on most of what it is given is left alone for a while: a circuit breaker.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::priority;

/// Messages that it goes by: the newest.
const WINDOW: u32 = u64::BITS;
/// So many of them failed when it opens.
const OPENS: u32 = WINDOW / 2;
/// Longest time between two tries.
const REST_LIMIT: Duration = Duration::from_secs(10);
/// How long one try keeps others from trying, when it never tells how it ended.
const TRY_LIMIT: Duration = Duration::from_secs(1);

/// The breaker of one plugin at one place, shared by the threads that call it.
pub struct Breaker {
    /// As errors name it.
    plugin: String,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// What became of the newest messages, one bit each: it is set where the plugin failed. The newest is the lowest.
    window: u64,
    open: Option<Open>,
}

struct Open {
    /// One call is tried then.
    until: Instant,
    /// What the last call ended with.
    reason: String,
}

/// A call that may be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    Free,
    /// The breaker is open, and this is the one call that is tried.
    Try,
}

impl Breaker {
    /// Closed.
    pub fn of(plugin: &str) -> Self {
        Self { plugin: plugin.to_owned(), state: Mutex::default() }
    }

    /// Whether a call may be made now, or why not. It is to be followed by one of the others.
    pub fn enter(&self) -> Result<Entry, String> {
        let now = Instant::now();
        match &mut self.state.lock().open {
            None => Ok(Entry::Free),
            Some(open) if now < open.until => Err(self.text(&open.reason)),
            Some(open) => {
                open.until = now + TRY_LIMIT;
                Ok(Entry::Try)
            }
        }
    }

    /// A call left its instance alive, whatever it said of so many messages.
    pub fn went_well(&self, messages: usize) {
        let mut state = self.state.lock();
        if state.open.take().is_some() {
            // The next that fails opens it again, unless good ones come before.
            state.window = u64::MAX >> (WINDOW - OPENS + 1);
        }
        state.window = u32::try_from(messages).ok().and_then(|by| state.window.checked_shl(by)).unwrap_or(0);
    }

    /// A call for one message ended its instance after so much processor time.
    pub fn failed(&self, wasted: Duration, reason: &str) {
        let mut state = self.state.lock();
        state.window = state.window << 1 | 1;
        if state.open.is_some() || state.window.count_ones() >= OPENS {
            let until = Instant::now() + priority::rest(wasted).min(REST_LIMIT);
            state.open = Some(Open { until, reason: reason.to_owned() });
        }
    }

    /// No call was made after all.
    pub fn left(&self, entry: Entry) {
        if let (Entry::Try, Some(open)) = (entry, &mut self.state.lock().open) {
            open.until = Instant::now();
        }
    }

    pub fn is_open(&self) -> bool {
        self.state.lock().open.is_some()
    }

    /// Why no calls are made at the moment, when none are.
    pub fn reason(&self) -> Option<String> {
        let now = Instant::now();
        self.state.lock().open.as_ref().filter(|open| now < open.until).map(|open| self.text(&open.reason))
    }

    fn text(&self, reason: &str) -> String {
        let plugin = &self.plugin;
        format!(
            "plugin {plugin} fails on most of what it is given and is not asked for a while; the last failure: {reason}"
        )
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed test panics")]
mod tests {
    use super::*;

    /// Long enough that no test comes to the end of a rest.
    const WASTED: Duration = Duration::from_secs(1);

    #[test]
    fn it_opens_when_half_of_the_newest_messages_fail() {
        let breaker = Breaker::of("p@1");
        for _ in 0..100 {
            breaker.failed(WASTED, "x");
            breaker.went_well(2);
        }
        breaker.went_well(1_000);
        (1..OPENS).for_each(|_| breaker.failed(WASTED, "x"));
        assert!(breaker.enter() == Ok(Entry::Free) && breaker.reason().is_none());
        breaker.failed(WASTED, "a trap");
        assert!(breaker.enter().unwrap_err().ends_with("the last failure: a trap"));
        assert_eq!(breaker.reason(), breaker.enter().err());
    }

    #[test]
    fn one_call_is_tried_after_the_rest_and_says_what_comes() {
        let breaker = Breaker::of("p@1");
        let rest_is_over = || breaker.state.lock().open.as_mut().unwrap().until = Instant::now();
        (0..OPENS).for_each(|_| breaker.failed(WASTED, "x"));
        rest_is_over();
        assert_eq!(breaker.enter(), Ok(Entry::Try));
        assert!(breaker.enter().is_err(), "another one must not");
        breaker.left(Entry::Try);
        assert_eq!(breaker.enter(), Ok(Entry::Try), "the first was not made");
        breaker.failed(WASTED, "y");
        assert!(breaker.enter().unwrap_err().ends_with("the last failure: y"));
        rest_is_over();
        assert_eq!(breaker.enter(), Ok(Entry::Try));
        breaker.went_well(1);
        assert_eq!((breaker.enter(), breaker.reason(), breaker.is_open()), (Ok(Entry::Free), None, false));
        breaker.failed(WASTED, "z");
        assert!(breaker.is_open(), "one good message among bad ones does not make it begin anew");
        rest_is_over();
        breaker.went_well(100);
        breaker.failed(WASTED, "z");
        assert!(!breaker.is_open());
    }
}
