//! The threads of a chain, each with a bounded queue: what one caller hands in under one number stays in order.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use parking_lot::{Condvar, Mutex, RwLock};
use sluice_model::Kind;
use sluice_runtime::{Columns, Record};

use super::{
    judge::{Judge, Outcome},
    plan::Plan,
};
use crate::{
    breaker::Breaker,
    clock,
    failure::{Failure, Result},
    observer::Logs,
    priority::{self, Calls},
};

/// Threads of one chain, at the most.
const LANES: usize = 4;
/// Work that may wait for one thread.
const COUNT_LIMIT: usize = 4_096;
/// Bytes of it.
const BYTES_LIMIT: usize = 32 * 1024 * 1024;
/// Messages judged together, at the most. Work is done with as soon as its last message was.
const TOGETHER: usize = 64;
/// Bytes of them, decompressed, after which no more are added: what waits may be small only because it is compressed.
const TOGETHER_BYTES: usize = 4 * 1024 * 1024;

/// Longest time between two tries of a plugin that fails on most of what it is given.
const BREAKER_REST_LIMIT: Duration = Duration::from_secs(10);

/// Serial numbers of a thread begin at its start, ms since 1970, times two to this power.
const SERIAL_BITS: u32 = 16;

/// A message as plugins see it, or why it cannot be shown to them.
pub type Given = std::result::Result<Record, String>;

/// Messages to be judged together.
pub trait Work: Send + 'static {
    /// How many messages.
    fn count(&self) -> usize;
    /// Bytes that wait with it.
    fn bytes(&self) -> usize;
    /// The message with this index; only `needs` has to be filled. `serial` grows from message to message, over restarts too: it
    /// stands for the offset of what has none.
    fn record(&mut self, index: usize, serial: u64, needs: Columns) -> Given;
    /// Takes what became of it.
    fn judged(&mut self, index: usize, outcome: Outcome);
    /// All messages were judged, or why none will be. Tells `count` how many of them go on, before anybody is answered. May be called from any
    /// thread; must not block.
    fn done(self, judged: Result<&Plan>, count: impl FnOnce(usize));
}

/// What a chain has done since it was bound, or since the server started.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    pub read: u64,
    /// Messages that went on.
    pub sent: u64,
    pub rejected: u64,
    /// Messages that a plugin failed on, whatever became of them.
    pub failed: u64,
    /// Messages that the plugins were not asked about, since they fail on most of what they are given, or since there was no room for an instance.
    pub unasked: u64,
    /// Calls that ended an instance.
    pub traps: u64,
    /// Time in the plugins, by the clock on the wall.
    pub busy_ms: u64,
    /// Processor time of that, and of starting instances.
    pub cpu: Duration,
}

#[derive(Default)]
pub(super) struct Counters {
    pub read: AtomicU64,
    pub sent: AtomicU64,
    pub rejected: AtomicU64,
    pub failed: AtomicU64,
    pub unasked: AtomicU64,
    pub traps: AtomicU64,
    pub busy_ns: AtomicU64,
    pub cpu_ns: AtomicU64,
}

/// A running chain. Dropping it ends its threads; what waits is refused.
pub struct Chain<W: Work> {
    lanes: Vec<Arc<Lane<W>>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    shared: Arc<Shared>,
}

/// A plan, and a breaker for each of its steps.
type Current = (Arc<Plan>, Arc<[Breaker]>);

/// What the threads of a chain share.
struct Shared {
    current: RwLock<Current>,
    counters: Arc<Counters>,
    logs: Arc<Logs>,
    /// No more calls are to be made.
    stopping: Arc<AtomicBool>,
}

struct Lane<W> {
    state: Mutex<State<W>>,
    rung: Condvar,
}

struct State<W> {
    /// With the numbers that they came under.
    queue: VecDeque<(u64, W)>,
    bytes: usize,
    /// The thread has work in hand.
    busy: bool,
    /// No more is taken.
    closed: bool,
}

fn current(plan: Plan) -> Current {
    let breakers = plan.steps.iter().map(|step| Breaker::of(&step.label, BREAKER_REST_LIMIT)).collect();
    (Arc::new(plan), breakers)
}

