//! A broker's registration, plain or compressed. Source: Apache RocketMQ `RegisterBrokerBody`.

use bytes::{Buf, BufMut, Bytes};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{TopicConfigBody, TopicTableBody, json_bodies};
use crate::{FieldError, compress, json};

/// Most bytes of a registration once inflated.
const INFLATED: usize = 64 * 1024 * 1024;
/// `V5_0_0`, the first version whose compressed registration has queue mappings.
const WITH_MAPPINGS: i32 = 413;

/// All topics of a broker.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RegisterBrokerBody {
    #[serde(rename = "filterServerList")]
    pub filter_servers: Vec<String>,
    #[serde(rename = "topicConfigSerializeWrapper")]
    pub topics: TopicTableBody,
}

json_bodies!(RegisterBrokerBody);

impl RegisterBrokerBody {
    /// The zlib form: everything with its length in front.
    pub fn to_compressed(&self) -> Bytes {
        let mut plain = Vec::new();
        put(&mut plain, &self.topics.data_version.to_json());
        plain.put_u32(self.topics.topics.len() as u32);
        self.topics.topics.values().for_each(|topic| put(&mut plain, &topic.to_line()));
        put(&mut plain, &json::to_string(&self.filter_servers));
        plain.put_u32(self.topics.queue_mappings.len() as u32);
        self.topics.queue_mappings.values().for_each(|mapping| put(&mut plain, &json::to_string(mapping)));
        compress::zlib(&plain)
    }

    /// Reads the zlib form. `version` is the sender's: older ones write no queue mappings.
    ///
    /// Fails with the field `body` when a part is missing or malformed, or when it inflates to more than 64 MiB.
    pub fn from_compressed(body: &[u8], version: i32) -> Result<Self, FieldError> {
        let plain = compress::inflate(body, INFLATED)?;
        let mut at = plain.as_slice();
        let mut out = Self::default();
        out.topics.data_version = json::from_slice("body", take(&mut at, "dataVersion")?)?;
        for _ in 0..count(&mut at, "topics")? {
            let line = take(&mut at, "topic")?;
            let topic = std::str::from_utf8(line).ok().and_then(TopicConfigBody::from_line);
            let topic = topic.ok_or_else(|| {
                let got = String::from_utf8_lossy(line);
                FieldError::malformed("body", "a topic's name, queues, permission and filter type", &got)
            })?;
            out.topics.topics.insert(topic.topic_name.clone(), topic);
        }
        let servers: Option<Vec<String>> = json::from_slice("body", take(&mut at, "filterServerList")?)?;
        out.filter_servers = servers.unwrap_or_default();
        if version >= WITH_MAPPINGS {
            for _ in 0..count(&mut at, "queue mappings")? {
                let mapping: Value = json::from_slice("body", take(&mut at, "queue mapping")?)?;
                let topic = mapping.get("topic").and_then(Value::as_str).unwrap_or_default().to_owned();
                out.topics.queue_mappings.insert(topic, mapping);
            }
        }
        Ok(out)
    }
}

fn put(out: &mut Vec<u8>, text: &str) {
    out.put_u32(text.len() as u32);
    out.put_slice(text.as_bytes());
}

fn count(at: &mut &[u8], what: &str) -> Result<u32, FieldError> {
    at.try_get_u32().map_err(|_| FieldError::new("body", format!("{what}: expected a length of 4 bytes")))
}

fn take<'a>(at: &mut &'a [u8], what: &str) -> Result<&'a [u8], FieldError> {
    let len = count(at, what)? as usize;
    let (taken, rest) = at
        .split_at_checked(len)
        .ok_or_else(|| FieldError::new("body", format!("{what}: expected {len} bytes, {} are left", at.len())))?;
    *at = rest;
    Ok(taken)
}
