//! The thread that writes the key index and makes checkpoints durable, so that nobody who waits for a message waits for that.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex};
use sluice_broker::{Checkpointer, Draft};
use sluice_model::LogOffset;

/// Time between two notes of how far the log is durable.
const MARK: Duration = Duration::from_secs(1);
/// After so many bytes of log it does beforehand what the next checkpoint needs.
const AHEAD_BYTES: u64 = 8 * 1024 * 1024;

/// The way to that thread.
pub(super) struct Checkpoints {
    work: Arc<Work>,
    thread: JoinHandle<Checkpointer>,
    /// Where it was last told to work ahead.
    ahead: LogOffset,
}

#[derive(Default)]
struct Work {
    todo: Mutex<Todo>,
    there: Condvar,
}

#[derive(Default)]
struct Todo {
    draft: Option<Draft>,
    ahead: bool,
    end: bool,
}

impl Checkpoints {
    pub fn start(checkpointer: Checkpointer, failed: Arc<AtomicBool>) -> io::Result<Self> {
        let work = Arc::new(Work::default());
        let worker = Worker { checkpointer, work: work.clone(), failed };
        let thread = std::thread::Builder::new().name("checkpoints".to_owned()).spawn(move || worker.run())?;
        Ok(Self { work, thread, ahead: LogOffset(0) })
    }

    /// Has a draft written.
    pub fn write(&self, draft: Draft) {
        self.tell(|todo| todo.draft = Some(draft));
    }

    /// The log is visible up to here.
    pub fn applied(&mut self, to: LogOffset) {
        if to.0 - self.ahead.0 >= AHEAD_BYTES {
            self.ahead = to;
            self.tell(|todo| todo.ahead = true);
        }
    }

    /// Waits until all is done, and ends the thread; `None` when it panicked.
    pub fn end(self) -> Option<Checkpointer> {
        self.tell(|todo| (todo.ahead, todo.end) = (true, true));
        self.thread.join().ok()
    }

    fn tell(&self, what: impl FnOnce(&mut Todo)) {
        what(&mut self.work.todo.lock());
        self.work.there.notify_one();
    }
}

impl Work {
    /// What there is to do by a time.
    fn take(&self, by: Instant) -> Todo {
        let mut todo = self.todo.lock();
        while todo.draft.is_none() && !todo.ahead && !todo.end {
            if self.there.wait_until(&mut todo, by).timed_out() {
                break;
            }
        }
        std::mem::take(&mut todo)
    }
}

/// Without checkpoints the log goes on for ever, and a start takes longer and longer: it does not go on without them.
struct Ending(Arc<AtomicBool>);

impl Drop for Ending {
    fn drop(&mut self) {
        if std::thread::panicking() {
            tracing::error!(
                "the thread of checkpoints panicked: the log takes nothing more until the broker is started again"
            );
            self.0.store(true, Ordering::Release);
        }
    }
}

struct Worker {
    checkpointer: Checkpointer,
    work: Arc<Work>,
    failed: Arc<AtomicBool>,
}

impl Worker {
    fn run(mut self) -> Checkpointer {
        let _ending = Ending(self.failed.clone());
        let mut mark = Instant::now() + MARK;
        loop {
            let Todo { draft, ahead, end } = self.work.take(mark);
            if let Some(draft) = draft {
                self.report("writing a checkpoint", |checkpointer| checkpointer.write(draft));
            }
            if ahead {
                self.report("writing the key index", Checkpointer::work_ahead);
            }
            if end {
                return self.checkpointer;
            }
            if Instant::now() >= mark {
                mark = Instant::now() + MARK;
                self.report("noting how far the log is durable", Checkpointer::mark_durable);
            }
        }
    }

    fn report<E: std::fmt::Display>(&mut self, doing: &str, act: impl FnOnce(&mut Checkpointer) -> Result<(), E>) {
        if !self.failed.load(Ordering::Acquire)
            && let Err(error) = act(&mut self.checkpointer)
        {
            tracing::warn!(%error, "{doing} failed; it will be tried again");
        }
    }
}
