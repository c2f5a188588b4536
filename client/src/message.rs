use std::borrow::Cow;

use bytes::Bytes;
use sluice_model::{Properties, key, limits};

use crate::Error;

/// A message to be sent.
#[derive(Clone, Debug)]
pub struct Message {
    pub topic: String,
    pub body: Bytes,
    pub properties: Vec<(String, String)>,
    /// For the application's own use.
    pub flag: i32,
}

impl Message {
    pub fn new(topic: impl Into<String>, body: impl Into<Bytes>) -> Self {
        Self { topic: topic.into(), body: body.into(), properties: Vec::new(), flag: 0 }
    }

    /// The tag by which consumers may choose.
    pub fn tag(self, tag: &str) -> Self {
        self.property(key::TAGS, tag)
    }

    /// Keys by which the message can be found, separated by blanks.
    pub fn key(self, keys: &str) -> Self {
        self.property(key::KEYS, keys)
    }

    /// Delivered later: level 1 to 18 of the broker's table (1s 5s 10s 30s 1m … 2h).
    pub fn delay_level(self, level: u8) -> Self {
        self.property(key::DELAY, &level.to_string())
    }

    /// Delivered so many milliseconds later.
    pub fn delay_ms(self, ms: i64) -> Self {
        self.property(key::TIMER_DELAY_MS, &ms.to_string())
    }

    /// Delivered at a time, ms since 1970.
    pub fn deliver_at(self, ms: i64) -> Self {
        self.property(key::TIMER_DELIVER_MS, &ms.to_string())
    }

    /// Sets a property.
    pub fn property(mut self, name: &str, value: &str) -> Self {
        self.properties.retain(|(key, _)| key != name);
        self.properties.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Fails when the body or the properties are too large or malformed.
    pub(crate) fn checked(&self) -> Result<Properties, Error> {
        if self.body.len() > limits::BODY_LEN {
            let problem = format!("expected at most {} bytes, got {}", limits::BODY_LEN, self.body.len());
            return Err(Error::Invalid { field: "body", problem });
        }
        let pairs = self.properties.iter().map(|(key, value)| (key.as_str(), value.as_str()));
        Ok(Properties::from_pairs(pairs)?)
    }
}

/// The same properties with more of them.
pub(crate) fn with(properties: &Properties, more: &[(&'static str, &str)]) -> Result<Properties, Error> {
    let more: Vec<_> = more.iter().map(|(key, value)| (*key, Some(Cow::Borrowed(*value)))).collect();
    Ok(properties.changed(&more)?)
}
