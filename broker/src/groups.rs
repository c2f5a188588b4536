//! Consumer groups: their settings and the view of all that exist. Members are in `members`, offsets in `offsets`.

use std::{collections::HashMap, sync::Arc};

use sluice_model::{GroupName, Properties, RecordView};

use crate::{
    Error,
    codec::{In, Out},
    error::Result,
};

/// Settings of a consumer group. Source of the defaults: Apache RocketMQ `SubscriptionGroupConfig`.
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    pub name: GroupName,
    /// Members may pull.
    pub enabled: bool,
    /// Members may consume as broadcasting.
    pub broadcast: bool,
    /// Failed deliveries of one message before it goes to the dead-letter topic.
    pub retries: u32,
    /// Queues of the group's retry topic.
    pub retry_queues: u32,
}

impl Group {
    pub fn new(name: GroupName) -> Self {
        Self { name, enabled: true, broadcast: true, retries: 16, retry_queues: 1 }
    }

    pub(crate) fn to_properties(&self) -> Result<Properties> {
        let (retries, retry_queues) = (self.retries.to_string(), self.retry_queues.to_string());
        let flag = |on| if on { "true" } else { "false" };
        Ok(Properties::from_pairs([
            ("name", self.name.as_str()),
            ("enabled", flag(self.enabled)),
            ("broadcast", flag(self.broadcast)),
            ("retries", &retries),
            ("retry-queues", &retry_queues),
        ])?)
    }

    fn from_pairs<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)>) -> Result<Self> {
        let pairs: HashMap<&str, &str> = pairs.collect();
        let text = |key: &'static str| pairs.get(key).copied().ok_or(Error::invalid(key, "expected in a group record"));
        let number = |key: &'static str| {
            text(key)?.parse::<u32>().map_err(|_| Error::invalid(key, "expected a number in a group record"))
        };
        Ok(Self {
            name: GroupName::parse(text("name")?)?,
            enabled: text("enabled")? == "true",
            broadcast: text("broadcast")? == "true",
            retries: number("retries")?,
            retry_queues: number("retry-queues")?,
        })
    }
}

/// View: the groups that exist. A record with the property `deleted` removes its group.
#[derive(Default)]
pub struct Groups {
    by_name: HashMap<GroupName, Arc<Group>>,
}

impl Groups {
    pub fn get(&self, name: &GroupName) -> Option<&Arc<Group>> {
        self.by_name.get(name)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Arc<Group>> {
        self.by_name.values()
    }

    /// Answers with the name of the group that the record removed.
    pub(crate) fn apply(&mut self, record: &RecordView<'_>) -> Result<Option<GroupName>> {
        if let Some(name) = record.property("deleted") {
            let name = GroupName::parse(name)?;
            self.by_name.remove(&name);
            return Ok(Some(name));
        }
        let group = Group::from_pairs(record.own_properties())?;
        self.by_name.insert(group.name.clone(), Arc::new(group));
        Ok(None)
    }

    pub(crate) fn snapshot(&self, out: &mut Out) -> Result<()> {
        out.u32(self.by_name.len() as u32);
        for group in self.by_name.values() {
            out.bytes(group.to_properties()?.as_bytes());
        }
        Ok(())
    }

    pub(crate) fn restore(&mut self, from: &mut In<'_>) -> Result<()> {
        for _ in 0..from.u32()? {
            let properties = Properties::parse(from.bytes()?.to_vec())?;
            let group = Group::from_pairs(properties.iter())?;
            self.by_name.insert(group.name.clone(), Arc::new(group));
        }
        Ok(())
    }
}
