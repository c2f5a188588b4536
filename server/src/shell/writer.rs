//! The thread that owns the broker's writer.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError},
    },
    time::{Duration, Instant},
};

use sluice_broker::{Broker, Durability, Written};

use super::{Ack, Command, Effects, backlog::Backlog};
use crate::{clock, failure::Failure};

/// Commands taken into one write, at the most.
const BATCH_COMMANDS: usize = 4_096;
/// Bytes after which a write is made even though more commands wait.
const BATCH_BYTES: usize = 4 * 1024 * 1024;
const TICK: Duration = Duration::from_millis(50);
/// Ticks between two looks at undecided half messages and uncommitted offsets.
const SLOW_TICKS: u32 = 10;
/// Ticks between two tries to move documents out of the oldest segment.
const CARRY_TICKS: u32 = 1_200;
/// Units of delayed messages delivered in one tick, at the most.
const DELIVERIES: usize = 64;

/// What was written, and who waits for it to be on disk.
pub(super) struct Batch {
    pub written: Option<Written>,
    pub acks: Vec<Ack>,
}

pub(super) struct Writer {
    broker: Broker,
    batches: SyncSender<Batch>,
    buffers: Receiver<Vec<u8>>,
    backlog: Arc<Backlog>,
    effects: Effects,
    failed: Arc<AtomicBool>,
    acks: Vec<Ack>,
    ticks: u32,
}

impl Writer {
    pub fn new(
        broker: Broker,
        batches: SyncSender<Batch>,
        buffers: Receiver<Vec<u8>>,
        backlog: Arc<Backlog>,
        effects: Effects,
        failed: Arc<AtomicBool>,
    ) -> Self {
        Self { broker, batches, buffers, backlog, effects, failed, acks: Vec::new(), ticks: 0 }
    }

    pub fn run(mut self, commands: Receiver<Command>) {
        let mut tick = Instant::now() + TICK;
        loop {
            let mut stop = false;
            match commands.recv_timeout(tick.saturating_duration_since(Instant::now())) {
                Ok(first) => {
                    stop = self.execute(first);
                    stop |= self.drain(&commands);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => stop = true,
            }
            if Instant::now() >= tick {
                self.tick();
                tick = Instant::now() + TICK;
            }
            if stop {
                let recorded = self.broker.record_offsets(clock::now());
                self.log_failure("recording offsets", recorded);
            }
            self.write();
            if stop {
                return;
            }
        }
    }

    /// Takes what else waits, up to a bound; answers whether the shell is to stop.
    fn drain(&mut self, commands: &Receiver<Command>) -> bool {
        for _ in 0..BATCH_COMMANDS {
            if self.broker.staged_bytes() >= BATCH_BYTES {
                return false;
            }
            match commands.try_recv() {
                Ok(command) => {
                    if self.execute(command) {
                        return true;
                    }
                }
                Err(TryRecvError::Empty) => return false,
                Err(TryRecvError::Disconnected) => return true,
            }
        }
        false
    }

    fn execute(&mut self, command: Command) -> bool {
        match command {
            Command::Send(send, answer) => match self.broker.send(send, clock::now()) {
                Ok(sent) => self.acks.push(Ack::Sent(sent, answer)),
                Err(error) => answer(Err(error.into())),
            },
            Command::Call(verb) => self.acks.extend(verb(&mut self.broker, clock::now())),
            Command::Stop => return true,
        }
        false
    }

    fn tick(&mut self) {
        self.ticks = self.ticks.wrapping_add(1);
        let now = clock::now();
        for _ in 0..DELIVERIES {
            match self.broker.deliver_due(now) {
                Ok(true) => self.write(),
                Ok(false) => break,
                Err(error) => {
                    self.log_failure("delivering delayed messages", Err(error));
                    break;
                }
            }
        }
        if self.ticks.is_multiple_of(SLOW_TICKS) {
            let checked = self.broker.check_halves(now);
            self.log_failure("checking half messages", checked);
            let recorded = self.broker.record_offsets(now);
            self.log_failure("recording offsets", recorded);
        }
        if self.ticks.is_multiple_of(CARRY_TICKS) {
            let carried = self.broker.carry_documents(now).map(drop);
            self.log_failure("carrying documents forward", carried);
        }
    }

    /// One write for all that is staged; then whoever does not wait for the disk is answered.
    fn write(&mut self) {
        while let Ok(buffer) = self.buffers.try_recv() {
            self.broker.recycle(buffer);
        }
        match self.broker.write() {
            Err(error) => {
                self.failed.store(true, Ordering::Release);
                let failure = Failure::from(error);
                self.acks.drain(..).for_each(|ack| ack.give(Err(failure.clone())));
            }
            Ok(written) => {
                let now = self.acks.extract_if(.., |ack| ack.durability() == Durability::Async);
                now.for_each(|ack| ack.give(Ok(())));
                let acks = std::mem::take(&mut self.acks);
                if written.is_some() || !acks.is_empty() {
                    self.backlog.grow(written.as_ref().map_or(0, |written| written.bytes.len()));
                    // The disk thread ends after this one.
                    let _ = self.batches.send(Batch { written, acks });
                }
            }
        }
        self.broker.take_effects().into_iter().for_each(|effect| (self.effects)(effect));
    }

    fn log_failure(&self, doing: &str, result: sluice_broker::Result<()>) {
        if let Err(error) = result
            && !self.failed.load(Ordering::Acquire)
        {
            tracing::warn!(%error, "{doing} failed; it will be tried again");
        }
    }
}
