//! The broker's shell: what owns it, and the handle by which the doors reach it.
//!
//! The *writer* takes commands from a bounded queue, lets each stage its records, and writes them with one call; whoever
//! brings commands takes his turn at it ([`turns`]). The *disk* thread makes what was written durable, makes it visible, and
//! answers those who wait for the disk. While it waits for the disk, the next batch gathers: that is the group commit. A third thread
//! makes checkpoints durable.

mod backlog;
mod checkpoints;
mod commands;
mod disk;
mod others;
mod turns;
mod writer;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::sync_channel,
    },
    thread::JoinHandle,
};

use parking_lot::Mutex;
use sluice_broker::{Broker, Durability, Effect, Opened, Reader, Retention, Send, Sent};
use sluice_model::{Kind, Timestamp};
use sluice_runtime::ports::Portion;
use tokio::sync::oneshot;

use crate::failure::{Failure, Result};

use self::{
    others::{GivingWay, Others},
    turns::Turns,
};

/// Buffers kept for the next batches.
const BUFFERS_LIMIT: usize = 4;

/// Takes the result of a command, and whether it is one of so few that each may be told to its client by the thread that calls.
type Answer<T> = Box<dyn FnOnce(Result<T>, bool) + std::marker::Send>;
type Verb = Box<dyn FnOnce(&mut Broker, Timestamp) -> Option<Ack> + std::marker::Send>;

enum Command {
    Send(Send, Answer<Sent>),
    Call(Verb),
}

impl Command {
    /// Bytes of its messages.
    fn bytes(&self) -> usize {
        match self {
            Self::Send(send, _) => send.messages.iter().map(|message| message.body.len()).sum(),
            Self::Call(_) => 0,
        }
    }
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

    fn give(self, outcome: Result<()>, few: bool) {
        match self {
            Self::Sent(sent, answer) => answer(outcome.map(|()| sent), few),
            Self::Other(_, answer) => answer(outcome),
        }
    }
}

/// Answers told by one thread one after the other: a write to a socket each.
const FEW: usize = 4;

fn give(acks: Vec<Ack>, outcome: &Result<()>) {
    let few = acks.len() <= FEW;
    acks.into_iter().for_each(|ack| ack.give(outcome.clone(), few));
}

/// Where effects go; called from any thread, must not block.
pub type Effects = Arc<dyn Fn(Effect) + std::marker::Send + Sync>;

/// How the doors reach the broker's writer. Cheap to clone.
#[derive(Clone)]
pub struct Shell {
    turns: Arc<Turns>,
    failed: Arc<AtomicBool>,
    threads: Arc<Mutex<Vec<JoinHandle<()>>>>,
    others: Arc<Others>,
    /// What is sent is left to the writer's own thread, and gives way to others.
    standing_back: Option<Arc<GivingWay>>,
    pub reader: Reader,
    /// When the log lets go of old messages.
    pub retention: Retention,
}

impl Shell {
    /// Starts the threads.
    pub fn start(opened: Opened, retention: Retention, effects: Effects) -> std::io::Result<Self> {
        let (buffers, receive_buffers) = sync_channel(BUFFERS_LIMIT);
        let others = Arc::new(Others::default());
        let backlog = Arc::new(backlog::Backlog::new(others.clone()));
        let failed = Arc::new(AtomicBool::new(false));
        let reader = opened.reader;
        let checkpoints = checkpoints::Checkpoints::start(opened.checkpointer, failed.clone())?;
        let (sinks, applier) = ((buffers, checkpoints), opened.applier);
        let disk = disk::Disk::new(applier, retention, sinks, backlog.clone(), effects.clone(), failed.clone());
        let writer = writer::Writer::new(opened.broker, receive_buffers, backlog.clone(), effects, failed.clone());
        let turns = Arc::new(Turns::new(writer, backlog, failed.clone()));
        let own = turns.clone();
        let threads = vec![
            std::thread::Builder::new().name("writer".to_owned()).spawn(move || own.run())?,
            std::thread::Builder::new().name("disk".to_owned()).spawn(move || disk.run())?,
        ];
        let threads = Arc::new(Mutex::new(threads));
        Ok(Self { turns, failed, threads, others, standing_back: None, reader, retention })
    }

    /// Whether the log still takes records; once it failed it never does again.
    pub fn is_writable(&self) -> bool {
        !self.failed.load(Ordering::Acquire)
    }

