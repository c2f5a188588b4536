//! Threads that run plugins stand back behind those that serve sockets, the log and the disk.

use std::cell::Cell;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::process::Pid;
use sluice_runtime::Compilers;
use thread_priority::{
    NormalThreadSchedulePolicy, ThreadId, ThreadPriority, ThreadSchedulePolicy, set_thread_priority_and_policy,
    thread_native_id,
};

const USUAL: ThreadSchedulePolicy = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Other);
/// How much nicer they are (`nice(2)`): beside a thread that serves, one of them gets about a tenth of the processor that both want.
const NICER: i32 = 10;
/// A thread rests so many times as long as calls had the processor that came to nothing, and so many times longer as there are others that
/// rest: what fails on everything has a thirtieth of a processor, all together, as long as no rest would be longer than its limit. What
/// runs a tenth of the time meets one wake-up in a hundred of those beside it, which is the 99th percentile that must not change.
const RESTS: u32 = 29;
pub const REST_LIMIT: Duration = Duration::from_secs(60);
/// What a thread may waste without a rest: the same part of the time in which it wasted nothing, up to this. One bad record in an hour holds
/// up nothing.
const SAVED_LIMIT: Duration = Duration::from_millis(100);
/// What part of a processor the threads of a chain have together for such calls: a quarter.
const CHAIN_PART: u32 = 4;
/// Senders wait behind a thread of a chain, or consumers, which are more patient.
const SENDERS_WAIT: Duration = Duration::from_secs(1);
const CONSUMERS_WAIT: Duration = Duration::from_secs(5);

/// For how long a thread runs only where nobody else wants to, as a multiple of the time that was wasted; and the longest such time.
const IDLE_TIMES: u32 = 100;
const IDLE_LIMIT: Duration = Duration::from_secs(10);

/// How the calling thread is scheduled.
pub struct Standing {
    nice: i32,
    /// Until when it runs only where nobody else wants to.
    idle_until: Option<Instant>,
    saved: Saved,
}

/// What a thread may waste yet without a rest.
struct Saved {
    time: Duration,
    /// Since when it saves.
    since: Instant,
}

impl Saved {
    /// What of this is more than it saved.
    fn spend(&mut self, wasted: Duration, now: Instant) -> Duration {
        let since = now.saturating_duration_since(self.since);
        let saved = (self.time + since / (RESTS + 1)).min(SAVED_LIMIT);
        (self.time, self.since) = (saved.saturating_sub(wasted), now);
        wasted.saturating_sub(saved)
    }
}

impl Standing {
    /// Lowers the priority of the calling thread for good. What it asks of the broker has to be left to others, see
    /// [`Shell::standing_back`]: who holds the writer and does not get the processor holds up everybody.
    ///
    /// [`Shell::standing_back`]: crate::shell::Shell::standing_back
    pub fn back() -> Self {
        // On Linux a thread has a priority of its own.
        let nice = rustix::process::getpriority_process(None).unwrap_or(0).saturating_add(NICER);
        set_nice(nice);
        let saved = Saved { time: Duration::ZERO, since: Instant::now() };
        Self { nice, idle_until: None, saved }
    }

    /// Notes the processor time of the thread's last calls that came to nothing. To be called before work as well, with nothing.
    ///
    /// A thread that is merely nicer keeps the processor for a few milliseconds once it has it, whoever wakes up; where plugins fail on
    /// everything, serving threads would meet that all the time. One that wasted its time gives way at once, for a while. The process has to be
    /// allowed to end that: without (root, `CAP_SYS_NICE`, or a limit of nice values that includes this one) it is nicer and no more.
    pub fn wasted(&mut self, wasted: Duration) {
        let now = Instant::now();
        if !wasted.is_zero() {
            let until = now + idle_time(wasted);
            if self.idle_until.is_none() && !(may_return() && set_policy(NormalThreadSchedulePolicy::Idle, self.nice)) {
                return;
            }
            self.idle_until = self.idle_until.max(Some(until));
        } else if self.idle_until.is_some_and(|until| until <= now)
            && set_policy(NormalThreadSchedulePolicy::Other, self.nice)
        {
            self.idle_until = None;
        }
    }
}

impl Standing {
    /// How long the thread is to rest after so much processor time was wasted, for what is more than it saved; this long at the most.
    pub fn rest(&mut self, wasted: Duration, limit: Duration) -> Duration {
        if wasted.is_zero() {
            return Duration::ZERO;
        }
        let now = Instant::now();
        let rest = rest(self.saved.spend(wasted, now), limit);
        // It saves nothing while it rests.
        self.saved.since = now + rest;
        rest
    }
}

