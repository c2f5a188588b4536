//! When enough is enough.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use crate::Error;

/// When a plan ends: at whichever comes first.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stop {
    pub messages: Option<u64>,
    pub duration: Option<Duration>,
}

/// What is left of a plan. Shared by all workers.
pub struct Quota {
    left: AtomicU64,
    until: Option<Instant>,
}

impl Stop {
    /// Fails when neither is given.
    pub fn check(&self) -> Result<(), Error> {
        if self.messages.is_none() && self.duration.is_none() {
            let problem = "expected a number of messages or a duration".to_owned();
            return Err(Error::Invalid { field: "messages", problem });
        }
        Ok(())
    }

    /// From now on.
    pub fn start(&self) -> Quota {
        let until = self.duration.map(|duration| Instant::now() + duration);
        Quota { left: AtomicU64::new(self.messages.unwrap_or(u64::MAX)), until }
    }
}

impl Quota {
    /// Takes one message from what is left; `false` when it is over.
    pub fn take_one(&self) -> bool {
        self.take(1) == 1
    }

    /// Takes up to `count` messages from what is left; 0 when it is over.
    pub fn take(&self, count: u64) -> u64 {
        if self.is_late() {
            return 0;
        }
        let take = |left: u64| left.checked_sub(count.min(left));
        match self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take) {
            Ok(left) | Err(left) => count.min(left),
        }
    }

    pub fn is_over(&self) -> bool {
        self.is_late() || self.left.load(Ordering::Relaxed) == 0
    }

    fn is_late(&self) -> bool {
        self.until.is_some_and(|until| Instant::now() >= until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quota_gives_what_there_is() {
        let quota = Stop { messages: Some(5), duration: None }.start();
        assert_eq!([quota.take(3), quota.take(3), quota.take(3)], [3, 2, 0]);
        assert!(quota.is_over());
        let late = Stop { messages: None, duration: Some(Duration::ZERO) }.start();
        assert!(late.is_over() && !late.take_one());
        assert!(Stop::default().check().is_err());
    }
}
