//! A broker on a disk in memory, driven step by step.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::sync::Arc;

use sluice_broker::{
    Broker, Config, Effect, Error, Fetch, FetchStatus, Fetched, Filter, Opened, Send, Sent, StoreConfig, Topic, open,
};
use sluice_model::{GroupName, Message, Properties, QueueId, QueueOffset, RecordView, Timestamp, TopicName};
use sluice_storage::fake::{FakeDisk, Fate};

pub fn topic(name: &str) -> TopicName {
    TopicName::parse(name).unwrap()
}

pub fn group(name: &str) -> GroupName {
    GroupName::parse(name).unwrap()
}

pub fn message(name: &str, body: &str, pairs: &[(&str, &str)]) -> Message {
    let properties = Properties::from_pairs(pairs.iter().copied()).unwrap();
    Message::new(topic(name), QueueId(0), Timestamp(0), properties, body.to_owned().into())
}

pub fn send_to(queue: u32, messages: Vec<Message>) -> Send {
    Send { messages, queue: Some(QueueId(queue)), template: None, max_reconsume_times: None }
}

/// The field that an error names.
pub fn field(error: &Error) -> &str {
    match error {
        Error::Invalid { field, .. } => field,
        Error::Model(sluice_model::Error::Invalid { field, .. }) => field,
        Error::Store(sluice_storage::Error::Invalid { field, .. }) => field,
        other => panic!("expected an invalid field, got {other:?}"),
    }
}

/// A record as a consumer sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Got {
    pub offset: u64,
    pub body: String,
    pub at: sluice_model::LogOffset,
    pub stored_at: Timestamp,
    pub reconsume_times: i32,
    pub properties: Vec<(String, String)>,
}

impl Got {
    pub fn property(&self, key: &str) -> Option<&str> {
        self.properties.iter().find(|(k, _)| k == key).map(|(_, value)| value.as_str())
    }
}

pub fn parse(fetched: &Fetched) -> Vec<Got> {
    let mut got = Vec::new();
    for piece in &fetched.records {
        let mut rest = &piece[..];
        while !rest.is_empty() {
            let record = RecordView::parse(rest).unwrap();
            record.verify().unwrap();
            got.push(Got {
                offset: record.queue_offset().0,
                body: String::from_utf8(record.body().to_vec()).unwrap(),
                at: record.log_offset(),
                stored_at: record.stored_at(),
                reconsume_times: record.reconsume_times(),
                properties: record.own_properties().map(|(k, v)| (k.to_owned(), v.to_owned())).collect(),
            });
            rest = &rest[record.bytes().len()..];
        }
    }
    assert_eq!(got.len() as u32, fetched.count);
    got
}

pub struct World {
    pub disk: FakeDisk,
    pub store: StoreConfig,
    pub config: Config,
    pub opened: Opened,
    pub now: Timestamp,
}

impl World {
    /// Writes a checkpoint, unless the writer staged something.
    pub fn checkpoint(&mut self) -> Result<(), Error> {
        let draft = self.opened.applier.draft()?;
        Ok(draft.map_or(Ok(()), |draft| self.opened.checkpointer.write(draft))?)
    }

    pub fn new() -> Self {
        Self::with(Config::default(), StoreConfig { segment_len: 1 << 20, reserve_bytes: 0, ..StoreConfig::default() })
    }

    /// Segments of 4 KiB.
    pub fn tiny() -> Self {
        let store = StoreConfig {
            segment_len: 4096,
            allocate_step: 4096,
            reserve_bytes: 0,
            checkpoint_bytes: 2048,
            ..StoreConfig::default()
        };
        Self::with(Config::default(), store)
    }

    pub fn with(config: Config, store: StoreConfig) -> Self {
        Self::on(FakeDisk::new(), config, store, Timestamp(1_000_000))
    }

    fn on(disk: FakeDisk, config: Config, store: StoreConfig, now: Timestamp) -> Self {
        let opened = open(Arc::new(disk.clone()), store.clone(), config.clone()).unwrap();
        Self { disk, store, config, opened, now }
    }

    /// The power goes; what was not synced is lost. The next process comes up.
    pub fn crash(self) -> Self {
        self.crash_with(Fate::Dropped)
    }

    /// The same; each sector of what was not synced is there or not, as the seed has it.
    pub fn crash_torn(self, seed: u64) -> Self {
        Self::on(self.disk.crash(Fate::Torn, seed), self.config, self.store, self.now)
    }

    pub fn crash_with(self, fate: Fate) -> Self {
        Self::on(self.disk.crash(fate, 7), self.config, self.store, self.now)
    }

    pub fn broker(&mut self) -> &mut Broker {
        &mut self.opened.broker
    }

    /// Writes, syncs and applies what is staged.
    pub fn settle(&mut self) -> Vec<Effect> {
        let mut effects = self.opened.broker.take_effects();
        if let Some(written) = self.opened.broker.write().unwrap() {
            self.opened.applier.sync().unwrap();
            self.opened.applier.apply(&written, &mut effects).unwrap();
            self.opened.broker.recycle(written.bytes);
        }
        effects
    }

    pub fn make(&mut self, name: &str, queues: u32) {
        let now = self.now;
        self.broker().put_topic(Topic::new(topic(name), queues), now).unwrap();
        self.settle();
    }

    pub fn try_send(&mut self, send: Send) -> Result<Sent, Error> {
        let now = self.now;
        self.broker().send(send, now)
    }

    pub fn send(&mut self, send: Send) -> Sent {
        let sent = self.try_send(send).unwrap();
        self.settle();
        sent
    }

    pub fn say(&mut self, name: &str, body: &str) -> Sent {
        self.send(send_to(0, vec![message(name, body, &[])]))
    }

    pub fn fetch(&self, name: &str, queue: u32, from: u64, filter: Filter) -> Result<Fetched, Error> {
        self.opened.reader.fetch(&Fetch {
            topic: topic(name),
            queue: QueueId(queue),
            from: QueueOffset(from),
            max_messages: 32,
            max_bytes: 1 << 20,
            filter,
        })
    }

    /// Everything of a queue.
    pub fn all(&self, name: &str, queue: u32) -> Vec<Got> {
        let mut got = Vec::new();
        let mut from = self.opened.reader.bounds(&topic(name), QueueId(queue)).0.0;
        loop {
            let fetched = self.fetch(name, queue, from, Filter::All).unwrap();
            if fetched.status != FetchStatus::Found {
                return got;
            }
            got.extend(parse(&fetched));
            from = fetched.next.0;
        }
    }

    pub fn bodies(&self, name: &str, queue: u32) -> Vec<String> {
        self.all(name, queue).into_iter().map(|got| got.body).collect()
    }

    /// Delivers delayed messages until none is due.
    /// Delivers the messages for a time that are due.
    pub fn deliver_timers(&mut self) {
        let now = self.now;
        while self.broker().deliver_timers(now).unwrap() {
            self.settle();
        }
        self.settle();
    }

    pub fn deliver(&mut self) {
        let now = self.now;
        loop {
            let more = self.broker().deliver_due(now).unwrap();
            self.settle();
            if !more {
                return;
            }
        }
    }
}