impl<W: Work> Chain<W> {
    /// Starts the threads. `behind` is called whenever one of them has dealt with what it had in hand.
    pub fn start(name: &str, plan: Plan, behind: impl Fn() + Clone + Send + 'static) -> Result<Self> {
        let shared = Arc::new(Shared {
            current: RwLock::new(current(plan)),
            counters: Arc::default(),
            logs: Arc::new(Logs::default()),
            stopping: Arc::default(),
        });
        let count = std::thread::available_parallelism().map_or(1, usize::from).min(LANES) as u32;
        let mut chain = Self { lanes: Vec::new(), threads: Mutex::default(), shared };
        for number in 0..count {
            let lane = Arc::new(Lane::default());
            chain.lanes.push(lane.clone());
            let (shared, behind) = (chain.shared.clone(), behind.clone());
            let thread = std::thread::Builder::new()
                .name(name.to_owned())
                .spawn(move || lane.run(number, count, &shared, behind))
                .map_err(|error| Failure::new(Kind::Busy, format!("no thread for a chain of plugins: {error}")))?;
            chain.threads.get_mut().push(thread);
        }
        Ok(chain)
    }

    /// Hands work in. What has the same `number` is judged and done in the order in which it came. Does not block; a full
    /// queue refuses it with `Busy`.
    pub fn push(&self, number: u64, work: W) {
        let lane = &self.lanes[(number % self.lanes.len() as u64) as usize];
        if let Err((work, failure)) = lane.push(number, work) {
            work.done(Err(failure), |_| ());
        }
    }

    /// What comes next is judged by another plan; instances are made anew.
    pub fn replace(&self, plan: Plan) {
        *self.shared.current.write() = current(plan);
    }

    pub fn plan(&self) -> Arc<Plan> {
        self.shared.current.read().0.clone()
    }

    /// Why one of its plugins is not asked at the moment, if one is not.
    pub fn resting(&self) -> Option<String> {
        self.shared.current.read().1.iter().find_map(Breaker::reason)
    }

    /// Whether nothing waits and nothing is in hand.
    pub fn is_idle(&self) -> bool {
        self.lanes.iter().all(|lane| {
            let state = lane.state.lock();
            state.queue.is_empty() && !state.busy
        })
    }

    pub fn logs(&self) -> Arc<Logs> {
        self.shared.logs.clone()
    }

    pub fn counts(&self) -> Counts {
        let Counters { read, sent, rejected, failed, unasked, traps, busy_ns, cpu_ns } = &*self.shared.counters;
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts {
            read: get(read),
            sent: get(sent),
            rejected: get(rejected),
            failed: get(failed),
            unasked: get(unasked),
            traps: get(traps),
            busy_ms: get(busy_ns) / 1_000_000,
            cpu: Duration::from_nanos(get(cpu_ns)),
        }
    }

    /// Refuses what waits and waits for the threads, for as long as a plugin may run once.
    pub fn stop(&self) {
        self.shared.stopping.store(true, Ordering::Release);
        self.lanes.iter().for_each(|lane| lane.close());
        for thread in self.threads.lock().drain(..) {
            if thread.join().is_err() {
                tracing::error!("a thread of a chain of plugins panicked");
            }
        }
    }
}

impl<W: Work> Drop for Chain<W> {
    /// Does not wait: the last handle may be gone with one of the threads' own work.
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::Release);
        self.lanes.iter().for_each(|lane| lane.close());
    }
}

impl<W> Default for Lane<W> {
    fn default() -> Self {
        let state = State { queue: VecDeque::new(), bytes: 0, busy: false, closed: false };
        Self { state: Mutex::new(state), rung: Condvar::new() }
    }
}

impl<W: Work> Lane<W> {
    fn push(&self, number: u64, work: W) -> std::result::Result<(), (W, Failure)> {
        let mut state = self.state.lock();
        if state.closed {
            return Err((work, stopping()));
        }
        if state.queue.len() >= COUNT_LIMIT || state.bytes >= BYTES_LIMIT {
            let text =
                format!("{} requests ({} bytes) wait for a plugin already: slow down", state.queue.len(), state.bytes);
            return Err((work, Failure::new(Kind::Busy, text)));
        }
        state.bytes += work.bytes();
        state.queue.push_back((number, work));
        drop(state);
        self.rung.notify_one();
        Ok(())
    }

    fn close(&self) {
        let left = {
            let mut state = self.state.lock();
            (state.closed, state.bytes) = (true, 0);
            std::mem::take(&mut state.queue)
        };
        self.rung.notify_one();
        for (_, work) in left {
            work.done(Err(stopping()), |_| ());
        }
    }

    /// Waits for work and takes some, with the numbers that it came under; `None` when no more comes.
    fn take(&self) -> Option<Vec<(u64, W)>> {
        let mut state = self.state.lock();
        state.busy = false;
        while state.queue.is_empty() {
            if state.closed {
                return None;
            }
            self.rung.wait(&mut state);
        }
        state.busy = true;
        let (mut taken, mut count) = (Vec::new(), 0);
        while count < TOGETHER
            && let Some((number, work)) = state.queue.pop_front()
        {
            count += work.count();
            state.bytes -= work.bytes();
            taken.push((number, work));
        }
        Some(taken)
    }

