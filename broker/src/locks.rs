//! Queues that one client of a group consumes alone, in order.

use std::collections::HashMap;

use sluice_model::{GroupName, QueueId, Timestamp, TopicName};

/// A lock that its holder did not renew for this long is free (Apache RocketMQ `REBALANCE_LOCK_MAX_LIVE_TIME`).
const LIFETIME_MS: i64 = 60_000;

type Place = (TopicName, QueueId);

#[derive(Default)]
pub struct Locks {
    by_group: HashMap<GroupName, HashMap<Place, (String, Timestamp)>>,
}

impl Locks {
    /// Locks what of `queues` is free or the client's own; answers with all that is now the client's.
    pub fn lock(&mut self, group: &GroupName, client: &str, queues: Vec<Place>, now: Timestamp) -> Vec<Place> {
        let held = self.by_group.entry(group.clone()).or_default();
        held.retain(|_, (_, at)| now.ms_since(*at) <= LIFETIME_MS);
        let taken = queues.into_iter().filter(|place| held.get(place).is_none_or(|(holder, _)| holder == client));
        let taken: Vec<Place> = taken.collect();
        held.extend(taken.iter().map(|place| (place.clone(), (client.to_owned(), now))));
        taken
    }

    /// Gives back what of `queues` is the client's.
    pub fn unlock(&mut self, group: &GroupName, client: &str, queues: &[Place]) {
        if let Some(held) = self.by_group.get_mut(group) {
            held.retain(|place, (holder, _)| holder != client || !queues.contains(place));
        }
    }

    /// Frees what clients hold that are not members any more.
    pub fn keep_members(&mut self, group: &GroupName, is_member: impl Fn(&str) -> bool) {
        if let Some(held) = self.by_group.get_mut(group) {
            held.retain(|_, (holder, _)| is_member(holder));
            if held.is_empty() {
                self.by_group.remove(group);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_has_one_holder_until_it_lets_go_or_falls_silent() {
        let (group, topic) = (GroupName::parse("g").unwrap(), TopicName::parse("t").unwrap());
        let queue = |id| (topic.clone(), QueueId(id));
        let mut locks = Locks::default();
        assert_eq!(locks.lock(&group, "a", vec![queue(0), queue(1)], Timestamp(0)).len(), 2);
        assert_eq!(locks.lock(&group, "b", vec![queue(0), queue(2)], Timestamp(1)), [queue(2)]);
        locks.unlock(&group, "b", &[queue(0)]);
        assert!(locks.lock(&group, "b", vec![queue(0)], Timestamp(2)).is_empty());
        locks.unlock(&group, "a", &[queue(0)]);
        assert_eq!(locks.lock(&group, "b", vec![queue(0)], Timestamp(3)), [queue(0)]);
        assert_eq!(locks.lock(&group, "b", vec![queue(1)], Timestamp(60_001)), [queue(1)]);
        locks.keep_members(&group, |client| client == "c");
        assert_eq!(locks.lock(&group, "c", vec![queue(0)], Timestamp(60_002)), [queue(0)]);
    }
}
