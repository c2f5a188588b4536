//! The brake between the two threads: bytes that were written and are not yet on disk and visible.

use parking_lot::{Condvar, Mutex};

/// Bytes that may wait for the disk; the writer stands still at more.
const BYTES_LIMIT: usize = 32 * 1024 * 1024;

#[derive(Default)]
pub(super) struct Backlog {
    bytes: Mutex<usize>,
    shrunk: Condvar,
}

impl Backlog {
    /// Counts bytes in; waits first while too many wait already.
    pub fn grow(&self, bytes: usize) {
        let mut waiting = self.bytes.lock();
        while *waiting > BYTES_LIMIT {
            self.shrunk.wait(&mut waiting);
        }
        *waiting += bytes;
    }

    /// Counts bytes out.
    pub fn shrink(&self, bytes: usize) {
        let mut waiting = self.bytes.lock();
        let was = *waiting;
        *waiting = was.saturating_sub(bytes);
        if was > BYTES_LIMIT {
            self.shrunk.notify_one();
        }
    }
}
