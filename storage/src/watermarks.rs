//! How far the log has come, in five steps that never overtake one another.

use std::sync::atomic::{AtomicU64, Ordering::Acquire, Ordering::Release};

use sluice_model::LogOffset;

/// `appended >= durable >= readable >= checkpoint >= start`, each moved by one owner (the checkpoint before the newest
/// stands between the last two: what that one needs is kept, too); asserted at every step, in
/// production builds too: going on with marks in disorder would acknowledge or show what may yet vanish.
pub(crate) struct Watermarks {
    appended: AtomicU64,
    durable: AtomicU64,
    readable: AtomicU64,
    checkpoint: AtomicU64,
    older_checkpoint: AtomicU64,
    start: AtomicU64,
}

impl Watermarks {
    pub fn new(start: u64, older_checkpoint: u64, checkpoint: u64, end: u64) -> Self {
        let ordered = [start, older_checkpoint, checkpoint, end].is_sorted();
        assert!(ordered, "watermarks: {start} <= {older_checkpoint} <= {checkpoint} <= {end}");
        Self {
            appended: end.into(),
            durable: end.into(),
            readable: end.into(),
            checkpoint: checkpoint.into(),
            older_checkpoint: older_checkpoint.into(),
            start: start.into(),
        }
    }

    pub fn appended(&self) -> LogOffset {
        LogOffset(self.appended.load(Acquire))
    }

    pub fn durable(&self) -> LogOffset {
        LogOffset(self.durable.load(Acquire))
    }

    pub fn readable(&self) -> LogOffset {
        LogOffset(self.readable.load(Acquire))
    }

    pub fn checkpoint(&self) -> LogOffset {
        LogOffset(self.checkpoint.load(Acquire))
    }

    /// The checkpoint before the newest.
    pub fn older_checkpoint(&self) -> LogOffset {
        LogOffset(self.older_checkpoint.load(Acquire))
    }

    pub fn start(&self) -> LogOffset {
        LogOffset(self.start.load(Acquire))
    }

    pub fn publish_appended(&self, to: u64) {
        advance(&self.appended, to, u64::MAX, "appended");
    }

    pub fn publish_durable(&self, to: u64) {
        advance(&self.durable, to, self.appended().0, "durable");
    }

    pub fn publish_readable(&self, to: u64) {
        advance(&self.readable, to, self.durable().0, "readable");
    }

    pub fn publish_checkpoint(&self, to: u64) {
        let older = self.checkpoint().0;
        advance(&self.checkpoint, to, self.readable().0, "checkpoint");
        advance(&self.older_checkpoint, older, to, "older checkpoint");
    }

    pub fn publish_start(&self, to: u64) {
        advance(&self.start, to, self.older_checkpoint().0, "start");
    }
}

fn advance(mark: &AtomicU64, to: u64, limit: u64, name: &str) {
    let from = mark.load(Acquire);
    assert!(from <= to && to <= limit, "watermark {name} may not go from {from} to {to}, its limit is {limit}");
    mark.store(to, Release);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[should_panic(expected = "watermark readable may not go from 10 to 12, its limit is 11")]
    fn what_is_not_durable_cannot_become_readable() {
        let marks = Watermarks::new(0, 5, 5, 10);
        marks.publish_appended(12);
        marks.publish_durable(11);
        marks.publish_readable(12);
    }

    #[test]
    #[should_panic(expected = "watermark durable may not go from 10 to 9")]
    fn no_mark_goes_back() {
        Watermarks::new(0, 5, 5, 10).publish_durable(9);
    }
}
