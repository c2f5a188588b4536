//! A plugin that fails on most of what it is given is left alone for a while: a circuit breaker.
//!
//! What one sender's messages do to a plugin is first of all that sender's affair: each has a circuit of its own, and while it is open only his
//! messages are not given to the plugin. What several senders' messages do is the plugin's: then the circuit of all opens.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use crate::priority;

/// Messages that a circuit goes by: the newest.
const WINDOW: u32 = u64::BITS;
/// So many of them failed when it opens.
const OPENS: u32 = WINDOW / 2;
/// So many of one sender's newest messages may fail and count for the circuit of all: it takes four senders at least to open that.
const SHARE: u32 = OPENS / 4;
/// So many tries have to go well, one after the other, before it closes.
const CLOSES: u32 = 8;
/// How long one try keeps others from trying, when it never tells how it ended: as long as the longest call may have the processor.
const TRY_LIMIT: Duration = Duration::from_secs(10);
/// Senders remembered that the plugin failed on; when there are more, those with the fewest failures are forgotten.
const SENDERS: usize = 64;
/// A sender that the plugin did not fail on for so long is forgotten.
const REMEMBERED: Duration = Duration::from_secs(60);

/// The breaker of one plugin at one place, shared by the threads that call it.
pub struct Breaker {
    /// As errors name it.
    plugin: String,
    rest_limit: Duration,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    all: Circuit,
    /// Of those that it failed on lately, by number, with the time of the last failure.
    senders: BTreeMap<u64, (Circuit, Option<Instant>)>,
}

#[derive(Default)]
struct Circuit {
    /// What became of the newest messages, one bit each: it is set where the plugin failed. The newest is the lowest.
    window: u64,
    /// Calls that were tried so far, whenever it was open.
    tries: u64,
    open: Option<Open>,
}

struct Open {
    /// One call is tried then.
    until: Instant,
    /// How many tries had begun when the last failure came, and how many that began since went well.
    failed_at: u64,
    good: u32,
    /// What the last call ended with.
    reason: String,
}

/// A call that may be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    Free,
    /// The circuit of all is open, and this is the one call that is tried, with its number.
    Try(u64),
    /// The same for the sender's own.
    OwnTry(u64),
}

/// Why no call may be made now, and for how long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rest {
    pub reason: String,
    pub wait: Duration,
}

impl Circuit {
    /// The number of a try, or how long to wait and the last failure; `None` while it is closed.
    fn enter(&mut self, now: Instant) -> Option<Result<u64, (Duration, &str)>> {
        let open = self.open.as_mut()?;
        if now < open.until {
            return Some(Err((open.until - now, &open.reason)));
        }
        open.until = now + TRY_LIMIT;
        self.tries += 1;
        Some(Ok(self.tries))
    }

    /// So many messages went well; `number` is that of the try, if it was one.
    fn went_well(&mut self, number: Option<u64>, messages: usize, now: Instant) {
        match (&mut self.open, number) {
            (None, _) => {
                let by = u32::try_from(messages).unwrap_or(u32::MAX);
                self.window = self.window.checked_shl(by).unwrap_or(0);
            }
            // It may have taken so long that others were tried meanwhile; what began before the last failure says nothing.
            (Some(open), Some(number)) if number > open.failed_at => {
                open.good += 1;
                open.until = now;
                if open.good >= CLOSES {
                    (self.window, self.open) = (0, None);
                }
            }
            (Some(_), _) => {}
        }
    }

    /// One message failed. `rest` says how long nothing may be tried then.
    fn failed(&mut self, number: Option<u64>, reason: &str, rest: impl FnOnce() -> Instant) {
        let opens = match (&self.open, number) {
            (None, _) => {
                self.window = self.window << 1 | 1;
                self.window.count_ones() >= OPENS
            }
            (Some(_), Some(_)) => true,
            // It began before the circuit was opened.
            (Some(_), None) => false,
        };
        if opens {
            self.open = Some(Open { until: rest(), failed_at: self.tries, good: 0, reason: reason.to_owned() });
        }
    }

    /// Nothing came of a try that tells something: another one may be made.
    fn left(&mut self, number: u64, now: Instant) {
        if let Some(open) = self.open.as_mut().filter(|_| self.tries == number) {
            open.until = now;
        }
    }
}

