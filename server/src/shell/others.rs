//! Those who send and give way to nobody, and how much is written beside them by those who do.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Instant,
};

use parking_lot::Mutex;
use sluice_runtime::ports::Portion;

/// For how long others are there after they sent something, milliseconds.
const THERE_FOR: u64 = 200;
/// How much may be written beside them at a time, as a multiple of what they sent since the last time: whatever they bring can be kept up with.
const TIMES: u64 = 2;
/// So much may be written however little they send: they wait for it about as long as for one message to be written.
const LEAST: Portion = Portion { outputs: 64, bytes: 64 * 1024 };

pub(super) struct Others {
    began: Instant,
    /// Until when they are there, milliseconds since it began.
    until: AtomicU64,
    messages: AtomicU64,
    bytes: AtomicU64,
}

/// Threads that give way to them together.
#[derive(Default)]
pub(super) struct GivingWay {
    sent: Mutex<SentByThen>,
    /// Bytes that were written to the log by the end of what they wrote last.
    pub written: AtomicU64,
}

/// What others had sent when those who give way were told how much to write.
#[derive(Clone, Copy, Default)]
struct SentByThen {
    messages: u64,
    bytes: u64,
}

impl Default for Others {
    fn default() -> Self {
        let (until, messages, bytes) = Default::default();
        Self { began: Instant::now(), until, messages, bytes }
    }
}

impl Others {
    fn millis(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Somebody sends so many messages, of so many bytes together, who gives way to nobody.
    pub fn sent(&self, messages: usize, bytes: usize) {
        self.until.store(self.millis() + THERE_FOR, Ordering::Relaxed);
        self.messages.fetch_add(messages as u64, Ordering::Relaxed);
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Whether somebody sent a moment ago who gives way to nobody.
    pub fn are_there(&self) -> bool {
        self.millis() < self.until.load(Ordering::Relaxed)
    }

    /// How much those are to write next who give way, and ask each time.
    pub fn portion(&self, of: &GivingWay) -> Portion {
        let now =
            SentByThen { messages: self.messages.load(Ordering::Relaxed), bytes: self.bytes.load(Ordering::Relaxed) };
        let before = std::mem::replace(&mut *of.sent.lock(), now);
        if !self.are_there() {
            return Portion::default();
        }
        let most = Portion::default();
        let times =
            |now: u64, before: u64, least: u64, most: u64| (now.saturating_sub(before) * TIMES).clamp(least, most);
        Portion {
            outputs: times(now.messages, before.messages, LEAST.outputs, most.outputs),
            bytes: times(now.bytes, before.bytes, LEAST.bytes, most.bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_gives_way_writes_little_beside_others_and_more_the_more_they_send() {
        let (others, who) = (Others::default(), GivingWay::default());
        assert_eq!(others.portion(&who), Portion::default());
        others.sent(1, 100);
        assert_eq!(others.portion(&who), LEAST);
        others.sent(100, 10);
        others.sent(100, 100_000);
        assert_eq!(others.portion(&who), Portion { outputs: 400, bytes: 200_020 });
        assert_eq!(others.portion(&who), LEAST, "what they sent before counts no more");
        others.sent(1_000_000, 1 << 40);
        assert_eq!(others.portion(&who), Portion::default());
    }
}
