//! Source: Apache RocketMQ `TopicStatsTable`, `ConsumeStats`, `ResetOffsetBody`, `QueryConsumeTimeSpanBody`.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{QueueRef, QueueTable, json_bodies};
use crate::{FieldError, field::BodyForm, json};

/// A queue's bounds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct QueueBounds {
    /// When the last message was stored, ms since 1970; 0 for an empty queue.
    pub last_update_timestamp: i64,
    pub max_offset: i64,
    pub min_offset: i64,
}

/// A topic's queues.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TopicStatsBody {
    #[serde(rename = "offsetTable")]
    pub queues: QueueTable<QueueBounds>,
    /// Messages a second.
    pub topic_put_tps: f64,
}

/// A group's progress in a queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct QueueProgress {
    pub broker_offset: i64,
    pub consumer_offset: i64,
    /// When the last consumed message was stored, ms since 1970.
    pub last_timestamp: i64,
    pub pull_offset: i64,
}

/// A group's progress.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConsumeStatsBody {
    /// Messages a second.
    pub consume_tps: f64,
    #[serde(rename = "offsetTable")]
    pub queues: QueueTable<QueueProgress>,
}

/// Offsets to which a group was or is to be moved.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct ResetOffsetBody {
    #[serde(rename = "offsetTable")]
    pub offsets: QueueTable<i64>,
}

macro_rules! table_bodies {
    ($($name:ident: $self:ident => $json:expr),* $(,)?) => {$(
        impl $name {
            /// Reads the body; fails with the field `body` and what is wrong where.
            pub fn from_json(body: &[u8]) -> Result<Self, FieldError> {
                json::from_slice("body", body)
            }

            /// The body in fastjson's form.
            pub fn to_json(&$self) -> String {
                $json
            }
        }

        impl BodyForm for $name {
            fn read(body: &Bytes) -> Result<Self, FieldError> {
                Self::from_json(body)
            }

            fn write(&self) -> Bytes {
                self.to_json().into()
            }
        }
    )*};
}

table_bodies! {
    TopicStatsBody: self => {
        let tps = json::to_string(&self.topic_put_tps);
        format!("{{\"offsetTable\":{},\"topicPutTps\":{tps}}}", self.queues.to_json())
    },
    ConsumeStatsBody: self => {
        let tps = json::to_string(&self.consume_tps);
        format!("{{\"consumeTps\":{tps},\"offsetTable\":{}}}", self.queues.to_json())
    },
    ResetOffsetBody: self => format!("{{\"offsetTable\":{}}}", self.offsets.to_json()),
}

/// Times between which a group has messages of a queue to consume, ms since 1970.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct QueueTimeSpan {
    #[serde(rename = "consumeTimeStamp")]
    pub consumed: i64,
    /// How long the next message has waited, ms.
    #[serde(rename = "delayTime")]
    pub delay: i64,
    #[serde(rename = "maxTimeStamp")]
    pub max: i64,
    #[serde(rename = "messageQueue")]
    pub queue: QueueRef,
    #[serde(rename = "minTimeStamp")]
    pub min: i64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TimeSpanBody {
    #[serde(rename = "consumeTimeSpanSet", default)]
    pub spans: Vec<QueueTimeSpan>,
}

/// How a consumer fared with a message that it was to consume now.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConsumeDirectlyBody {
    #[serde(default)]
    pub auto_commit: bool,
    /// `CR_SUCCESS`, `CR_LATER`, `CR_ROLLBACK`, `CR_COMMIT`, `CR_THROW_EXCEPTION` or `CR_RETURN_NULL`.
    pub consume_result: String,
    #[serde(default)]
    pub order: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remark: Option<String>,
    #[serde(rename = "spentTimeMills", default)]
    pub spent_ms: i64,
}

json_bodies!(TimeSpanBody, ConsumeDirectlyBody);
