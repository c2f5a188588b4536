//! Source: Apache RocketMQ `BatchAckMessageRequestBody`, `QueryAssignmentRequestBody`, `QueryAssignmentResponseBody`,
//! `SetMessageRequestModeRequestBody`.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

use super::{MessageModel, json_bodies, words::words};

/// Most bits in one entry of a batch of acknowledgements, in bytes.
const BITS_LEN: usize = 1_024;

words! {
    /// How a client gets the messages of a queue.
    RequestMode {
        Pull = 0 "PULL",
        Pop = 1 "POP",
    }
}

/// Which popped messages are consumed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BatchAckBody {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub broker_name: Option<String>,
    #[serde(default)]
    pub acks: Vec<AckEntry>,
}

/// Messages that one pop took of one queue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AckEntry {
    #[serde(rename = "c", alias = "consumerGroup")]
    pub group: String,
    #[serde(rename = "t", alias = "topic")]
    pub topic: String,
    /// `0`: the topic itself; `1`: the group's retry topic for it.
    #[serde(rename = "r", alias = "retry")]
    pub retry: String,
    #[serde(rename = "so", alias = "startOffset")]
    pub start: u64,
    #[serde(rename = "q", alias = "queueId")]
    pub queue: i32,
    #[serde(rename = "rq", alias = "reviveQueueId", default)]
    pub revive_queue: i32,
    #[serde(rename = "pt", alias = "popTime")]
    pub popped_at: i64,
    #[serde(rename = "it", alias = "invisibleTime", default)]
    pub invisible_ms: i64,
    /// Which messages, counted from the start.
    #[serde(rename = "b", alias = "bitSet")]
    pub bits: Bits,
}

/// A set of small numbers, one bit each, the lowest first (Java's `BitSet.toByteArray`); base64 in JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bits(Vec<u8>);

impl Bits {
    /// The numbers that are in the set, in order.
    pub fn iter(&self) -> impl Iterator<Item = u64> {
        let bytes = self.0.iter().enumerate();
        bytes
            .flat_map(|(at, byte)| (0..8).filter(move |bit| byte & (1 << bit) != 0).map(move |bit| at as u64 * 8 + bit))
    }
}

impl FromIterator<u16> for Bits {
    fn from_iter<I: IntoIterator<Item = u16>>(numbers: I) -> Self {
        let mut bytes = Vec::new();
        for number in numbers {
            let at = usize::from(number / 8);
            if bytes.len() <= at {
                bytes.resize(at + 1, 0);
            }
            if let Some(byte) = bytes.get_mut(at) {
                *byte |= 1 << (number % 8);
            }
        }
        Self(bytes)
    }
}

impl Serialize for Bits {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Bits {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Form {
            Text(String),
            /// Java's bytes have a sign.
            Numbers(Vec<i16>),
        }
        let bytes = match Form::deserialize(from).map_err(|_| D::Error::custom("b: expected base64"))? {
            Form::Text(text) => STANDARD.decode(text).map_err(|_| D::Error::custom("b: expected base64"))?,
            Form::Numbers(numbers) => numbers.into_iter().map(|number| number as u8).collect(),
        };
        if bytes.len() > BITS_LEN {
            return Err(D::Error::custom(format!("b: expected at most {BITS_LEN} bytes, got {}", bytes.len())));
        }
        Ok(Self(bytes))
    }
}

/// A client asks for its part of a topic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AssignmentQueryBody {
    pub topic: String,
    pub consumer_group: String,
    pub client_id: String,
    /// `AVG` or `AVG_BY_CIRCLE`.
    #[serde(default)]
    pub strategy_name: String,
    pub message_model: MessageModel,
}

/// A client's part of a topic; `None`: it is not known, and the client is to keep what it has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AssignmentsBody {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message_queue_assignments: Option<Vec<Assignment>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Assignment {
    pub message_queue: AssignedQueue,
    pub mode: RequestMode,
}

/// As [`super::QueueRef`], but of any queue of the broker when negative.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AssignedQueue {
    pub broker_name: String,
    pub queue_id: i32,
    pub topic: String,
}

/// How a group is to consume a topic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RequestModeBody {
    pub topic: String,
    pub consumer_group: String,
    #[serde(default = "pull")]
    pub mode: RequestMode,
    /// For POP: how many other members' queues a member pops besides its own; 0: everybody pops all.
    #[serde(default)]
    pub pop_share_queue_num: i32,
}

fn pull() -> RequestMode {
    RequestMode::Pull
}

json_bodies!(BatchAckBody, AssignmentQueryBody, AssignmentsBody, RequestModeBody);
