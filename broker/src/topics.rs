//! Topics: what a topic is, and the view of all that exist.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use sluice_model::{LogOffset, Properties, QueueId, RecordView, TopicName, limits};

use crate::{
    Error,
    codec::{In, Out},
    error::Result,
};

/// When a message counts as acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Durability {
    /// Acknowledged means on disk.
    #[default]
    Sync,
    /// Acknowledged means taken; the disk follows within moments, and a crash may lose what it had not.
    Async,
}

/// Least time for which a topic keeps its messages.
const LEAST_RETENTION_MS: i64 = 1_000;

/// What a topic is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum TopicKind {
    #[default]
    Normal,
    Fifo,
    Delay,
    Transaction,
}

/// Who may do what with a topic, as Apache RocketMQ's bits: 4 read, 2 write, 1 inherit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Permission(pub u32);

impl Permission {
    pub const READ_WRITE: Self = Self(6);

    pub fn readable(self) -> bool {
        self.0 & 4 != 0
    }

    pub fn writable(self) -> bool {
        self.0 & 2 != 0
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Topic {
    pub name: TopicName,
    pub read_queues: u32,
    pub write_queues: u32,
    pub permission: Permission,
    pub kind: TopicKind,
    /// Clients are told to use one broker's queues in a fixed order.
    pub ordered: bool,
    /// `None` follows the broker's setting.
    pub durability: Option<Durability>,
    /// For how long messages stay, milliseconds: at least 1,000. `None`: as long as the log has them.
    pub retention_ms: Option<i64>,
    pub attributes: BTreeMap<String, String>,
}

impl Topic {
    pub fn new(name: TopicName, queues: u32) -> Self {
        Self {
            name,
            read_queues: queues,
            write_queues: queues,
            permission: Permission::READ_WRITE,
            kind: TopicKind::Normal,
            ordered: false,
            durability: None,
            retention_ms: None,
            attributes: BTreeMap::new(),
        }
    }

    /// The queue for a message that was held back while the topic may have lost queues.
    pub(crate) fn queue_for(&self, wanted: QueueId) -> QueueId {
        let queues = self.write_queues.max(self.read_queues);
        if wanted.0 < queues { wanted } else { QueueId(wanted.0 % self.write_queues.max(1)) }
    }

    /// Fails with the field that is out of range.
    pub fn check(&self) -> Result<()> {
        for (field, queues) in [("readQueueNums", self.read_queues), ("writeQueueNums", self.write_queues)] {
            if !(1..=limits::TOPIC_QUEUES).contains(&queues) {
                return Err(Error::invalid(field, format!("expected 1 to {}, got {queues}", limits::TOPIC_QUEUES)));
            }
        }
        if self.permission.0 > 7 {
            return Err(Error::invalid("perm", format!("expected 0 to 7, got {}", self.permission.0)));
        }
        if let Some(ms) = self.retention_ms.filter(|ms| *ms < LEAST_RETENTION_MS) {
            return Err(Error::invalid("retention", format!("expected at least a second, got {ms} ms")));
        }
        Ok(())
    }

    pub(crate) fn to_properties(&self) -> Result<Properties> {
        let (read, write) = (self.read_queues.to_string(), self.write_queues.to_string());
        let permission = self.permission.0.to_string();
        let kind = kind_text(self.kind);
        let durability = match self.durability {
            None => "",
            Some(Durability::Sync) => "sync",
            Some(Durability::Async) => "async",
        };
        let ordered = if self.ordered { "true" } else { "false" };
        let retention = self.retention_ms.map(|ms| ms.to_string());
        let plain = [
            ("name", self.name.as_str()),
            ("read", &read),
            ("write", &write),
            ("permission", &permission),
            ("kind", kind),
            ("ordered", ordered),
            ("durability", durability),
        ];
        let retention = retention.iter().map(|ms| ("retention", ms.as_str()));
        let named: Vec<(String, &str)> =
            self.attributes.iter().map(|(key, value)| (format!("attribute.{key}"), value.as_str())).collect();
        let named = named.iter().map(|(key, value)| (key.as_str(), *value));
        Ok(Properties::from_pairs(plain.into_iter().chain(retention).chain(named))?)
    }

    fn from_record(record: &RecordView<'_>) -> Result<Self> {
        Self::from_pairs(record.own_properties())
    }

    fn from_pairs<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)>) -> Result<Self> {
        let pairs: HashMap<&str, &str> = pairs.collect();
        let text = |key: &'static str| pairs.get(key).copied().ok_or(Error::invalid(key, "expected in a topic record"));
        let number = |key: &'static str| {
            text(key)?.parse::<u32>().map_err(|_| Error::invalid(key, "expected a number in a topic record"))
        };
        Ok(Self {
            name: TopicName::parse(text("name")?)?,
            read_queues: number("read")?,
            write_queues: number("write")?,
            permission: Permission(number("permission")?),
            kind: parse_kind(text("kind")?)?,
            ordered: text("ordered")? == "true",
            durability: match text("durability")? {
                "sync" => Some(Durability::Sync),
                "async" => Some(Durability::Async),
                _ => None,
            },
            // Topics of earlier versions have none.
            retention_ms: pairs.get("retention").map(|ms| retention(ms)).transpose()?,
            attributes: pairs
                .iter()
                .filter_map(|(key, value)| Some((key.strip_prefix("attribute.")?.to_owned(), (*value).to_owned())))
                .collect(),
        })
    }
}