/// For how long a thread gives way after so much processor time was wasted.
fn idle_time(wasted: Duration) -> Duration {
    wasted.saturating_mul(IDLE_TIMES).min(IDLE_LIMIT)
}

/// How a thread that stands back works beside others: where nobody else wants to run, as long as it gets its part there. One that is merely nicer
/// keeps the processor for some milliseconds once it has it, and others would wait for that all the time where it always has work.
#[derive(Default)]
pub struct Courtesy {
    /// Until when it does not: it did not get on.
    pressed_until: Option<Instant>,
}

/// A thread that was kept from the processor for more than this multiple of the time that it had it works beside others for a while.
const PRESSED: u32 = 4;
const PRESSED_FOR: Duration = Duration::from_millis(50);

impl Courtesy {
    /// Whether to work aside while there are others.
    pub fn gives_way(&self) -> bool {
        self.pressed_until.is_none_or(|until| Instant::now() >= until)
    }

    /// So it went: work that waited for nothing but the processor took so long, and had it for so long.
    pub fn worked(&mut self, took: Duration, had: Duration) {
        if took > had * (PRESSED + 1) + Duration::from_millis(1) {
            self.pressed_until = Some(Instant::now() + PRESSED_FOR);
        }
    }
}

/// How a thread calls plugins that takes locks between its calls which everybody needs: only the calls give way, for whoever loses the processor
/// while he holds such a lock holds up all others.
#[derive(Default)]
pub struct Calls {
    /// Until when they are made where nobody else wants to run.
    idle_until: Option<Instant>,
}

impl Calls {
    /// Notes the processor time of calls that came to nothing.
    pub fn wasted(&mut self, wasted: Duration) {
        if !wasted.is_zero() {
            self.idle_until = self.idle_until.max(Some(Instant::now() + idle_time(wasted)));
        }
    }

    /// What comes now is like what others do.
    pub fn returns(&mut self) {
        self.idle_until = None;
    }

    /// Makes a call.
    pub fn run<T>(&self, call: impl FnOnce() -> T) -> T {
        if self.idle_until.is_some_and(|until| Instant::now() < until) { aside(call) } else { call() }
    }
}

thread_local! {
    /// The calling thread runs only where nobody else wants to.
    static ASIDE: Cell<bool> = const { Cell::new(false) };
}

fn set_nice(nice: i32) {
    if let Err(error) = rustix::process::setpriority_process(None, nice) {
        tracing::debug!(%error, "a thread of plugins keeps its priority");
    }
}

/// Whether it is so by now, and with the nice value as well, which the change forgets.
fn set_policy(policy: NormalThreadSchedulePolicy, nice: i32) -> bool {
    let wanted = ThreadSchedulePolicy::Normal(policy);
    let set = set_thread_priority_and_policy(thread_native_id(), ThreadPriority::Min, wanted).is_ok();
    if set {
        ASIDE.set(matches!(policy, NormalThreadSchedulePolicy::Idle));
    }
    set && rustix::process::setpriority_process(None, nice).is_ok()
}

/// Whether a thread that runs only where nobody else wants to may be one like others again; tried once, by a thread that ends.
fn may_return() -> bool {
    static MAY: LazyLock<bool> = LazyLock::new(|| {
        let there_and_back = || {
            let nice = Standing::back().nice;
            set_policy(NormalThreadSchedulePolicy::Idle, nice) && set_policy(NormalThreadSchedulePolicy::Other, nice)
        };
        std::thread::Builder::new().spawn(there_and_back).is_ok_and(|thread| thread.join().unwrap_or(false))
    });
    *MAY
}

/// Does what may well come to nothing where nobody else wants to run.
pub fn aside<T>(work: impl FnOnce() -> T) -> T {
    let nice = rustix::process::getpriority_process(None).unwrap_or(NICER);
    let usual = thread_priority::thread_schedule_policy() == Ok(USUAL);
    let aside = usual && may_return() && set_policy(NormalThreadSchedulePolicy::Idle, nice);
    let done = work();
    if aside {
        set_policy(NormalThreadSchedulePolicy::Other, nice);
    }
    done
}

/// Does what takes locks that everybody needs, on a thread that may run only where nobody else wants to: who loses the processor while he holds one
/// holds up all others.
pub fn upright<T>(work: impl FnOnce() -> T) -> T {
    if !ASIDE.get() {
        return work();
    }
    let nice = rustix::process::getpriority_process(None).unwrap_or(NICER);
    set_policy(NormalThreadSchedulePolicy::Other, nice);
    let done = work();
    set_policy(NormalThreadSchedulePolicy::Idle, nice);
    done
}

