//! All consume queues.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use foldhash::fast::RandomState;
use parking_lot::RwLock;
use sluice_model::{QueueId, TopicName};

use crate::queue::Queue;

/// Written by the applier, read by all.
#[derive(Default)]
pub(crate) struct Queues(RwLock<HashMap<TopicName, BTreeMap<QueueId, Arc<Queue>>, RandomState>>);

impl Queues {
    pub fn get(&self, topic: &str, queue: QueueId) -> Option<Arc<Queue>> {
        self.0.read().get(topic)?.get(&queue).cloned()
    }

    pub fn insert(&self, queue: Arc<Queue>) {
        self.0.write().entry(queue.topic.clone()).or_default().insert(queue.id, queue);
    }

    /// Takes out all queues of a topic.
    pub fn remove(&self, topic: &TopicName) -> Vec<Arc<Queue>> {
        self.0.write().remove(topic).map(|queues| queues.into_values().collect()).unwrap_or_default()
    }

    /// Names of all topics that have a queue, sorted.
    pub fn topics(&self) -> Vec<TopicName> {
        let mut topics: Vec<TopicName> = self.0.read().keys().cloned().collect();
        topics.sort_unstable();
        topics
    }

    /// The queues of a topic by their id.
    pub fn of(&self, topic: &TopicName) -> Vec<Arc<Queue>> {
        self.0.read().get(topic).map(|queues| queues.values().cloned().collect()).unwrap_or_default()
    }

    /// All queues, by topic and id.
    pub fn all(&self) -> Vec<Arc<Queue>> {
        let mut all: Vec<Arc<Queue>> = self.0.read().values().flat_map(|queues| queues.values().cloned()).collect();
        all.sort_unstable_by(|a, b| (&a.topic, a.id).cmp(&(&b.topic, b.id)));
        all
    }
}