    /// Sends messages; `answer` is called once, from any thread, when they are as safe as their topic asks.
    ///
    /// The caller is to call [`Self::work`] when he has no more to send for now: several messages go with one write so. The
    /// answer learns whether it is one of few, whose clients may be told by the calling thread.
    pub fn send(&self, send: Send, answer: impl FnOnce(Result<Sent>, bool) + std::marker::Send + 'static) {
        let count = send.messages.len();
        let command = Command::Send(send, Box::new(answer));
        if self.standing_back.is_none() {
            self.others.sent(count, command.bytes());
        }
        if let Err(refused) = self.turns.push(command)
            && let (Command::Send(_, answer), failure) = *refused
        {
            answer(Err(failure), false);
        }
    }

    /// A handle for threads that stand back: they never write themselves, since they may lose the processor at any moment, for long. Those that
    /// have clones of one handle give way to others together.
    pub fn standing_back(&self) -> Self {
        Self { standing_back: Some(Arc::default()), ..self.clone() }
    }

    /// Whether others sent something a moment ago that do not stand back.
    pub fn has_others(&self) -> bool {
        self.others.are_there()
    }

    /// How much to write next beside them, asked each time.
    pub fn portion(&self) -> Portion {
        self.standing_back.as_ref().map_or_else(Portion::default, |of| self.others.portion(of))
    }

    /// Does what was sent, or sees to it that it is done.
    pub fn work(&self) {
        if self.standing_back.is_some() { self.turns.leave() } else { self.turns.work() }
    }

    /// Runs a verb on the writer; `answer` is called once with its result, when what it staged is on disk.
    pub fn call<T: std::marker::Send + 'static>(
        &self,
        verb: impl FnOnce(&mut Broker, Timestamp) -> sluice_broker::Result<T> + std::marker::Send + 'static,
        answer: impl FnOnce(Result<T>) + std::marker::Send + 'static,
    ) {
        self.call_with(Durability::Sync, verb, answer);
    }

    /// [`Self::call`] for verbs whose outcome may be told before it is on disk.
    fn call_with<T: std::marker::Send + 'static>(
        &self,
        durability: Durability,
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
                Ok(value) => Some(Ack::Other(durability, Box::new(move |outcome| answer(outcome.map(|()| value))))),
            }
        });
        if let Err(refused) = self.turns.push(Command::Call(verb))
            && let Some(answer) = refuse.lock().take()
        {
            answer(Err(refused.1));
        }
        self.work();
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

    /// [`Self::ask`] that does not wait for the disk: for verbs that a crash may undo without anybody losing by it.
    pub async fn ask_async<T: std::marker::Send + 'static>(
        &self,
        verb: impl FnOnce(&mut Broker, Timestamp) -> sluice_broker::Result<T> + std::marker::Send + 'static,
    ) -> Result<T> {
        let (answer, receive) = oneshot::channel();
        self.call_with(Durability::Async, verb, move |result| drop(answer.send(result)));
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

    /// [`Self::ask_blocking`] that does not wait for the disk, as [`Self::ask_async`], but while much is on its way there: readers see what others
    /// send behind that only. Who stands back has one such write on its way at a time while others send.
    pub fn ask_blocking_async<T: std::marker::Send + 'static>(
        &self,
        verb: impl FnOnce(&mut Broker, Timestamp) -> sluice_broker::Result<T> + std::marker::Send + 'static,
    ) -> Result<T> {
        let last = self.standing_back.as_ref().map_or(0, |of| of.written.load(Ordering::Relaxed));
        self.turns.wait_for_calm(last);
        let (answer, receive) = sync_channel(1);
        self.call_with(Durability::Async, verb, move |result| drop(answer.try_send(result)));
        let done = receive.recv().unwrap_or_else(|_| Err(stopped()));
        if let Some(of) = &self.standing_back {
            of.written.store(self.turns.written(), Ordering::Relaxed);
        }
        done
    }

    /// Takes no more commands, finishes those it has, writes a checkpoint and ends the threads. Blocks until then.
    pub fn stop(&self) {
        self.turns.close();
        for thread in self.threads.lock().drain(..) {
            if thread.join().is_err() {
                tracing::error!("a thread of the broker panicked");
            }
        }
    }
}

fn stopped() -> Failure {
    Failure::new(Kind::Unavailable, "the broker is shutting down")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, reason = "a failed test panics")]
pub(crate) mod tests;
