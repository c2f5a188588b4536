use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// One tick of the deadlines.
pub(crate) const TICK: Duration = Duration::from_millis(1);
/// Ticks without a call after which the thread sleeps until the next one.
const IDLE_TICKS: u32 = 50;
/// Most ticks that are made up for after a long sleep.
const MOST_AT_ONCE: u32 = 100;

/// Counts of running calls, so that threads seldom write to the same one: many more than cores run plugins.
const COUNTS: usize = 32;

/// A count in cache lines of its own: the processor fetches them in pairs.
#[derive(Default)]
#[repr(align(128))]
struct Count(AtomicUsize);

struct Shared {
    calls: [Count; COUNTS],
    stop: AtomicBool,
    /// The thread rests: whoever calls has to wake it.
    resting: AtomicBool,
    /// Ticks so far.
    ticks: AtomicU64,
}

impl Shared {
    fn idle(&self) -> bool {
        self.calls.iter().all(|count| count.0.load(Ordering::SeqCst) == 0)
    }
}

/// The count of this thread.
fn own_count() -> usize {
    static THREADS: AtomicUsize = AtomicUsize::new(0);
    thread_local!(static OWN: usize = THREADS.fetch_add(1, Ordering::Relaxed) % COUNTS);
    OWN.with(|own| *own)
}

/// Advances the engine's epoch once per millisecond while any plugin is being called, and sleeps otherwise.
pub(crate) struct Ticker {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Ticker {
    pub(crate) fn start(tick: impl Fn() + Send + 'static) -> std::io::Result<Ticker> {
        let shared = Arc::new(Shared {
            calls: Default::default(),
            stop: AtomicBool::new(false),
            resting: AtomicBool::new(false),
            ticks: AtomicU64::new(0),
        });
        let theirs = Arc::clone(&shared);
        let thread = thread::Builder::new().name("plugin-ticker".into()).spawn(move || run(&theirs, &tick))?;
        Ok(Ticker { shared, thread: Some(thread) })
    }

    pub(crate) fn clock(&self) -> Clock {
        Clock(Arc::clone(&self.shared))
    }

    /// Ticks at least until the guard is dropped.
    pub(crate) fn calling(&self) -> Calling<'_> {
        let count = &self.shared.calls[own_count()].0;
        count.fetch_add(1, Ordering::SeqCst);
        // The thread says that it rests before it looks at the counts for the last time, so one of the two sees the other.
        if self.shared.resting.load(Ordering::SeqCst)
            && let Some(thread) = &self.thread
        {
            thread.thread().unpark();
        }
        Calling(count)
    }
}

fn run(shared: &Shared, tick: &impl Fn()) {
    let mut idle = 0;
    // Up to when there were ticks.
    let mut ticked = Instant::now();
    let advance = |ticks: u32| {
        for _ in 0..ticks {
            shared.ticks.fetch_add(1, Ordering::Relaxed);
            tick();
        }
    };
    while !shared.stop.load(Ordering::SeqCst) {
        idle = if shared.idle() { idle + 1 } else { 0 };
        if idle > IDLE_TICKS {
            shared.resting.store(true, Ordering::SeqCst);
            if shared.idle() && !shared.stop.load(Ordering::SeqCst) {
                thread::park();
            }
            shared.resting.store(false, Ordering::SeqCst);
            idle = 0;
            ticked = Instant::now();
        } else {
            thread::sleep(TICK);
        }
        // A sleep lasts longer than it should, on a busy machine several ticks, and the deadlines must not wait for it.
        let ticks = u32::try_from(ticked.elapsed().as_nanos() / TICK.as_nanos()).unwrap_or(u32::MAX);
        advance(ticks.min(MOST_AT_ONCE));
        ticked += TICK * ticks;
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // The thread cannot panic: it only sleeps and adds to a counter.
            let _ = thread.join();
        }
    }
}

/// Tells the ticks so far.
#[derive(Clone)]
pub(crate) struct Clock(Arc<Shared>);

impl Clock {
    pub(crate) fn now(&self) -> u64 {
        self.0.ticks.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
impl Clock {
    /// One that ticks only when it is told to.
    pub(crate) fn stopped() -> Self {
        let (stop, resting) = (AtomicBool::new(true), AtomicBool::new(false));
        Self(Arc::new(Shared { calls: Default::default(), stop, resting, ticks: AtomicU64::new(0) }))
    }

    pub(crate) fn advance(&self, ticks: u64) {
        self.0.ticks.fetch_add(ticks, Ordering::Relaxed);
    }
}

pub(crate) struct Calling<'a>(&'a AtomicUsize);

impl Drop for Calling<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[test]
    fn ticks_while_a_call_runs_and_rests_afterwards() {
        let count = Arc::new(AtomicUsize::new(0));
        let theirs = Arc::clone(&count);
        let ticker = Ticker::start(move || {
            theirs.fetch_add(1, Ordering::SeqCst);
        })
        .unwrap();
        let settled = || {
            let before = count.load(Ordering::SeqCst);
            thread::sleep(TICK * 20);
            before == count.load(Ordering::SeqCst)
        };
        // The second one comes from another thread, and wakes it.
        for _ in 0..2 {
            let call = || {
                let _call = ticker.calling();
                let (start, before) = (Instant::now(), count.load(Ordering::SeqCst));
                while count.load(Ordering::SeqCst) < before + 100 {
                    assert!(start.elapsed() < Duration::from_secs(10), "the ticker does not tick");
                    thread::sleep(TICK);
                }
            };
            thread::scope(|scope| scope.spawn(call).join()).unwrap();
            let start = Instant::now();
            while !settled() {
                assert!(start.elapsed() < Duration::from_secs(10), "the ticker never rests");
            }
        }
    }
}
