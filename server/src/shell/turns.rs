//! Whose turn it is to write.
//!
//! Whoever brings commands does them at once when nobody is at it: a lone sender's message is written by the thread that read
//! it from the socket, with no other thread to wake. Who finds the writer taken leaves his commands to its holder, who looks
//! again after every pass; so under load commands gather, and one write takes many. After a few passes the holder hands over to
//! the writer's own thread, which also ticks, and is the only one that ever waits for room in the backlog. Threads of a lower
//! priority leave everything to it.

use std::{
    sync::{
        Arc, Mutex, TryLockError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use super::{Command, backlog::Backlog, commands::Commands, give, writer::Writer};
use crate::failure::Failure;

/// Passes of a thread that has other things to do.
const PASSES: usize = 4;
const TICK: Duration = Duration::from_millis(50);

pub(super) struct Turns {
    commands: Commands,
    /// Poisoned when a pass panicked: the broker may be inconsistent then, and takes nothing more.
    writer: Mutex<Writer>,
    backlog: Arc<Backlog>,
    failed: Arc<AtomicBool>,
}

impl Turns {
    pub fn new(writer: Writer, backlog: Arc<Backlog>, failed: Arc<AtomicBool>) -> Self {
        Self { commands: Commands::default(), writer: Mutex::new(writer), backlog, failed }
    }

    /// Puts a command behind the others, to be done at the next [`Self::work`] of anybody.
    pub fn push(&self, command: Command) -> Result<(), Box<(Command, Failure)>> {
        if self.backlog.is_abandoned() {
            return Err(Box::new((command, super::stopped())));
        }
        self.commands.push(command)
    }

    /// Sees to it that what was pushed is done: here, when nobody is at it. Does not block.
    pub fn work(&self) {
        for _ in 0..PASSES {
            if self.commands.is_empty() {
                return;
            }
            if !self.backlog.has_room() {
                break;
            }
            match self.writer.try_lock() {
                Ok(mut writer) => {
                    let done = writer.pass(&self.commands);
                    drop(writer);
                    give(done, &Ok(()));
                }
                // Its holder looks at the commands again after letting go, and sees what was pushed before we came here.
                Err(TryLockError::WouldBlock) => return,
                Err(TryLockError::Poisoned(_)) => return self.give_up(),
            }
        }
        if !self.commands.is_empty() {
            self.commands.ring();
        }
    }

    /// Waits until little waits for the disk, see [`Backlog::wait_for_calm`].
    pub fn wait_for_calm(&self, last: u64) {
        self.backlog.wait_for_calm(last);
    }

    /// Bytes written since the start.
    pub fn written(&self) -> u64 {
        self.backlog.written()
    }

    /// Leaves what was pushed to the writer's own thread.
    pub fn leave(&self) {
        self.commands.ring();
    }

    /// Takes no more commands; [`Self::run`] ends when those that wait are done.
    pub fn close(&self) {
        self.commands.close();
    }

    /// The writer's own thread.
    pub fn run(&self) {
        let mut tick = Instant::now() + TICK;
        let (mut more, mut due) = (true, false);
        while more || !self.commands.is_empty() {
            if self.commands.is_empty() {
                more = if due { self.commands.is_open() } else { self.commands.wait(tick) };
            }
            self.backlog.wait_for_room();
            let Ok(mut writer) = self.writer.lock() else {
                self.give_up();
                break;
            };
            if Instant::now() >= tick {
                writer.tick();
                tick = Instant::now() + TICK;
                due = true;
            }
            // What is left when its time is up goes on after the commands that came meanwhile.
            due = due && writer.deliver();
            let done = writer.pass(&self.commands);
            drop(writer);
            give(done, &Ok(()));
        }
        if let Ok(mut writer) = self.writer.lock() {
            writer.finish();
        }
        self.backlog.close();
    }

    fn give_up(&self) {
        if !self.failed.swap(true, Ordering::AcqRel) {
            tracing::error!(
                "the broker's writer panicked: the log takes nothing more until the broker is started again"
            );
        }
        self.commands.abandon();
    }
}
