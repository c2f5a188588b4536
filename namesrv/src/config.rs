use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use sluice_protocol::body::ConfigText;
use sluice_transport::Limits;

/// How the name server runs.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where configuration values are kept; `None`: in memory only.
    pub data_dir: Option<PathBuf>,
    /// A broker that gives no sign of life for so long is taken out, unless it named a time itself.
    pub broker_timeout: Duration,
    /// Whether clients may list the names of all topics.
    pub list_topics: bool,
    pub limits: Limits,
}

impl Default for Config {
    fn default() -> Self {
        Self { data_dir: None, broker_timeout: Duration::from_secs(120), list_topics: true, limits: Limits::default() }
    }
}

impl Config {
    /// The values under Apache RocketMQ's names.
    pub(crate) fn to_text(&self) -> String {
        let values = [
            ("brokerTimeoutMillis", self.broker_timeout.as_millis().to_string()),
            ("enableAllTopicList", self.list_topics.to_string()),
            ("enableTopicList", self.list_topics.to_string()),
        ];
        ConfigText(BTreeMap::from(values.map(|(key, value)| (key.to_owned(), value)))).to_text()
    }
}
