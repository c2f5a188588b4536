//! Source: Apache RocketMQ `TopicConfig`, `TopicConfigSerializeWrapper`, `CreateTopicListRequestBody`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{VersionBody, json_bodies};

/// A topic of a broker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TopicConfigBody {
    #[serde(default)]
    pub attributes: BTreeMap<String, String>,
    #[serde(default)]
    pub order: bool,
    /// Bits: 4 read, 2 write, 1 inherit, 8 priority.
    #[serde(default = "read_write")]
    pub perm: u32,
    #[serde(default = "queues")]
    pub read_queue_nums: u32,
    #[serde(default = "single_tag")]
    pub topic_filter_type: String,
    pub topic_name: String,
    #[serde(default)]
    pub topic_sys_flag: i32,
    #[serde(default = "queues")]
    pub write_queue_nums: u32,
}

fn read_write() -> u32 {
    6
}

fn queues() -> u32 {
    16
}

fn single_tag() -> String {
    "SINGLE_TAG".to_owned()
}

impl TopicConfigBody {
    /// A topic that may be read and written, with as many queues for both.
    pub fn new(name: &str, queues: u32) -> Self {
        Self {
            attributes: BTreeMap::new(),
            order: false,
            perm: read_write(),
            read_queue_nums: queues,
            topic_filter_type: single_tag(),
            topic_name: name.to_owned(),
            topic_sys_flag: 0,
            write_queue_nums: queues,
        }
    }

    /// The line that a compressed registration carries.
    pub(crate) fn to_line(&self) -> String {
        let attributes = crate::json::to_string(&self.attributes);
        let Self { topic_name, read_queue_nums, write_queue_nums, perm, topic_filter_type, .. } = self;
        format!("{topic_name} {read_queue_nums} {write_queue_nums} {perm} {topic_filter_type} {attributes}")
    }

    pub(crate) fn from_line(line: &str) -> Option<Self> {
        let mut words = line.splitn(6, ' ');
        let mut topic = Self::new(words.next()?, 0);
        topic.read_queue_nums = words.next()?.parse().ok()?;
        topic.write_queue_nums = words.next()?.parse().ok()?;
        topic.perm = words.next()?.parse().ok()?;
        topic.topic_filter_type = words.next()?.to_owned();
        // A blank within the attributes is more than Java's reader understands; it goes on without them, and so do we.
        topic.attributes = words.next().and_then(|json| serde_json::from_str(json).ok()).unwrap_or_default();
        Some(topic)
    }
}

/// All topics of a broker.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TopicTableBody {
    pub data_version: VersionBody,
    #[serde(rename = "topicConfigTable")]
    pub topics: BTreeMap<String, TopicConfigBody>,
    /// Static topics; passed through.
    #[serde(rename = "topicQueueMappingInfoMap", skip_serializing_if = "BTreeMap::is_empty")]
    pub queue_mappings: BTreeMap<String, Value>,
}

/// Topics to be created.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TopicConfigListBody {
    #[serde(rename = "topicConfigList")]
    pub topics: Vec<TopicConfigBody>,
}

json_bodies!(TopicConfigBody, TopicTableBody, TopicConfigListBody);
