//! The broker's shell: two threads that own it, and the handle by which the doors reach them.
//!
//! The *writer* thread drains a bounded queue of commands, lets each stage its records, and writes them with one call.
//! The *disk* thread makes what was written durable, makes it visible, and answers those who wait for the disk. While it
//! waits for the disk, the next batch gathers: that is the group commit, and there is no timer in it.

mod backlog;
mod disk;
mod writer;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{SyncSender, TrySendError, sync_channel},
    },
    thread::JoinHandle,
};

use parking_lot::Mutex;
use sluice_broker::{Broker, Durability, Effect, Opened, Reader, Retention, Send, Sent};
use sluice_model::{Kind, Timestamp};
use tokio::sync::oneshot;

use crate::failure::{Failure, Result};

/// Commands that may wait for the writer.
const COMMANDS_LIMIT: usize = 16_384;
/// Written batches that may wait for the disk: many, since each may be one message; their bytes are bounded as well.
const BATCHES_LIMIT: usize = 4_096;
/// Buffers kept for the next batches.
const BUFFERS_LIMIT: usize = 4;

pub type Answer<T> = Box<dyn FnOnce(Result<T>) + std::marker::Send>;
type Verb = Box<dyn FnOnce(&mut Broker, Timestamp) -> Option<Ack> + std::marker::Send>;

enum Command {
    Send(Send, Answer<Sent>),
    Call(Verb),
    Stop,
}

/// An answer that waits for its records to be written, or to be on disk.
enum Ack {
    Sent(Sent, Answer<Sent>),
    Other(Durability, Box<dyn FnOnce(Result<()>) + std::marker::Send>),
}

impl Ack {
    fn durability(&self) -> Durability {
        match self {
            Self::Sent(sent, _) => sent.durability,
            Self::Other(durability, _) => *durability,
        }
    }

    fn give(self, outcome: Result<()>) {
        match self {
            Self::Sent(sent, answer) => answer(outcome.map(|()| sent)),
            Self::Other(_, answer) => answer(outcome),
        }
    }
}

/// Where effects go; called from both threads, must not block.
pub type Effects = Arc<dyn Fn(Effect) + std::marker::Send + Sync>;

/// How the doors reach the broker's writer. Cheap to clone.
#[derive(Clone)]
pub struct Shell {
    commands: SyncSender<Command>,
    failed: Arc<AtomicBool>,
    threads: Arc<Mutex<Vec<JoinHandle<()>>>>,
    pub reader: Reader,
}

impl Shell {
    /// Starts the two threads.
    pub fn start(opened: Opened, retention: Retention, effects: Effects) -> std::io::Result<Self> {
        let (commands, receive_commands) = sync_channel(COMMANDS_LIMIT);
        let (batches, receive_batches) = sync_channel(BATCHES_LIMIT);
        let (buffers, receive_buffers) = sync_channel(BUFFERS_LIMIT);
        let backlog = Arc::new(backlog::Backlog::default());
        let failed = Arc::new(AtomicBool::new(false));
        let reader = opened.reader;
        let disk =
            disk::Disk::new(opened.applier, retention, buffers, backlog.clone(), effects.clone(), failed.clone());
        let writer = writer::Writer::new(opened.broker, batches, receive_buffers, backlog, effects, failed.clone());
        let threads = vec![
            std::thread::Builder::new().name("writer".to_owned()).spawn(move || writer.run(receive_commands))?,
            std::thread::Builder::new().name("disk".to_owned()).spawn(move || disk.run(receive_batches))?,
        ];
        Ok(Self { commands, failed, threads: Arc::new(Mutex::new(threads)), reader })
    }

    /// Whether the log still takes records; once it failed it never does again.
    pub fn is_writable(&self) -> bool {
        !self.failed.load(Ordering::Acquire)
    }

    /// Sends messages; `answer` is called once, from a thread of the shell, when they are as safe as their topic asks.
    pub fn send(&self, send: Send, answer: impl FnOnce(Result<Sent>) + std::marker::Send + 'static) {
        if let Err(refused) = self.commands.try_send(Command::Send(send, Box::new(answer))) {
            let failure = refusal(&refused);
            if let TrySendError::Full(Command::Send(_, answer)) | TrySendError::Disconnected(Command::Send(_, answer)) =
                refused
            {
                answer(Err(failure));
            }
        }
    }

    /// Runs a verb on the writer; `answer` is called once with its result, when what it staged is on disk.
    pub fn call<T: std::marker::Send + 'static>(
        &self,
        verb: impl FnOnce(&mut Broker, Timestamp) -> sluice_broker::Result<T> + std::marker::Send + 'static,
        answer: impl FnOnce(Result<T>) + std::marker::Send + 'static,
    ) {
        let answer = Arc::new(Mutex::new(Some(answer)));
        let refuse = answer.clone();
        let verb: Verb = Box::new(move |broker, now| {
            let answer = answer.lock().take()?;
            match verb(broker, now) {
                Err(error) => {
                    answer(Err(error.into()));
                    None
                }
                Ok(value) => {
                    Some(Ack::Other(Durability::Sync, Box::new(move |outcome| answer(outcome.map(|()| value)))))
                }
            }
        });
        if let Err(refused) = self.commands.try_send(Command::Call(verb))
            && let Some(answer) = refuse.lock().take()
        {
            answer(Err(refusal(&refused)));
        }
    }

    /// [`Self::call`] for callers that can wait.
    pub async fn ask<T: std::marker::Send + 'static>(
        &self,
        verb: impl FnOnce(&mut Broker, Timestamp) -> sluice_broker::Result<T> + std::marker::Send + 'static,
    ) -> Result<T> {
        let (answer, receive) = oneshot::channel();
        self.call(verb, move |result| drop(answer.send(result)));
        receive.await.unwrap_or_else(|_| Err(stopped()))
    }

    /// [`Self::call`] for threads that may block.
    pub fn ask_blocking<T: std::marker::Send + 'static>(
        &self,
        verb: impl FnOnce(&mut Broker, Timestamp) -> sluice_broker::Result<T> + std::marker::Send + 'static,
    ) -> Result<T> {
        let (answer, receive) = sync_channel(1);
        self.call(verb, move |result| drop(answer.try_send(result)));
        receive.recv().unwrap_or_else(|_| Err(stopped()))
    }

    /// Takes no more commands, finishes those it has, writes a checkpoint and ends both threads. Blocks until then.
    pub fn stop(&self) {
        // A full queue drains; a stopped shell is stopped.
        let _ = self.commands.send(Command::Stop);
        for thread in self.threads.lock().drain(..) {
            if thread.join().is_err() {
                tracing::error!("a thread of the broker panicked");
            }
        }
    }
}

fn refusal(refused: &TrySendError<Command>) -> Failure {
    match refused {
        TrySendError::Full(_) => {
            let text = format!("{COMMANDS_LIMIT} requests wait for the log already: slow down and try again");
            Failure::new(Kind::Busy, text)
        }
        TrySendError::Disconnected(_) => stopped(),
    }
}

fn stopped() -> Failure {
    Failure::new(Kind::Unavailable, "the broker is shutting down")
}
