//! The thread that makes checkpoints durable, so that nobody who waits for a message waits for them.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use sluice_broker::{Checkpointer, Draft};

/// Time between two notes of how far the log is durable.
const MARK: Duration = Duration::from_secs(1);

/// The way to that thread.
pub(super) struct Checkpoints {
    drafts: SyncSender<Draft>,
    thread: JoinHandle<Checkpointer>,
}

impl Checkpoints {
    pub fn start(checkpointer: Checkpointer, failed: Arc<AtomicBool>) -> io::Result<Self> {
        let (drafts, taken) = sync_channel(1);
        let worker = Worker { checkpointer, failed };
        let thread = std::thread::Builder::new().name("checkpoints".to_owned()).spawn(move || worker.run(&taken))?;
        Ok(Self { drafts, thread })
    }

    /// Has a draft written; does not wait, since only one is out at a time.
    pub fn write(&self, draft: Draft) {
        if self.drafts.try_send(draft).is_err() {
            tracing::warn!("a checkpoint was not written: its thread is gone");
        }
    }

    /// Waits for what is being written, and ends the thread; `None` when it panicked.
    pub fn end(self) -> Option<Checkpointer> {
        drop(self.drafts);
        self.thread.join().ok()
    }
}

struct Worker {
    checkpointer: Checkpointer,
    failed: Arc<AtomicBool>,
}

impl Worker {
    fn run(mut self, drafts: &Receiver<Draft>) -> Checkpointer {
        let mut mark = Instant::now() + MARK;
        loop {
            match drafts.recv_timeout(mark.saturating_duration_since(Instant::now())) {
                Ok(draft) => self.report("writing a checkpoint", |checkpointer| checkpointer.write(draft)),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return self.checkpointer,
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