    /// One of so many threads of the chain.
    fn run(&self, number: u32, threads: u32, shared: &Shared, behind: impl Fn()) {
        priority::Standing::back();
        let mut calls = Calls::default();
        let judge = |current| {
            let (logs, counters) = (shared.logs.clone(), shared.counters.clone());
            Judge::new(current, number, logs, counters, shared.stopping.clone())
        };
        let mut current = judge(shared.current.read().clone());
        let mut serial = u64::try_from(clock::now().0).unwrap_or(0) << SERIAL_BITS;
        while let Some(taken) = self.take() {
            let wanted = shared.current.read().clone();
            if !Arc::ptr_eq(&wanted.0, current.plan()) {
                current = judge(wanted);
            }
            let done = |judged: &mut Vec<W>, plan: &Plan| {
                for work in judged.drain(..) {
                    let count = work.count();
                    work.done(Ok(plan), |sent| {
                        let sent = sent.min(count);
                        shared.counters.read.fetch_add(count as u64, Ordering::Relaxed);
                        shared.counters.sent.fetch_add(sent as u64, Ordering::Relaxed);
                        shared.counters.rejected.fetch_add((count - sent) as u64, Ordering::Relaxed);
                    });
                }
                behind();
            };
            judge_all(taken, &mut current, &calls, &mut serial, done);
            let wasted = current.wasted();
            if current.is_resting() && wasted.is_zero() {
                // Most of what comes now only passes.
                calls.returns();
            } else {
                calls.wasted(wasted);
                self.rest(priority::rest_of_chain(wasted, threads, current.plan().goes_unasked()));
            }
        }
    }

    /// Does nothing for so long, or until no more is taken.
    fn rest(&self, time: Duration) {
        if !time.is_zero() {
            self.rung.wait_while_for(&mut self.state.lock(), |state| !state.closed, time);
        }
    }
}

/// Messages that are to be judged together.
#[derive(Default)]
struct Run {
    given: Vec<Given>,
    senders: Vec<u64>,
    /// Which message of which work in hand each of them is.
    places: Vec<(usize, usize)>,
    bytes: usize,
}

impl Run {
    fn add(&mut self, record: Given, sender: u64, place: (usize, usize)) {
        self.bytes += record.as_ref().map_or(0, Record::size);
        self.given.push(record);
        self.senders.push(sender);
        self.places.push(place);
    }

    fn is_full(&self) -> bool {
        self.given.len() >= TOGETHER || self.bytes >= TOGETHER_BYTES
    }

    fn judge<W: Work>(self, hand: &mut [W], judge: &mut Judge, calls: &Calls) {
        let outcomes = judge.run(self.given, &self.senders, calls);
        for ((at, index), outcome) in self.places.into_iter().zip(outcomes) {
            hand[at].judged(index, outcome);
        }
    }
}

/// Judges all that was taken, in order. `done` gets what is judged as a whole, and leaves nothing of it.
fn judge_all<W: Work>(
    taken: Vec<(u64, W)>,
    judge: &mut Judge,
    calls: &Calls,
    serial: &mut u64,
    done: impl Fn(&mut Vec<W>, &Plan),
) {
    let needs = judge.plan().needs();
    let (mut hand, mut run) = (Vec::new(), Run::default());
    for (number, work) in taken {
        let count = work.count();
        hand.push(work);
        for index in 0..count {
            let at = hand.len() - 1;
            *serial += 1;
            run.add(hand[at].record(index, *serial, needs), number, (at, index));
            if run.is_full() {
                std::mem::take(&mut run).judge(&mut hand, judge, calls);
                let unfinished = if index + 1 < count { hand.pop() } else { None };
                done(&mut hand, judge.plan());
                hand.extend(unfinished);
            }
        }
    }
    run.judge(&mut hand, judge, calls);
    done(&mut hand, judge.plan());
}

