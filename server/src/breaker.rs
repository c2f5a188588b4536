//! A plugin that fails on most of what it is given is left alone for a while: a circuit breaker.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::priority;

/// Messages that it goes by: the newest.
const WINDOW: u32 = u64::BITS;
/// So many of them failed when it opens.
const OPENS: u32 = WINDOW / 2;
/// So many tries have to go well, one after the other, before it closes.
const CLOSES: u32 = 8;
/// How long one try keeps others from trying, when it never tells how it ended.
const TRY_LIMIT: Duration = Duration::from_secs(1);

/// The breaker of one plugin at one place, shared by the threads that call it.
pub struct Breaker {
    /// As errors name it.
    plugin: String,
    rest_limit: Duration,
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
    /// The number of the newest try, and how many before it went well.
    tries: u64,
    good: u32,
    /// What the last call ended with.
    reason: String,
}

/// A call that may be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    Free,
    /// The breaker is open, and this is the one call that is tried, with its number.
    Try(u64),
}

impl Breaker {
    /// Closed. Nothing is tried twice within `rest_limit` at the most.
    pub fn of(plugin: &str, rest_limit: Duration) -> Self {
        Self { plugin: plugin.to_owned(), rest_limit, state: Mutex::default() }
    }

    /// Whether a call may be made now, or why not. It is to be followed by one of the others.
    pub fn enter(&self) -> Result<Entry, String> {
        let now = Instant::now();
        match &mut self.state.lock().open {
            None => Ok(Entry::Free),
            Some(open) if now < open.until => Err(self.text(&open.reason)),
            Some(open) => {
                open.until = now + TRY_LIMIT;
                open.tries += 1;
                Ok(Entry::Try(open.tries))
            }
        }
    }

    /// A call left its instance alive, whatever it said of so many messages.
    pub fn went_well(&self, entry: Entry, messages: usize) {
        let mut state = self.state.lock();
        match (&mut state.open, entry) {
            (None, _) => {
                let by = u32::try_from(messages).unwrap_or(u32::MAX);
                state.window = state.window.checked_shl(by).unwrap_or(0);
            }
            (Some(open), Entry::Try(number)) if open.tries == number => {
                open.good += 1;
                open.until = Instant::now();
                if open.good >= CLOSES {
                    *state = State::default();
                }
            }
            // It began before the breaker was opened, or took so long that another was tried.
            (Some(_), _) => {}
        }
    }

    /// A call for one message ended its instance after so much processor time.
    pub fn failed(&self, entry: Entry, wasted: Duration, reason: &str) {
        let mut state = self.state.lock();
        let tries = match (&state.open, entry) {
            (None, _) => {
                state.window = state.window << 1 | 1;
                (state.window.count_ones() >= OPENS).then_some(0)
            }
            (Some(open), Entry::Try(number)) if open.tries == number => Some(number),
            (Some(_), _) => None,
        };
        if let Some(tries) = tries {
            let until = Instant::now() + priority::rest(wasted, self.rest_limit);
            state.open = Some(Open { until, tries, good: 0, reason: reason.to_owned() });
        }
    }

    /// No call was made after all, or nothing came of it that tells something.
    pub fn left(&self, entry: Entry) {
        if let Some(open) = &mut self.state.lock().open
            && entry == Entry::Try(open.tries)
        {
            open.until = Instant::now();
        }
    }

    pub fn is_open(&self) -> bool {
        self.state.lock().open.is_some()
    }

    /// For how long no call may be made.
    pub fn rests(&self) -> Duration {
        let now = Instant::now();
        self.state.lock().open.as_ref().map_or(Duration::ZERO, |open| open.until.saturating_duration_since(now))
    }

    /// Why calls are only tried, if they are.
    pub fn reason(&self) -> Option<String> {
        self.state.lock().open.as_ref().map(|open| self.text(&open.reason))
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

    fn breaker() -> Breaker {
        Breaker::of("p@1", Duration::from_secs(60))
    }

    fn fail(breaker: &Breaker, times: u32) {
        (0..times).for_each(|_| breaker.failed(Entry::Free, WASTED, "a trap"));
    }

    /// The call that is tried once the rest is over.
    fn try_one(breaker: &Breaker) -> Entry {
        breaker.state.lock().open.as_mut().unwrap().until = Instant::now();
        let entry = breaker.enter().unwrap();
        assert!(matches!(entry, Entry::Try(_)) && breaker.enter().is_err(), "another one must not be made");
        entry
    }

    #[test]
    fn it_opens_when_half_of_the_newest_messages_fail() {
        let breaker = breaker();
        for _ in 0..100 {
            fail(&breaker, 1);
            breaker.went_well(Entry::Free, 2);
        }
        breaker.went_well(Entry::Free, 1_000);
        fail(&breaker, OPENS - 1);
        assert!(breaker.enter() == Ok(Entry::Free) && breaker.reason().is_none() && breaker.rests().is_zero());
        fail(&breaker, 1);
        assert!(breaker.enter().unwrap_err().ends_with("the last failure: a trap"));
        assert_eq!(breaker.reason(), breaker.enter().err());
        assert!(breaker.rests() > WASTED);
    }

    #[test]
    fn it_closes_when_some_tries_went_well_and_begins_anew() {
        let breaker = breaker();
        fail(&breaker, OPENS);
        breaker.left(try_one(&breaker));
        assert!(breaker.rests().is_zero(), "the try was not made");
        breaker.went_well(Entry::Free, 100);
        fail(&breaker, 1);
        assert!(breaker.is_open() && breaker.rests().is_zero(), "what began before says nothing");
        let late = try_one(&breaker);
        let newer = try_one(&breaker);
        breaker.went_well(late, 1);
        assert!(!breaker.rests().is_zero(), "only the newest counts");
        breaker.failed(newer, WASTED, "y");
        assert!(breaker.enter().unwrap_err().ends_with("the last failure: y"));
        (1..CLOSES).for_each(|_| breaker.went_well(try_one(&breaker), 1));
        breaker.failed(try_one(&breaker), WASTED, "z");
        (0..CLOSES).for_each(|_| breaker.went_well(try_one(&breaker), 1));
        assert_eq!((breaker.enter(), breaker.reason(), breaker.is_open()), (Ok(Entry::Free), None, false));
        fail(&breaker, OPENS - 1);
        assert!(!breaker.is_open());
    }
}