fn retention(ms: &str) -> Result<i64> {
    ms.parse().map_err(|_| Error::invalid("retention", "expected milliseconds in a topic record"))
}

pub fn kind_text(kind: TopicKind) -> &'static str {
    match kind {
        TopicKind::Normal => "normal",
        TopicKind::Fifo => "fifo",
        TopicKind::Delay => "delay",
        TopicKind::Transaction => "transaction",
    }
}

/// Fails with the field `type`.
pub fn parse_kind(text: &str) -> Result<TopicKind> {
    [TopicKind::Normal, TopicKind::Fifo, TopicKind::Delay, TopicKind::Transaction]
        .into_iter()
        .find(|kind| kind_text(*kind) == text)
        .ok_or_else(|| Error::invalid("type", format!("expected normal, fifo, delay or transaction, got {text:?}")))
}

/// View: the topics that exist. A record with the property `deleted` removes its topic.
#[derive(Default)]
pub struct Topics {
    by_name: HashMap<TopicName, Arc<Topic>>,
    /// Where the last deletion of a name stands; until it is readable, queues of that name are those deleted.
    deletions: HashMap<TopicName, LogOffset>,
    /// Grows with every change; tells routes apart.
    pub version: u64,
}

impl Topics {
    pub fn get(&self, name: &str) -> Option<&Arc<Topic>> {
        self.by_name.get(name)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Arc<Topic>> {
        self.by_name.values()
    }

    /// Whether queues of this name may still be those of a topic that was deleted.
    pub(crate) fn is_being_deleted(&self, name: &TopicName, readable: LogOffset) -> bool {
        self.deletions.get(name).is_some_and(|at| *at >= readable)
    }

    /// Forgets deletions that are readable.
    pub(crate) fn settle_deletions(&mut self, readable: LogOffset) {
        self.deletions.retain(|_, at| *at >= readable);
    }

    /// Adds a topic that is there without a record: the broker's own.
    pub(crate) fn build_in(&mut self, topic: Topic) {
        self.by_name.insert(topic.name.clone(), Arc::new(topic));
    }

    /// Answers with the name of the topic that the record removed.
    pub(crate) fn apply(&mut self, record: &RecordView<'_>) -> Result<Option<TopicName>> {
        self.version += 1;
        if let Some(name) = record.property("deleted") {
            let name = TopicName::parse(name)?;
            self.by_name.remove(&name);
            self.deletions.insert(name.clone(), record.log_offset());
            return Ok(Some(name));
        }
        let topic = Topic::from_record(record)?;
        self.by_name.insert(topic.name.clone(), Arc::new(topic));
        Ok(None)
    }

    pub(crate) fn snapshot(&self, out: &mut Out) -> Result<()> {
        out.u64(self.version).u32(self.by_name.len() as u32);
        for topic in self.by_name.values() {
            out.bytes(topic.to_properties()?.as_bytes());
        }
        Ok(())
    }

    pub(crate) fn restore(&mut self, from: &mut In<'_>) -> Result<()> {
        self.version = from.u64()?;
        for _ in 0..from.u32()? {
            let properties = Properties::parse(from.bytes()?.to_vec())?;
            let topic = Topic::from_pairs(properties.iter())?;
            self.by_name.insert(topic.name.clone(), Arc::new(topic));
        }
        Ok(())
    }
}
