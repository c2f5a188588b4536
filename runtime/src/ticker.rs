use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// One tick of the deadlines.
pub(crate) const TICK: Duration = Duration::from_millis(1);
/// Ticks without a call after which the thread sleeps until the next one.
const IDLE_TICKS: u32 = 50;

struct Shared {
    calls: AtomicUsize,
    stop: AtomicBool,
}

/// Advances the engine's epoch once per millisecond while any plugin is being called, and sleeps otherwise.
pub(crate) struct Ticker {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Ticker {
    pub(crate) fn start(tick: impl Fn() + Send + 'static) -> std::io::Result<Ticker> {
        let shared = Arc::new(Shared { calls: AtomicUsize::new(0), stop: AtomicBool::new(false) });
        let theirs = Arc::clone(&shared);
        let thread = thread::Builder::new().name("plugin-ticker".into()).spawn(move || run(&theirs, &tick))?;
        Ok(Ticker { shared, thread: Some(thread) })
    }

    /// Ticks at least until the guard is dropped.
    pub(crate) fn calling(&self) -> Calling<'_> {
        if self.shared.calls.fetch_add(1, Ordering::SeqCst) == 0
            && let Some(thread) = &self.thread
        {
            thread.thread().unpark();
        }
        Calling(&self.shared)
    }
}

fn run(shared: &Shared, tick: &impl Fn()) {
    let mut idle = 0;
    while !shared.stop.load(Ordering::SeqCst) {
        if shared.calls.load(Ordering::SeqCst) == 0 {
            idle += 1;
        } else {
            idle = 0;
        }
        if idle > IDLE_TICKS {
            thread::park();
            idle = 0;
        } else {
            thread::sleep(TICK);
        }
        tick();
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

pub(crate) struct Calling<'a>(&'a Shared);

impl Drop for Calling<'_> {
    fn drop(&mut self) {
        self.0.calls.fetch_sub(1, Ordering::SeqCst);
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
        let call = ticker.calling();
        let start = Instant::now();
        while count.load(Ordering::SeqCst) < 100 {
            assert!(start.elapsed() < Duration::from_secs(10), "the ticker does not tick");
            thread::sleep(TICK);
        }
        drop(call);
        let settled = || {
            let before = count.load(Ordering::SeqCst);
            thread::sleep(TICK * 20);
            before == count.load(Ordering::SeqCst)
        };
        let start = Instant::now();
        while !settled() {
            assert!(start.elapsed() < Duration::from_secs(10), "the ticker never rests");
        }
    }
}
