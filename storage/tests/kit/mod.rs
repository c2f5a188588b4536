//! What the tests of the log share: views that remember, messages, and a world around an open log.
#![allow(dead_code, reason = "no test file uses all of it")]

pub mod driver;

use std::sync::Arc;

use sluice_model::{Host, LogOffset, Message, Properties, QueueId, QueueOffset, RecordView, Timestamp, TopicName};
use sluice_storage::{Applied, Config, Disk, Entry, Error, Opened, Views, Written, open};

/// Remembers every record it was given, in order.
#[derive(Default, Clone, Debug, PartialEq, Eq)]
pub struct Seen(pub Vec<Record>);

#[derive(Clone, PartialEq, Eq)]
pub struct Record {
    pub at: u64,
    pub topic: String,
    pub queue: u32,
    pub offset: u64,
    pub body: Vec<u8>,
}

impl std::fmt::Debug for Record {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { at, topic, queue, offset, body } = self;
        write!(f, "{topic}/{queue}#{offset}@{at}({})", body.escape_ascii())
    }
}

/// A record of this topic deletes the topic that its body names.
pub const DELETIONS: &str = "DELETIONS";

impl Views for Seen {
    fn apply(&mut self, record: &RecordView<'_>) -> Result<Applied, String> {
        self.0.push(Record {
            at: record.log_offset().0,
            topic: record.topic().to_owned(),
            queue: record.queue().0,
            offset: record.queue_offset().0,
            body: record.body().to_vec(),
        });
        if record.topic() == DELETIONS {
            let name = std::str::from_utf8(record.body()).map_err(|error| error.to_string())?;
            return Ok(Applied::DeleteTopic(topic(name)));
        }
        Ok(Applied::Nothing)
    }

    fn snapshot(&self, out: &mut Vec<u8>) {
        for record in &self.0 {
            out.extend_from_slice(&record.at.to_be_bytes());
            out.extend_from_slice(&record.queue.to_be_bytes());
            out.extend_from_slice(&record.offset.to_be_bytes());
            for text in [record.topic.as_bytes(), &record.body] {
                out.extend_from_slice(&(text.len() as u32).to_be_bytes());
                out.extend_from_slice(text);
            }
        }
    }

    fn restore(&mut self, mut from: &[u8]) -> Result<(), String> {
        fn number<const N: usize>(from: &mut &[u8]) -> [u8; N] {
            let (number, rest) = from.split_at(N);
            *from = rest;
            number.try_into().unwrap()
        }
        fn text(from: &mut &[u8]) -> Vec<u8> {
            let len = u32::from_be_bytes(number(from)) as usize;
            let (text, rest) = from.split_at(len);
            *from = rest;
            text.to_vec()
        }
        while !from.is_empty() {
            let at = u64::from_be_bytes(number(&mut from));
            let queue = u32::from_be_bytes(number(&mut from));
            let offset = u64::from_be_bytes(number(&mut from));
            let topic = String::from_utf8(text(&mut from)).unwrap();
            let body = text(&mut from);
            self.0.push(Record { at, topic, queue, offset, body });
        }
        Ok(())
    }
}

pub fn topic(name: &str) -> TopicName {
    TopicName::parse(name).unwrap()
}

pub fn message(name: &str, queue: u32, body: &[u8]) -> Message {
    let properties = Properties::from_pairs([("TAGS", "t")]).unwrap();
    Message::new(topic(name), QueueId(queue), Timestamp(0), properties, body.to_vec().into())
}

pub fn keyed(name: &str, queue: u32, body: &[u8], unique: &str, words: &str) -> Message {
    let properties = Properties::from_pairs([("UNIQ_KEY", unique), ("KEYS", words)]).unwrap();
    Message { properties, ..message(name, queue, body) }
}

/// Small files, so that everything that happens rarely happens often.
pub fn small() -> Config {
    Config {
        segment_len: 4096,
        allocate_step: 4096,
        reserve_bytes: 0,
        checkpoint_bytes: 2048,
        pending_bytes: 1 << 20,
        index_run_entries: 16,
        ..Config::default()
    }
}

/// An open log with its views.
pub struct World {
    pub log: Opened,
    pub views: Seen,
    pub now: Timestamp,
}

impl World {
    pub fn open(disk: &(impl Disk + Clone + 'static), config: Config) -> Result<Self, Error> {
        Self::open_on(Arc::new(disk.clone()), config)
    }

    pub fn open_on(disk: Arc<dyn Disk>, config: Config) -> Result<Self, Error> {
        let mut views = Seen::default();
        let log = open(disk, config, &mut views)?;
        Ok(Self { log, views, now: Timestamp(1000) })
    }

    /// Stages and writes one unit.
    pub fn append(&mut self, unit: &[Message]) -> Result<Written, Error> {
        self.log.appender.stage(unit, self.now, Host::LOCAL)?;
        Ok(self.log.appender.write()?.unwrap())
    }

    /// Appends one unit, makes it durable and applies it.
    pub fn put(&mut self, unit: &[Message]) -> Result<(), Error> {
        let written = self.append(unit)?;
        self.finish(written)
    }

    pub fn finish(&mut self, written: Written) -> Result<(), Error> {
        self.log.syncer.sync()?;
        self.log.applier.apply(&written, &mut self.views)?;
        self.log.appender.recycle(written.bytes);
        Ok(())
    }

    pub fn checkpoint(&mut self) -> Result<(), Error> {
        let draft = self.log.applier.draft(&self.views)?;
        self.log.checkpointer.write(draft)
    }

    pub fn bounds(&self, name: &str, queue: u32) -> Option<(u64, u64)> {
        let bounds = self.log.reader.bounds(&topic(name), QueueId(queue));
        bounds.map(|(min, end)| (min.0, end.0))
    }

    pub fn entries(&self, name: &str, queue: u32, from: u64, max: usize) -> Vec<Entry> {
        let mut out = Vec::new();
        self.log.reader.entries(&topic(name), QueueId(queue), QueueOffset(from), max, &mut out);
        out
    }

    /// Bodies of all messages of a queue, as a consumer gets them; checks every record on the way.
    pub fn bodies(&self, name: &str, queue: u32) -> Vec<Vec<u8>> {
        let Some((min, end)) = self.bounds(name, queue) else { return Vec::new() };
        let entries = self.entries(name, queue, min, usize::MAX);
        assert_eq!(entries.len() as u64, end - min, "every entry within the bounds is there");
        let read = |(entry, offset): (&Entry, u64)| {
            let bytes = self.log.reader.record(entry.log_offset, entry.size).unwrap();
            let record = RecordView::parse(&bytes).unwrap();
            record.verify().unwrap();
            assert_eq!((record.topic(), record.queue().0), (name, queue));
            assert_eq!((record.queue_offset().0, entry.queue_offset.0), (offset, offset));
            assert_eq!(record.tag_code(), entry.tag);
            record.body().to_vec()
        };
        entries.iter().zip(min..).map(read).collect()
    }

    pub fn by_key(&self, name: &str, key: &str) -> Vec<LogOffset> {
        let (from, to) = (Timestamp(i64::MIN), Timestamp(i64::MAX));
        self.log.reader.by_key(&topic(name), key, from, to, 1000).unwrap()
    }
}