fn stopping() -> Failure {
    Failure::new(Kind::Unavailable, "the plugins here are being stopped")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed test panics")]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    /// One message that says when it is done, and may wait for a sign before.
    struct One {
        number: usize,
        sign: Option<Receiver<()>>,
        done: Sender<(usize, Option<Kind>)>,
    }

    impl Work for One {
        fn count(&self) -> usize {
            1
        }

        fn bytes(&self) -> usize {
            0
        }

        fn record(&mut self, _: usize, _: u64, _: Columns) -> Given {
            if let Some(sign) = &self.sign {
                let _ = sign.recv();
            }
            Ok(Record::default())
        }

        fn judged(&mut self, index: usize, outcome: Outcome) {
            assert!(index == 0 && matches!(outcome, Outcome::Kept(..)));
        }

        fn done(self, judged: Result<&Plan>, count: impl FnOnce(usize)) {
            let (sent, failure) = (usize::from(judged.is_ok()), judged.err());
            count(sent);
            self.done.send((self.number, failure.map(|failure| failure.kind))).unwrap();
        }
    }

    /// A message that is as large as what is judged together, and is held until it is done.
    struct Large {
        held: Option<Record>,
        alive: Arc<AtomicU64>,
        most: Arc<AtomicU64>,
        done: Sender<()>,
    }

    impl Work for Large {
        fn count(&self) -> usize {
            1
        }

        fn bytes(&self) -> usize {
            0
        }

        fn record(&mut self, _: usize, _: u64, _: Columns) -> Given {
            let alive = self.alive.fetch_add(1, Ordering::Relaxed) + 1;
            self.most.fetch_max(alive, Ordering::Relaxed);
            Ok(Record { value: vec![0; TOGETHER_BYTES].into(), ..Record::default() })
        }

        fn judged(&mut self, _: usize, outcome: Outcome) {
            if let Outcome::Kept(record, _) = outcome {
                self.held = Some(record);
            }
        }

        fn done(self, _: Result<&Plan>, count: impl FnOnce(usize)) {
            assert!(self.held.is_some());
            self.alive.fetch_sub(1, Ordering::Relaxed);
            count(1);
            self.done.send(()).unwrap();
        }
    }

    #[test]
    fn what_is_large_once_decompressed_is_done_with_before_more_is() {
        let (alive, most): (Arc<AtomicU64>, Arc<AtomicU64>) = Default::default();
        let (done, told) = channel();
        let large = || (7, Large { held: None, alive: alive.clone(), most: most.clone(), done: done.clone() });
        let current = current(Plan::open("here".to_owned()));
        let mut judge = Judge::new(current, 0, Arc::default(), Arc::default(), Arc::default());
        let taken = (0..TOGETHER).map(|_| large()).collect();
        let done = |judged: &mut Vec<Large>, plan: &Plan| {
            judged.drain(..).for_each(|work| work.done(Ok(plan), |sent| assert_eq!(sent, 1)));
        };
        judge_all(taken, &mut judge, &Calls::default(), &mut 0, done);
        assert_eq!((told.try_iter().count(), most.load(Ordering::Relaxed)), (TOGETHER, 1));
    }

    #[test]
    fn what_waits_is_bounded_stays_in_order_and_is_answered_in_the_end() {
        let chain = Chain::start("test", Plan::open("here".to_owned()), || ()).unwrap();
        let (done, outcomes) = channel();
        let (go, sign) = channel();
        let one = |number, sign| One { number, sign, done: done.clone() };
        chain.push(7, one(0, Some(sign)));
        while !chain.lanes.iter().any(|lane| lane.state.lock().busy) {
            std::thread::yield_now();
        }
        (1..=COUNT_LIMIT).for_each(|number| chain.push(7, one(number, None)));
        chain.push(7, one(COUNT_LIMIT + 1, None));
        assert_eq!(outcomes.recv().unwrap(), (COUNT_LIMIT + 1, Some(Kind::Busy)));
        assert!(!chain.is_idle());
        go.send(()).unwrap();
        let order: Vec<_> = outcomes.iter().take(COUNT_LIMIT + 1).collect();
        assert_eq!(order, (0..=COUNT_LIMIT).map(|number| (number, None)).collect::<Vec<_>>());
        let (go, sign) = channel();
        chain.push(7, one(0, Some(sign)));
        while chain.lanes.iter().any(|lane| !lane.state.lock().queue.is_empty()) {
            std::thread::yield_now();
        }
        chain.push(7, one(1, None));
        std::thread::scope(|scope| {
            scope.spawn(|| chain.stop());
            assert_eq!(outcomes.recv().unwrap(), (1, Some(Kind::Unavailable)), "it is not judged any more");
            go.send(()).unwrap();
            assert_eq!(outcomes.recv().unwrap(), (0, None), "what was in hand is");
        });
        chain.push(7, one(2, None));
        assert_eq!(outcomes.recv().unwrap(), (2, Some(Kind::Unavailable)));
    }
}
