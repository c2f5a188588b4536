//! Flow control: how many messages a second a connection or a group may send and receive.
//!
//! Whoever had more is refused until the rate is kept again. A second's worth may come at once.

use std::{
    collections::HashMap,
    hash::Hash,
    num::NonZeroU32,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use sluice_model::{GroupName, Kind};

use crate::failure::{Failure, Result};

/// What may come ahead of the rate.
const BURST: Duration = Duration::from_secs(1);
/// Groups remembered before those that are within their rate are forgotten.
const GROUPS: usize = 4_096;

/// Limits, in messages a second. What has none is not limited.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rates {
    pub send_per_connection: Option<NonZeroU32>,
    pub send_per_group: Option<NonZeroU32>,
    pub receive_per_group: Option<NonZeroU32>,
}

/// Who has had how much.
pub struct Flow {
    connections: Option<Limit<u64>>,
    producers: Option<Limit<GroupName>>,
    consumers: Option<Limit<GroupName>>,
}

impl Flow {
    pub fn new(rates: Rates) -> Self {
        Self {
            connections: rates.send_per_connection.map(Limit::new),
            producers: rates.send_per_group.map(Limit::new),
            consumers: rates.receive_per_group.map(Limit::new),
        }
    }

    /// Counts messages that are to be sent. Fails with `Busy`, and does not count them, while there were too many.
    pub fn send(&self, session: u64, group: &GroupName, messages: usize) -> Result<()> {
        let now = Instant::now();
        if let Some(limit) = &self.connections {
            limit.check(&session, now).map_err(|wait| refusal("this connection sends", limit.rate, wait))?;
        }
        if let Some(limit) = &self.producers {
            let who = || format!("producer group {group:?} sends");
            limit.check(group, now).map_err(|wait| refusal(&who(), limit.rate, wait))?;
            limit.charge(group, messages, now);
        }
        if let Some(limit) = &self.connections {
            limit.charge(&session, messages, now);
        }
        Ok(())
    }

    /// Fails with `Busy` while a group has had too many messages.
    pub fn may_receive(&self, group: &GroupName) -> Result<()> {
        let Some(limit) = &self.consumers else { return Ok(()) };
        let who = || format!("consumer group {group:?} receives");
        limit.check(group, Instant::now()).map_err(|wait| refusal(&who(), limit.rate, wait))
    }

    /// Counts messages that a group was given.
    pub fn received(&self, group: &GroupName, messages: usize) {
        if let Some(limit) = &self.consumers {
            limit.charge(group, messages, Instant::now());
        }
    }

    pub fn connection_closed(&self, session: u64) {
        if let Some(limit) = &self.connections {
            limit.within.lock().remove(&session);
        }
    }
}

fn refusal(who: &str, rate: NonZeroU32, wait: Duration) -> Failure {
    let text = format!("{who} more than {rate} messages a second: try again in {} ms", wait.as_millis() + 1);
    Failure::new(Kind::Busy, text)
}

/// A rate that each `K` has for itself.
struct Limit<K> {
    rate: NonZeroU32,
    /// When each will be within the rate again.
    within: Mutex<HashMap<K, Instant>>,
}

impl<K: Clone + Eq + Hash> Limit<K> {
    fn new(rate: NonZeroU32) -> Self {
        Self { rate, within: Mutex::default() }
    }

    /// Fails with the time to wait.
    fn check(&self, key: &K, now: Instant) -> std::result::Result<(), Duration> {
        match self.within.lock().get(key) {
            Some(within) if *within > now + BURST => Err(*within - now - BURST),
            _ => Ok(()),
        }
    }

    fn charge(&self, key: &K, messages: usize, now: Instant) {
        let cost = Duration::from_secs_f64(messages as f64 / f64::from(self.rate.get()));
        let mut within = self.within.lock();
        if let Some(at) = within.get_mut(key) {
            *at = (*at).max(now) + cost;
            return;
        }
        if within.len() >= GROUPS {
            within.retain(|_, at| *at > now);
        }
        within.insert(key.clone(), now + cost);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_s_worth_may_come_at_once_and_no_more_than_the_rate_after_it() {
        let limit = Limit::new(NonZeroU32::new(100).unwrap());
        let start = Instant::now();
        let mut taken = 0;
        for ms in 0..10_000 {
            let now = start + Duration::from_millis(ms);
            for _ in 0..5 {
                if limit.check(&"group", now).is_ok() {
                    limit.charge(&"group", 1, now);
                    taken += 1;
                }
            }
        }
        assert!((1_090..=1_110).contains(&taken), "{taken} in 10 s");
        assert!(limit.check(&"another", start).is_ok());
    }

    #[test]
    fn who_took_many_at_once_waits_for_them() {
        let limit = Limit::new(NonZeroU32::new(100).unwrap());
        let start = Instant::now();
        limit.charge(&1, 500, start);
        let wait = limit.check(&1, start).unwrap_err();
        assert_eq!(wait, Duration::from_secs(4));
        assert!(limit.check(&1, start + wait).is_ok());
    }
}
