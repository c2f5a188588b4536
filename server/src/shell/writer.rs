//! The owner of the broker's writing side, and what one turn of it does.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
    mpsc::Receiver,
};

use sluice_broker::{Broker, Durability};

use super::{
    Ack, Command, Effects,
    backlog::{Backlog, Batch},
    commands::Commands,
    give,
};
use crate::{clock, failure::Failure};

/// Commands taken into one write, at the most.
const BATCH_COMMANDS: usize = 4_096;
/// Bytes after which a write is made even though more commands wait.
const BATCH_BYTES: usize = 4 * 1024 * 1024;
/// Ticks between two looks at undecided half messages and uncommitted offsets.
const SLOW_TICKS: u32 = 10;
/// Ticks between two tries to move documents out of the oldest segment.
const CARRY_TICKS: u32 = 1_200;
/// Units of delayed messages, and of those for a time, delivered in one tick, at the most.
const DELIVERIES: usize = 64;
/// Units of popped messages brought back in one tick, at the most.
const REVIVALS: usize = 16;

pub(super) struct Writer {
    broker: Broker,
    buffers: Receiver<Vec<u8>>,
    backlog: Arc<Backlog>,
    effects: Effects,
    failed: Arc<AtomicBool>,
    taken: Vec<Command>,
    acks: Vec<Ack>,
    /// Those of them that wait no longer.
    done: Vec<Ack>,
    ticks: u32,
}

impl Writer {
    pub fn new(
        broker: Broker,
        buffers: Receiver<Vec<u8>>,
        backlog: Arc<Backlog>,
        effects: Effects,
        failed: Arc<AtomicBool>,
    ) -> Self {
        Self {
            broker,
            buffers,
            backlog,
            effects,
            failed,
            taken: Vec::new(),
            acks: Vec::new(),
            done: Vec::new(),
            ticks: 0,
        }
    }

    /// Does what waits, up to a bound, with one write. Answers whom the caller is to answer once he has let go of the writer.
    pub fn pass(&mut self, commands: &Commands) -> Vec<Ack> {
        let mut taken = std::mem::take(&mut self.taken);
        commands.take(&mut taken, BATCH_COMMANDS, BATCH_BYTES);
        taken.drain(..).for_each(|command| self.execute(command));
        self.taken = taken;
        self.write();
        std::mem::take(&mut self.done)
    }

    /// The last words.
    pub fn finish(&mut self) {
        let recorded = self.broker.record_offsets(clock::now());
        self.log_failure("recording offsets", recorded);
        self.write();
    }

    fn execute(&mut self, command: Command) {
        match command {
            Command::Send(send, answer) => match self.broker.send(send, clock::now()) {
                Ok(sent) => self.acks.push(Ack::Sent(sent, answer)),
                Err(error) => answer(Err(error.into()), false),
            },
            Command::Call(verb) => self.acks.extend(verb(&mut self.broker, clock::now())),
        }
    }

    pub fn tick(&mut self) {
        self.ticks = self.ticks.wrapping_add(1);
        let now = clock::now();
        self.deliver("delivering delayed messages", DELIVERIES, |broker| broker.deliver_due(now));
        self.deliver("delivering messages for a time", DELIVERIES, |broker| broker.deliver_timers(now));
        self.deliver("bringing back popped messages", REVIVALS, |broker| broker.revive(now));
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

    /// Lets the broker stage what is due, unit by unit, up to a bound.
    fn deliver(
        &mut self,
        doing: &str,
        units: usize,
        mut stage: impl FnMut(&mut Broker) -> sluice_broker::Result<bool>,
    ) {
        for _ in 0..units {
            match stage(&mut self.broker) {
                Ok(more) => {
                    self.write();
                    if !more {
                        return;
                    }
                }
                Err(error) => return self.log_failure(doing, Err(error)),
            }
        }
    }

    /// One write for all that is staged; whoever does not wait for the disk is done then.
    fn write(&mut self) {
        while let Ok(buffer) = self.buffers.try_recv() {
            self.broker.recycle(buffer);
        }
        match self.broker.write() {
            Err(error) => {
                self.failed.store(true, Ordering::Release);
                let failure = Failure::from(error);
                give(std::mem::take(&mut self.acks), &Err(failure));
            }
            Ok(written) => {
                self.done.extend(self.acks.extract_if(.., |ack| ack.durability() == Durability::Async));
                let acks = std::mem::take(&mut self.acks);
                if written.is_some() || !acks.is_empty() {
                    self.backlog.push(Batch { written, acks });
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
