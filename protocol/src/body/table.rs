//! Small bodies that many requests share.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::json_bodies;
use crate::FieldError;

/// Names and values.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct KvTableBody {
    pub table: BTreeMap<String, String>,
}

/// Names of topics.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TopicListBody {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub broker_addr: Option<String>,
    #[serde(rename = "topicList")]
    pub topics: BTreeSet<String>,
}

/// Names of groups.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct GroupListBody {
    #[serde(rename = "groupList")]
    pub groups: BTreeSet<String>,
}

/// State of a set of things that changes as a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct VersionBody {
    pub counter: i64,
    pub state_version: i64,
    /// Ms since 1970.
    pub timestamp: i64,
}

/// Offsets of all groups.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConsumerOffsetsBody {
    pub data_version: VersionBody,
    /// By `topic@group`, then by queue.
    #[serde(rename = "offsetTable")]
    pub offsets: BTreeMap<String, BTreeMap<u32, i64>>,
}

json_bodies!(KvTableBody, TopicListBody, GroupListBody, VersionBody, ConsumerOffsetsBody);

/// Configuration as lines of `key=value`, as Java's `Properties` writes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConfigText(pub BTreeMap<String, String>);

impl ConfigText {
    /// Reads lines of `key=value`; empty lines and lines beginning with `#` or `!` are passed over.
    pub fn parse(text: &str) -> Result<Self, FieldError> {
        let mut values = BTreeMap::new();
        for (at, line) in text.lines().map(str::trim).enumerate() {
            if line.is_empty() || line.starts_with(['#', '!']) {
                continue;
            }
            let pair = line.split_once('=');
            let bad = || FieldError::new("body", format!("line {}: expected key=value, got {line:?}", at + 1));
            let (key, value) = pair.map(|(key, value)| (key.trim(), value.trim())).ok_or_else(bad)?;
            if key.is_empty() {
                return Err(bad());
            }
            values.insert(key.to_owned(), value.to_owned());
        }
        Ok(Self(values))
    }

    pub fn to_text(&self) -> String {
        self.0.iter().map(|(key, value)| format!("{key}={value}\n")).collect()
    }
}