/// For how long an upload is compiled where nobody else wants to run, and then beside others after all.
const COMPILED_ASIDE: Duration = Duration::from_secs(3);

/// A thread that compiles.
struct Compiler {
    thread: ThreadId,
    id: Pid,
    nice: i32,
}

static COMPILERS: Mutex<Vec<Compiler>> = Mutex::new(Vec::new());
/// They run beside others.
static COMPILERS_HURRY: AtomicBool = AtomicBool::new(false);

/// Has the threads that compile uploads give way to all others, which would meet them all the time while somebody uploads; but no upload waits
/// for ever on a machine that has no time to spare.
pub fn compilers() -> Compilers {
    // Half of the processors: the rest is there at once for whoever has something to do.
    let threads = std::thread::available_parallelism().map_or(1, |processors| processors.get().div_ceil(2));
    Compilers { threads, begin: compiler_begins, end: compiler_ends, waiting: compilers_are_waited_for }
}

fn compiler_begins() {
    let nice = Standing::back().nice;
    if may_return() {
        set_policy(NormalThreadSchedulePolicy::Idle, nice);
        COMPILERS.lock().push(Compiler { thread: thread_native_id(), id: rustix::thread::gettid(), nice });
    }
}

fn compiler_ends() {
    let id = rustix::thread::gettid();
    COMPILERS.lock().retain(|compiler| compiler.id != id);
}

fn compilers_are_waited_for(since: Duration) {
    let hurry = since >= COMPILED_ASIDE;
    if COMPILERS_HURRY.swap(hurry, Ordering::AcqRel) == hurry {
        return;
    }
    let policy = if hurry { NormalThreadSchedulePolicy::Other } else { NormalThreadSchedulePolicy::Idle };
    let set = move || {
        // None of them ends meanwhile.
        for Compiler { thread, id, nice } in COMPILERS.lock().iter() {
            let policy = ThreadSchedulePolicy::Normal(policy);
            let set = set_thread_priority_and_policy(*thread, ThreadPriority::Min, policy);
            if set.is_err() || rustix::process::setpriority_process(Some(*id), *nice).is_err() {
                tracing::debug!(?id, "a thread that compiles keeps its priority");
            }
        }
    };
    // The library changes the calling thread's nice value as well: one that ends then.
    if let Err(error) = std::thread::Builder::new().spawn(set) {
        tracing::debug!(%error, "the threads that compile keep their priority");
    }
}

/// When those that rest at the moment go on.
static RESTING: Mutex<Vec<Instant>> = Mutex::new(Vec::new());

/// How long somebody is to rest after so much processor time was wasted, this long at the most; counts as resting until then, be it that the
/// rest is cut short.
pub fn rest(wasted: Duration, limit: Duration) -> Duration {
    if wasted.is_zero() {
        return Duration::ZERO;
    }
    let now = Instant::now();
    let mut resting = RESTING.lock();
    resting.retain(|until| now < *until);
    let rest = rest_beside(wasted, resting.len()).min(limit);
    resting.push(now + rest);
    rest
}

fn rest_beside(wasted: Duration, others: usize) -> Duration {
    let threads = u32::try_from(others).unwrap_or(u32::MAX).saturating_add(1);
    wasted.saturating_mul(RESTS).saturating_mul(threads)
}

