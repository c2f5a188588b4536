//! What waits for the broker's writer.

use std::{collections::VecDeque, time::Instant};

use parking_lot::{Condvar, Mutex};
use sluice_model::Kind;

use super::Command;
use crate::failure::Failure;

/// Commands that may wait.
const COUNT_LIMIT: usize = 16_384;
/// Bytes of messages that may wait.
const BYTES_LIMIT: usize = 256 * 1024 * 1024;

#[derive(Default)]
pub(super) struct Commands {
    state: Mutex<State>,
    rung: Condvar,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Command>,
    bytes: usize,
    /// The writer's thread is asked to look.
    bell: bool,
    /// No more are taken.
    closed: bool,
}

impl Commands {
    /// Puts a command behind the others; gives it back with the reason when it cannot wait here.
    pub fn push(&self, command: Command) -> Result<(), Box<(Command, Failure)>> {
        let mut state = self.state.lock();
        if state.closed {
            return Err(Box::new((command, super::stopped())));
        }
        if state.queue.len() >= COUNT_LIMIT || state.bytes >= BYTES_LIMIT {
            let text = format!(
                "{} requests ({} bytes) wait for the log already: slow down and try again",
                state.queue.len(),
                state.bytes
            );
            return Err(Box::new((command, Failure::new(Kind::Busy, text))));
        }
        state.bytes += command.bytes();
        state.queue.push_back(command);
        Ok(())
    }

    /// Moves the first commands to `taken`: `count` at most, and no more once they have `bytes`.
    pub fn take(&self, taken: &mut Vec<Command>, count: usize, bytes: usize) {
        let mut state = self.state.lock();
        let mut took = 0;
        while taken.len() < count && took < bytes {
            let Some(command) = state.queue.pop_front() else { break };
            took += command.bytes();
            taken.push(command);
        }
        state.bytes -= took;
    }

    pub fn is_empty(&self) -> bool {
        self.state.lock().queue.is_empty()
    }

    /// Whether more commands may come.
    pub fn is_open(&self) -> bool {
        !self.state.lock().closed
    }

    /// Takes no more commands; those that wait are still done.
    pub fn close(&self) {
        self.state.lock().closed = true;
        self.rung.notify_one();
    }

    /// Drops what waits, and takes no more.
    pub fn abandon(&self) {
        let dropped = {
            let mut state = self.state.lock();
            state.closed = true;
            state.bytes = 0;
            std::mem::take(&mut state.queue)
        };
        drop(dropped);
        self.rung.notify_one();
    }

    /// Asks the writer's thread to look.
    pub fn ring(&self) {
        self.state.lock().bell = true;
        self.rung.notify_one();
    }

    /// Waits until the bell is rung, until no more commands are taken, or until `deadline`; answers whether more may come.
    pub fn wait(&self, deadline: Instant) -> bool {
        let mut state = self.state.lock();
        while !state.bell && !state.closed && !self.rung.wait_until(&mut state, deadline).timed_out() {}
        state.bell = false;
        !state.closed
    }
}
