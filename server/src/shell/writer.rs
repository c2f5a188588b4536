//! The owner of the broker's writing side, and what one turn of it does.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::Receiver,
    },
    time::{Duration, Instant},
};

use sluice_broker::{Broker, Durability};
use sluice_model::Timestamp;

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
/// How long delivering may take before commands get their turn.
const DELIVERING: Duration = Duration::from_millis(5);

/// Stages a unit of what is due; answers whether there is more.
type Delivery = fn(&mut Broker, Timestamp) -> sluice_broker::Result<bool>;

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

    /// What is done now and then, whether messages come or not.
    pub fn tick(&mut self) {
        self.ticks = self.ticks.wrapping_add(1);
        let now = clock::now();
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

    /// Delivers what is due, of each kind a unit at least, as long as there is time and room; answers whether more is due.
    pub fn deliver(&mut self) -> bool {
        let (now, until) = (clock::now(), Instant::now() + DELIVERING);
        let kinds: [(&str, Delivery); 3] = [
            ("delivering delayed messages", Broker::deliver_due),
            ("delivering messages for a time", Broker::deliver_timers),
            ("bringing back popped messages", Broker::revive),
        ];
        let mut more = false;
        for (doing, unit) in kinds {
            more |= loop {
                let staged = unit(&mut self.broker, now);
                self.write();
                match staged {
                    Ok(true) if self.backlog.has_room() && Instant::now() < until => {}
                    Ok(more) => break more,
                    Err(error) => {
                        self.log_failure(doing, Err(error));
                        break false;
                    }
                }
            };
        }
        more
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