/// How long each of the threads of a chain is to rest, behind which senders may wait or consumers only.
pub fn rest_of_chain(wasted: Duration, threads: u32, senders: bool) -> Duration {
    let limit = if senders { SENDERS_WAIT } else { CONSUMERS_WAIT };
    wasted.saturating_mul((CHAIN_PART * threads).saturating_sub(1)).min(limit)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed test panics")]
mod tests {
    use super::*;

    #[test]
    fn a_rest_is_longer_than_what_was_wasted_and_has_an_end() {
        let ms = Duration::from_millis;
        assert_eq!(rest_beside(Duration::ZERO, 3), Duration::ZERO);
        assert_eq!(rest_beside(ms(10), 0), ms(290));
        assert_eq!(rest_beside(ms(10), 4), ms(5 * 290), "all five have as much as one");
        assert_eq!(rest(Duration::from_secs(3600), REST_LIMIT), REST_LIMIT);
        // Four threads, each a sixteenth of its time.
        assert_eq!(rest_of_chain(Duration::from_millis(10), 4, true), Duration::from_millis(150));
        assert_eq!(rest_of_chain(Duration::from_secs(1), 1, true), SENDERS_WAIT);
        assert_eq!(rest_of_chain(Duration::from_secs(2), 1, false), CONSUMERS_WAIT);
    }

    #[test]
    fn who_gives_way_does_not_do_so_where_it_gets_nothing() {
        let ms = Duration::from_millis;
        let mut courtesy = Courtesy::default();
        courtesy.worked(ms(5), ms(1));
        courtesy.worked(ms(1), Duration::ZERO);
        assert!(courtesy.gives_way(), "a fifth of the time is enough, and a millisecond says little");
        courtesy.worked(ms(20), ms(1));
        assert!(!courtesy.gives_way());
        std::thread::sleep(PRESSED_FOR);
        assert!(courtesy.gives_way());
    }

    #[test]
    fn who_seldom_wastes_time_does_not_rest() {
        let ms = Duration::from_millis;
        let start = Instant::now();
        let mut saved = Saved { time: Duration::ZERO, since: start };
        assert_eq!(saved.spend(ms(10), start), ms(10), "it begins with nothing");
        assert_eq!(saved.spend(ms(10), start + ms(600)), Duration::ZERO);
        assert_eq!(saved.spend(ms(30), start + ms(1_200)), Duration::ZERO, "10 were left, and 20 more saved");
        assert_eq!(saved.spend(ms(10), start + ms(1_200)), ms(10));
        let hour = Duration::from_secs(3600);
        assert_eq!(saved.spend(ms(150), start + hour), ms(150).saturating_sub(SAVED_LIMIT));
    }

    #[test]
    fn only_the_calling_thread_stands_back() {
        let priority = || rustix::process::getpriority_process(None).unwrap();
        let before = priority();
        let of_another = std::thread::spawn(move || {
            Standing::back();
            priority()
        });
        assert_eq!(of_another.join().unwrap(), (before + NICER).min(19));
        assert_eq!(priority(), before);
    }

    #[test]
    fn only_calls_give_way_where_others_wait_for_the_thread() {
        let policy = || thread_priority::thread_schedule_policy().unwrap();
        let idle = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Idle);
        let mut calls = Calls::default();
        let usual = policy();
        assert_eq!(calls.run(policy), usual);
        calls.wasted(Duration::from_secs(1));
        assert_eq!((calls.run(policy), policy()), (if may_return() { idle } else { usual }, usual));
        calls.wasted(Duration::ZERO);
        assert_eq!(calls.run(policy), if may_return() { idle } else { usual });
        calls.returns();
        assert_eq!(calls.run(policy), usual);
    }

    #[test]
    fn those_who_compile_give_way_until_somebody_waited_for_long() {
        let nice = || rustix::process::getpriority_process(None).unwrap();
        let policy = || thread_priority::thread_schedule_policy().unwrap();
        let its_own = (policy(), nice());
        let usual = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Other);
        let idle = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Idle);
        let (tell, told) = std::sync::mpsc::channel();
        let compiler = std::thread::spawn(move || {
            compiler_begins();
            let at_first = policy();
            tell.send(()).unwrap();
            let until = Instant::now() + Duration::from_secs(10);
            while policy() != usual && Instant::now() < until {
                std::thread::yield_now();
            }
            // Whoever changes it is done with that.
            compiler_ends();
            (at_first, policy(), nice())
        });
        told.recv().unwrap();
        compilers_are_waited_for(Duration::ZERO);
        compilers_are_waited_for(COMPILED_ASIDE);
        let at_first = if may_return() { idle } else { usual };
        assert_eq!(compiler.join().unwrap(), (at_first, usual, (its_own.1 + NICER).min(19)));
        assert_eq!((policy(), nice()), its_own, "only they are changed");
        assert!(COMPILERS.lock().is_empty());
        compilers_are_waited_for(Duration::ZERO);
    }

    #[test]
    fn who_wasted_time_gives_way_for_a_while() {
        let seen = std::thread::spawn(|| {
            let policy = || thread_priority::thread_schedule_policy().unwrap();
            let nice = || rustix::process::getpriority_process(None).unwrap();
            let mut standing = Standing::back();
            let (first, at_first) = (policy(), nice());
            standing.wasted(Duration::from_millis(1));
            let then = policy();
            assert_eq!((upright(|| (policy(), nice())), policy()), ((first, at_first), then));
            standing.wasted(Duration::ZERO);
            assert_eq!(policy(), then, "too early");
            std::thread::sleep(Duration::from_millis(110));
            standing.wasted(Duration::ZERO);
            assert_eq!((policy(), nice()), (first, at_first));
            (first, then)
        });
        let (first, then) = seen.join().unwrap();
        let idle = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Idle);
        assert_eq!(then, if may_return() { idle } else { first });
    }
}