impl State {
    /// Forgets senders that have been quiet for long.
    fn tidy(&mut self, now: Instant) {
        self.senders.retain(|_, (_, last)| last.is_some_and(|last| now.saturating_duration_since(last) < REMEMBERED));
    }

    /// The circuit of a sender that the plugin fails on now; `None` when too many others are remembered, all of them open.
    fn sender(&mut self, sender: u64, now: Instant) -> Option<&mut Circuit> {
        if !self.senders.contains_key(&sender) {
            self.tidy(now);
            if self.senders.len() >= SENDERS {
                let closed = self.senders.iter().filter(|(_, (circuit, _))| circuit.open.is_none());
                let (least, _) = closed.min_by_key(|(_, (circuit, _))| circuit.window.count_ones())?;
                let least = *least;
                self.senders.remove(&least);
            }
        }
        let (circuit, last) = self.senders.entry(sender).or_default();
        *last = Some(now);
        Some(circuit)
    }

    /// The circuits that are open: that of all, or those of senders.
    fn open(&mut self, now: Instant) -> impl Iterator<Item = (&Open, bool)> {
        self.tidy(now);
        let senders = self.senders.values().filter_map(|(circuit, _)| circuit.open.as_ref());
        self.all.open.iter().map(|open| (open, true)).chain(senders.map(|open| (open, false)))
    }
}

impl Breaker {
    /// Closed. Nothing is tried twice within `rest_limit` at the most.
    pub fn of(plugin: &str, rest_limit: Duration) -> Self {
        Self { plugin: plugin.to_owned(), rest_limit, state: Mutex::default() }
    }

    /// Whether a call for a sender's message may be made now. It is to be followed by one of the others.
    pub fn enter(&self, sender: u64) -> Result<Entry, Rest> {
        let now = Instant::now();
        let mut state = self.state.lock();
        let own = state.senders.get_mut(&sender).and_then(|(circuit, _)| circuit.enter(now));
        if let Some(own) = own {
            return own.map(Entry::OwnTry).map_err(|(wait, reason)| Rest { reason: self.text(reason, false), wait });
        }
        match state.all.enter(now) {
            None => Ok(Entry::Free),
            Some(Ok(number)) => Ok(Entry::Try(number)),
            Some(Err((wait, reason))) => Err(Rest { reason: self.text(reason, true), wait }),
        }
    }

    /// A call left its instance alive, whatever it said of a message of each of these senders.
    pub fn went_well(&self, entry: Entry, senders: impl ExactSizeIterator<Item = u64>) {
        let now = Instant::now();
        let mut state = self.state.lock();
        let State { all, senders: known } = &mut *state;
        match entry {
            Entry::Free => all.went_well(None, senders.len(), now),
            Entry::Try(number) => all.went_well(Some(number), senders.len(), now),
            Entry::OwnTry(_) => {}
        }
        if known.is_empty() {
            return;
        }
        let own = if let Entry::OwnTry(number) = entry { Some(number) } else { None };
        for sender in senders {
            if let Some((circuit, _)) = known.get_mut(&sender) {
                circuit.went_well(own, 1, now);
            }
        }
    }

    /// A call for one message ended its instance after so much processor time.
    pub fn failed(&self, entry: Entry, sender: u64, wasted: Duration, reason: &str) {
        let now = Instant::now();
        let mut state = self.state.lock();
        // Both circuits rest as one: what is wasted is wasted once.
        let mut until = None;
        let mut rest = || *until.get_or_insert_with(|| Instant::now() + priority::rest(wasted, self.rest_limit));
        let own = if let Entry::OwnTry(number) = entry { Some(number) } else { None };
        let of_sender = state.sender(sender, now).map_or(0, |circuit| {
            circuit.failed(own, reason, &mut rest);
            circuit.window.count_ones()
        });
        match entry {
            // Beyond that it speaks for its sender only.
            Entry::Free if of_sender <= SHARE => state.all.failed(None, reason, rest),
            Entry::Try(number) if of_sender <= SHARE => state.all.failed(Some(number), reason, rest),
            Entry::Try(number) => state.all.left(number, now),
            Entry::Free | Entry::OwnTry(_) => {}
        }
    }

