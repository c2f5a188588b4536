//! Fetches that found nothing and wait for the next message of their queue.

use std::collections::HashMap;

use sluice_model::{QueueId, QueueOffset, TopicName};

/// Names one waiting fetch; the shell makes them and is told when to ask again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub u64);

/// What became of the wish to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// The token will be woken.
    Waits,
    /// There is no need to: something is there.
    Ready,
    /// Too many wait already.
    Full,
}

/// Most fetches that may wait at a time.
const WAITING_LIMIT: usize = 200_000;

#[derive(Default)]
pub struct Waiters {
    by_topic: HashMap<TopicName, Vec<(Option<QueueId>, QueueOffset, Token)>>,
    count: usize,
}

impl Waiters {
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Waits for the message at `next` of a queue, or of any queue. Answers `false` when too many wait already.
    pub fn add(&mut self, topic: &TopicName, queue: Option<QueueId>, next: QueueOffset, token: Token) -> bool {
        if self.count >= WAITING_LIMIT {
            return false;
        }
        self.count += 1;
        self.by_topic.entry(topic.clone()).or_default().push((queue, next, token));
        true
    }

    /// Forgets what waits under a token.
    pub fn remove(&mut self, topic: &TopicName, token: Token) {
        let Some(waiting) = self.by_topic.get_mut(topic) else { return };
        let before = waiting.len();
        waiting.retain(|(_, _, known)| *known != token);
        self.count -= before - waiting.len();
        if waiting.is_empty() {
            self.by_topic.remove(topic);
        }
    }

    /// Moves the tokens of those whose message has come into `woken`.
    pub fn arrived(&mut self, topic: &str, queue: QueueId, offset: QueueOffset, woken: &mut Vec<Token>) {
        let Some(waiting) = self.by_topic.get_mut(topic) else { return };
        let before = waiting.len();
        waiting.retain(|(at, next, token)| {
            let here = at.is_none_or(|at| at == queue) && *next <= offset;
            if here {
                woken.push(*token);
            }
            !here
        });
        self.count -= before - waiting.len();
        if waiting.is_empty() {
            self.by_topic.remove(topic);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_those_whose_message_came_are_woken_once() {
        let topic = TopicName::parse("t").unwrap();
        let mut waiters = Waiters::default();
        for (queue, next, token) in [(0, 5, 1), (0, 6, 2), (1, 0, 3)] {
            assert!(waiters.add(&topic, Some(QueueId(queue)), QueueOffset(next), Token(token)));
        }
        let mut woken = Vec::new();
        waiters.arrived("t", QueueId(0), QueueOffset(5), &mut woken);
        waiters.arrived("t", QueueId(0), QueueOffset(5), &mut woken);
        assert_eq!(woken, [Token(1)]);
        waiters.remove(&topic, Token(3));
        waiters.arrived("t", QueueId(0), QueueOffset(6), &mut woken);
        assert_eq!(woken, [Token(1), Token(2)]);
        assert!(waiters.is_empty());
        assert!(waiters.add(&topic, None, QueueOffset(0), Token(4)));
        waiters.arrived("t", QueueId(7), QueueOffset(0), &mut woken);
        assert_eq!(woken.last(), Some(&Token(4)));
    }
}
