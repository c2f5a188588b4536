use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, de};
use sluice_model::QueueId;

use super::json_bodies;
use crate::json;

/// A queue of a topic on a broker (Java's `MessageQueue`).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct QueueRef {
    pub broker_name: String,
    pub queue_id: u32,
    pub topic: String,
}

impl QueueRef {
    pub fn new(topic: &str, broker: &str, queue: QueueId) -> Self {
        Self { broker_name: broker.to_owned(), queue_id: queue.0, topic: topic.to_owned() }
    }

    pub fn queue(&self) -> QueueId {
        QueueId(self.queue_id)
    }
}

impl fmt::Display for QueueRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}#{}", self.topic, self.broker_name, self.queue_id)
    }
}

/// A map whose keys are queues, in a JSON form of its own: the key is an object literal, as fastjson writes and reads it.
#[derive(Clone, Debug, PartialEq)]
pub struct QueueTable<V>(pub Vec<(QueueRef, V)>);

impl<V> Default for QueueTable<V> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<V: Serialize> QueueTable<V> {
    pub(crate) fn to_json(&self) -> String {
        let pairs =
            self.0.iter().map(|(queue, value)| format!("{}:{}", json::to_string(queue), json::to_string(value)));
        format!("{{{}}}", pairs.collect::<Vec<_>>().join(","))
    }
}

impl<'de, V: Deserialize<'de>> Deserialize<'de> for QueueTable<V> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Pairs<V>(std::marker::PhantomData<V>);
        impl<'de, V: Deserialize<'de>> de::Visitor<'de> for Pairs<V> {
            type Value = QueueTable<V>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map by queue")
            }

            fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<QueueTable<V>, A::Error> {
                let mut pairs = Vec::new();
                // The reader of this crate turns object literals into strings of JSON.
                while let Some((key, value)) = map.next_entry::<String, V>()? {
                    let queue = json::from_slice("key", key.as_bytes()).map_err(de::Error::custom)?;
                    pairs.push((queue, value));
                }
                Ok(QueueTable(pairs))
            }
        }
        from.deserialize_map(Pairs(std::marker::PhantomData))
    }
}

/// Which queues a client wants to lock or give back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LockBody {
    pub client_id: String,
    pub consumer_group: String,
    #[serde(default)]
    pub mq_set: Vec<QueueRef>,
    #[serde(default)]
    pub only_this_broker: bool,
}

/// Which queues were locked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockedBody {
    #[serde(rename = "lockOKMQSet", default)]
    pub locked: Vec<QueueRef>,
}

json_bodies!(QueueRef, LockBody, LockedBody);