    /// No call was made after all, or nothing came of it that tells something.
    pub fn left(&self, entry: Entry, sender: u64) {
        let now = Instant::now();
        let mut state = self.state.lock();
        match entry {
            Entry::Free => {}
            Entry::Try(number) => state.all.left(number, now),
            Entry::OwnTry(number) => {
                if let Some((circuit, _)) = state.senders.get_mut(&sender) {
                    circuit.left(number, now);
                }
            }
        }
    }

    /// Whether messages of anybody are not given to the plugin, or tried only.
    pub fn is_open(&self) -> bool {
        self.state.lock().open(Instant::now()).next().is_some()
    }

    /// Whether messages of this sender are.
    pub fn is_open_for(&self, sender: u64) -> bool {
        let state = self.state.lock();
        state.all.open.is_some() || state.senders.get(&sender).is_some_and(|(circuit, _)| circuit.open.is_some())
    }

    /// Why calls are only tried, if they are.
    pub fn reason(&self) -> Option<String> {
        self.state.lock().open(Instant::now()).next().map(|(open, all)| self.text(&open.reason, all))
    }

    fn text(&self, reason: &str, all: bool) -> String {
        let plugin = &self.plugin;
        let what = if all {
            "what it is given and is not asked"
        } else {
            "what it is given from one side and is not asked about that"
        };
        format!("plugin {plugin} fails on most of {what} for a while; the last failure: {reason}")
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed test panics")]
mod tests {
    use std::iter::{once, repeat_n};

    use super::*;

    /// Long enough that no test comes to the end of a rest.
    const WASTED: Duration = Duration::from_secs(1);

    fn breaker() -> Breaker {
        Breaker::of("p@1", Duration::from_secs(60))
    }

    fn fail(breaker: &Breaker, sender: u64, times: u32) {
        (0..times).for_each(|_| breaker.failed(Entry::Free, sender, WASTED, "a trap"));
    }

    fn go_well(breaker: &Breaker, sender: u64, times: usize) {
        breaker.went_well(Entry::Free, repeat_n(sender, times));
    }

    /// Ends all rests.
    fn let_time_pass(breaker: &Breaker) {
        let (mut state, now) = (breaker.state.lock(), Instant::now());
        let State { all, senders } = &mut *state;
        let circuits = senders.values_mut().map(|(circuit, _)| circuit).chain(once(all));
        circuits.filter_map(|circuit| circuit.open.as_mut()).for_each(|open| open.until = now);
    }

    /// The call that is tried once the rest is over.
    fn try_one(breaker: &Breaker, sender: u64) -> Entry {
        let_time_pass(breaker);
        let entry = breaker.enter(sender).unwrap();
        assert!(entry != Entry::Free && breaker.enter(sender).is_err(), "another one must not be made");
        entry
    }

    /// The circuit of all is open.
    fn opened() -> Breaker {
        let breaker = breaker();
        (0..4).for_each(|sender| fail(&breaker, sender, SHARE));
        breaker
    }

    #[test]
    fn it_opens_when_half_of_the_newest_messages_of_several_senders_fail() {
        let breaker = breaker();
        for _ in 0..100 {
            fail(&breaker, 1, 1);
            go_well(&breaker, 1, 2);
        }
        (0..4).for_each(|sender| go_well(&breaker, sender, 1_000));
        (0..4).for_each(|sender| fail(&breaker, sender, SHARE - u32::from(sender == 3)));
        assert!(breaker.enter(9) == Ok(Entry::Free) && breaker.reason().is_none());
        fail(&breaker, 3, 1);
        let rest = breaker.enter(9).unwrap_err();
        assert!(
            rest.reason
                .ends_with("fails on most of what it is given and is not asked for a while; the last failure: a trap")
        );
        assert!(rest.wait > WASTED);
        assert_eq!(breaker.reason(), Some(rest.reason));
    }

    #[test]
    fn many_senders_with_one_message_each_open_it() {
        let breaker = breaker();
        (0..1_000).take_while(|_| !breaker.is_open()).for_each(|sender| fail(&breaker, sender, 1));
        assert!(breaker.is_open_for(5_000));
        assert_eq!(breaker.state.lock().senders.len(), OPENS as usize);
    }

    #[test]
    fn what_one_sender_does_is_his_own_affair() {
        let breaker = breaker();
        fail(&breaker, 1, OPENS - 1);
        assert_eq!(breaker.enter(1), Ok(Entry::Free));
        fail(&breaker, 1, 1_000);
        let rest = breaker.enter(1).unwrap_err();
        assert!(rest.reason.contains("from one side"), "{}", rest.reason);
        assert!(breaker.is_open_for(1) && !breaker.is_open_for(2) && breaker.is_open());
        assert_eq!(breaker.enter(2), Ok(Entry::Free));
        // Nor do two of them, and not while all others are open.
        fail(&breaker, 2, 1_000);
        assert_eq!(breaker.enter(3), Ok(Entry::Free));
        for _ in 0..50 {
            breaker.failed(try_one(&breaker, 1), 1, WASTED, "a trap");
        }
        assert_eq!(breaker.enter(3), Ok(Entry::Free));
        (0..CLOSES).for_each(|_| breaker.went_well(try_one(&breaker, 1), once(1)));
        assert!(!breaker.is_open_for(1) && breaker.is_open_for(2));
    }

    #[test]
    fn one_senders_failures_do_not_keep_it_open_for_all() {
        let breaker = opened();
        fail(&breaker, 7, OPENS);
        for _ in 1..CLOSES {
            breaker.went_well(try_one(&breaker, 8), once(8));
            // His own circuit is open: he is not given the tries of all.
            let own = try_one(&breaker, 7);
            assert!(matches!(own, Entry::OwnTry(_)));
            breaker.failed(own, 7, WASTED, "poison");
        }
        breaker.went_well(try_one(&breaker, 8), once(8));
        assert_eq!(breaker.enter(8), Ok(Entry::Free));
        assert!(breaker.is_open_for(7));
    }

    #[test]
    fn senders_are_remembered_for_a_while_and_not_too_many() {
        let breaker = breaker();
        for sender in 0..10 * SENDERS as u64 {
            fail(&breaker, sender, 1 + u32::from(sender < 3));
            (0..8).for_each(|_| go_well(&breaker, sender, 8));
        }
        assert_eq!(breaker.state.lock().senders.len(), SENDERS);
        fail(&breaker, 1, OPENS);
        assert!(breaker.is_open());
        for (_, last) in breaker.state.lock().senders.values_mut() {
            *last = last.and_then(|last| last.checked_sub(REMEMBERED));
        }
        assert!(!breaker.is_open() && breaker.reason().is_none(), "its connection may be gone");
    }

    #[test]
    fn it_closes_when_some_tries_went_well_and_begins_anew() {
        let breaker = opened();
        breaker.left(try_one(&breaker, 9), 9);
        assert!(matches!(breaker.enter(9), Ok(Entry::Try(_))), "the try was not made");
        go_well(&breaker, 9, 100);
        fail(&breaker, 9, 1);
        assert!(breaker.is_open_for(8), "what began before says nothing");
        breaker.failed(try_one(&breaker, 9), 9, WASTED, "y");
        assert!(breaker.enter(9).unwrap_err().reason.ends_with("the last failure: y"));
        (1..CLOSES).for_each(|_| breaker.went_well(try_one(&breaker, 9), once(9)));
        breaker.failed(try_one(&breaker, 9), 9, WASTED, "z");
        (0..CLOSES).for_each(|_| breaker.went_well(try_one(&breaker, 9), once(9)));
        assert_eq!((breaker.enter(9), breaker.is_open()), (Ok(Entry::Free), false));
    }

    #[test]
    fn tries_that_take_long_count_as_well() {
        let breaker = opened();
        // Each is still running when the next one is tried.
        let mut tries: Vec<Entry> = (0..CLOSES).map(|_| try_one(&breaker, 9)).collect();
        let late = tries.remove(0);
        tries.iter().for_each(|entry| breaker.went_well(*entry, once(9)));
        breaker.failed(late, 9, WASTED, "late");
        assert!(breaker.enter(9).unwrap_err().reason.ends_with("the last failure: late"));
        let before = try_one(&breaker, 9);
        breaker.failed(try_one(&breaker, 9), 9, WASTED, "newer");
        (0..CLOSES).for_each(|_| breaker.went_well(before, once(9)));
        assert!(breaker.enter(9).is_err(), "a failure came after it began");
        let tries: Vec<Entry> = (0..CLOSES).map(|_| try_one(&breaker, 9)).collect();
        tries.iter().rev().for_each(|entry| breaker.went_well(*entry, once(9)));
        assert_eq!(breaker.enter(9), Ok(Entry::Free));
    }
}
