//! What is written and waits for the disk, and the brake on it.

use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use sluice_broker::Written;

use super::Ack;

/// Bytes that may wait for the disk.
const BYTES_LIMIT: usize = 32 * 1024 * 1024;
/// Batches that may wait for the disk: many, since each may be one message.
const BATCHES_LIMIT: usize = 4_096;
/// How long batches gather that nobody waits for: each sync costs the same, however little it brings to the disk.
const GATHER: Duration = Duration::from_millis(2);
/// Bytes after which they do not gather any longer.
const GATHER_BYTES: usize = 1024 * 1024;

/// What one write brought to the log, and who waits for it to be on disk.
pub(super) struct Batch {
    pub written: Option<Written>,
    pub acks: Vec<Ack>,
}

impl Batch {
    fn bytes(&self) -> usize {
        self.written.as_ref().map_or(0, |written| written.bytes.len())
    }
}

#[derive(Default)]
pub(super) struct Backlog {
    state: Mutex<State>,
    /// There is something for the disk's thread.
    filled: Condvar,
    shrunk: Condvar,
}

#[derive(Default)]
struct State {
    batches: Vec<Batch>,
    /// Bytes written and not yet visible, those that the disk's thread has in hand among them.
    bytes: usize,
    /// Somebody waits for one of the batches, or they are many.
    urgent: bool,
    /// No more come.
    closed: bool,
}

impl State {
    fn has_room(&self) -> bool {
        self.bytes <= BYTES_LIMIT && self.batches.len() < BATCHES_LIMIT
    }
}

impl Backlog {
    /// Whether another batch may be written now.
    pub fn has_room(&self) -> bool {
        self.state.lock().has_room()
    }

    /// Waits until another batch may be written.
    pub fn wait_for_room(&self) {
        let mut state = self.state.lock();
        while !state.has_room() {
            self.shrunk.wait(&mut state);
        }
    }

    pub fn push(&self, batch: Batch) {
        let mut state = self.state.lock();
        state.bytes += batch.bytes();
        let first = state.batches.is_empty();
        let urgent = !batch.acks.is_empty() || state.bytes >= GATHER_BYTES;
        let news = first || (urgent && !state.urgent);
        state.urgent |= urgent;
        state.batches.push(batch);
        drop(state);
        // Batches that nobody waits for do not wake the disk's thread each; it comes for them.
        if news {
            self.filled.notify_one();
        }
    }

    /// No more batches come.
    pub fn close(&self) {
        self.state.lock().closed = true;
        self.filled.notify_one();
    }

    /// Moves all batches to `taken`, once somebody waits for one or they have gathered; none after `patience`. Answers
    /// whether more may come.
    pub fn take(&self, taken: &mut Vec<Batch>, patience: Duration) -> bool {
        let mut state = self.state.lock();
        let deadline = Instant::now() + patience;
        while state.batches.is_empty() && !state.closed {
            if self.filled.wait_until(&mut state, deadline).timed_out() {
                break;
            }
        }
        let deadline = Instant::now() + GATHER;
        while !state.batches.is_empty() && !state.urgent && !state.closed {
            if self.filled.wait_until(&mut state, deadline).timed_out() {
                break;
            }
        }
        std::mem::swap(&mut state.batches, taken);
        state.urgent = false;
        let more = !state.closed || !taken.is_empty();
        // The room for batches is there again; that for bytes not yet.
        self.shrunk.notify_one();
        more
    }

    /// Counts bytes out that are on disk and visible.
    pub fn shrink(&self, bytes: usize) {
        let mut state = self.state.lock();
        state.bytes = state.bytes.saturating_sub(bytes);
        self.shrunk.notify_one();
    }
}
