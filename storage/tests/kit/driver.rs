//! Drives a log through a script and knows what must be there afterwards, whatever happened on the way.

use std::collections::{BTreeMap, VecDeque};

use sluice_model::{Host, LogOffset, Message, RecordView};
use sluice_storage::{Config, Disk, Draft, Error, Retention, Written, fake::FakeDisk};

use super::{DELETIONS, Record, Seen, World, keyed, message, topic};

#[derive(Clone, Debug)]
pub enum Step {
    /// One unit: topic, queue and size of each message.
    Append(Vec<(u8, u8, u16)>),
    Sync,
    Apply,
    /// Drafts a checkpoint, to be written later.
    Draft,
    /// Writes the draft that is out, or a new one.
    Checkpoint,
    Mark,
    /// What a checkpoint needs is done before it is drafted.
    Ahead,
    /// Keep at most this many bytes.
    Retain(u64),
    /// Keep so many milliseconds of a topic.
    Expire(u8, u16),
    Delete(u8),
}

/// What was appended, and how much of it was durable when the world ended.
#[derive(Default, Clone)]
pub struct History {
    pub units: Vec<Vec<Record>>,
    pub durable_units: usize,
    pub messages: u64,
    /// Where queues were made to begin; after a crash they may begin earlier again.
    pub expired: BTreeMap<(String, u32), u64>,
}

pub struct Driver {
    pub world: World,
    pub history: History,
    synced: VecDeque<Written>,
    unsynced: VecDeque<(Written, usize)>,
    draft: Option<Draft>,
}

pub fn topic_name(n: u8) -> String {
    format!("topic-{n}")
}

impl Driver {
    pub fn new(world: World, history: History) -> Self {
        Self { world, history, synced: VecDeque::new(), unsynced: VecDeque::new(), draft: None }
    }

    pub fn run(&mut self, steps: &[Step]) -> Result<(), Error> {
        steps.iter().try_for_each(|step| self.step(step))
    }

    pub fn step(&mut self, step: &Step) -> Result<(), Error> {
        self.world.now = self.world.now.plus_ms(10);
        match step {
            Step::Append(unit) => {
                let unit = unit.iter().map(|spec| self.message(*spec)).collect::<Vec<_>>();
                self.append(&unit)
            }
            Step::Delete(n) => {
                let name = topic_name(*n);
                self.append(&[message(DELETIONS, 0, name.as_bytes())])?;
                self.world.log.appender.forget(&topic(&name));
                Ok(())
            }
            Step::Sync => {
                self.world.log.syncer.sync()?;
                for (written, units) in self.unsynced.drain(..) {
                    self.history.durable_units = units;
                    self.synced.push_back(written);
                }
                Ok(())
            }
            Step::Apply => {
                while let Some(written) = self.synced.pop_front() {
                    self.world.log.applier.apply(&written, &mut self.world.views)?;
                }
                Ok(())
            }
            Step::Draft => {
                if self.draft.is_none() {
                    self.draft = Some(self.world.log.applier.draft(&self.world.views)?);
                }
                Ok(())
            }
            Step::Checkpoint => match self.draft.take() {
                Some(draft) => self.world.log.checkpointer.write(draft),
                None => self.world.checkpoint(),
            },
            Step::Mark => self.world.log.checkpointer.mark_durable(),
            Step::Ahead => self.world.log.checkpointer.work_ahead(),
            Step::Retain(max_bytes) => {
                let policy = Retention { max_age_ms: None, max_bytes: Some(*max_bytes) };
                self.world.log.applier.retain(self.world.now, &policy, LogOffset(u64::MAX)).map(drop)
            }
            Step::Expire(n, ms) => self.expire(&topic_name(*n), *ms),
        }
    }

    fn expire(&mut self, name: &str, ms: u16) -> Result<(), Error> {
        // What is dead reads nothing, so that there is nothing to compare.
        self.world.log.reader.free_bytes()?;
        let time = self.world.now.plus_ms(-i64::from(ms));
        let queues = self.world.log.reader.queues(&topic(name));
        let starts: Vec<u64> = queues
            .iter()
            .map(|(id, min, end)| {
                let kept = self.world.entries(name, id.0, min.0, usize::MAX).into_iter().find(|entry| {
                    let bytes = self.world.log.reader.record(entry.log_offset, entry.size).unwrap();
                    RecordView::parse(&bytes).unwrap().stored_at() >= time
                });
                kept.map_or(end.0, |entry| entry.queue_offset.0)
            })
            .collect();
        self.world.log.applier.expire(&topic(name), time)?;
        for ((id, _, _), start) in queues.iter().zip(starts) {
            assert_eq!(self.world.bounds(name, id.0).unwrap().0, start, "{name}/{id} begins with what is as young");
            let expired = self.history.expired.entry((name.to_owned(), id.0)).or_default();
            *expired = start.max(*expired);
        }
        Ok(())
    }

    fn message(&mut self, (name, queue, size): (u8, u8, u16)) -> Message {
        self.history.messages += 1;
        let n = self.history.messages;
        let mut body = format!("{n}:").into_bytes();
        body.resize(body.len() + size as usize, b'.');
        keyed(&topic_name(name), u32::from(queue), &body, &format!("u{n}"), &format!("k{} all", n % 5))
    }

    fn append(&mut self, unit: &[Message]) -> Result<(), Error> {
        let placements = self.world.log.appender.stage(unit, self.world.now, Host::LOCAL)?;
        let record = |(message, place): (&Message, &sluice_model::record::Placement)| Record {
            at: place.log_offset.0,
            topic: message.topic.to_string(),
            queue: message.queue.0,
            offset: place.queue_offset.0,
            body: message.body.to_vec(),
        };
        // Even when the write fails, the bytes may be there at the next start.
        self.history.units.push(unit.iter().zip(&placements).map(record).collect());
        let written = self.world.log.appender.write()?.unwrap();
        self.unsynced.push_back((written, self.history.units.len()));
        Ok(())
    }
}

/// Opens what a crash left and checks it; returns the world and the history that survived.
pub fn reopen(disk: &FakeDisk, config: &Config, history: &History) -> (World, History) {
    let world = World::open(disk, config.clone()).unwrap_or_else(|error| panic!("open: {error}"));
    let survived = check(&world, history);
    (world, survived)
}

/// Everything durable is there once, in order; no unit is there in part; queues, keys and views agree with the log.
pub fn check(world: &World, history: &History) -> History {
    let seen = &world.views;
    let mut units = 0;
    let mut expected = Vec::new();
    while expected.len() < seen.0.len() {
        assert!(units < history.units.len(), "more records than were appended");
        expected.extend(history.units[units].iter().cloned());
        units += 1;
    }
    assert_eq!(seen.0, expected, "whole units, in order, each record once");
    assert!(units >= history.durable_units, "{units} units are there, {} were durable", history.durable_units);
    check_queues(world, &history.expired);
    check_keys(world);
    let (units, durable_units) = (history.units[..units].to_vec(), units);
    History { units, durable_units, messages: history.messages, expired: history.expired.clone() }
}

/// The queues that follow from the records.
fn model(seen: &Seen) -> BTreeMap<(String, u32), Vec<Record>> {
    let mut queues: BTreeMap<(String, u32), Vec<Record>> = BTreeMap::new();
    for record in &seen.0 {
        let queue = queues.entry((record.topic.clone(), record.queue)).or_default();
        assert_eq!(record.offset, queue.len() as u64, "offsets are dense");
        queue.push(record.clone());
        if record.topic == DELETIONS {
            let deleted = String::from_utf8(record.body.clone()).unwrap();
            queues.retain(|(topic, _), _| *topic != deleted);
        }
    }
    queues
}

fn check_queues(world: &World, expired: &BTreeMap<(String, u32), u64>) {
    let start = world.log.reader.start().0;
    let model = model(&world.views);
    for ((name, queue), records) in &model {
        let mut there: Vec<&Record> = records.iter().filter(|record| record.at >= start).collect();
        let (min, end) = world.bounds(name, *queue).unwrap();
        assert_eq!(end, records.len() as u64, "end of {name}/{queue}");
        let first = end - there.len() as u64;
        let latest = expired.get(&(name.clone(), *queue)).map_or(first, |expired| first.max(*expired));
        assert!((first..=latest).contains(&min), "{name}/{queue} begins at {min}, not {first} to {latest}");
        there.retain(|record| record.offset >= min);
        let bodies: Vec<Vec<u8>> = there.iter().map(|record| record.body.clone()).collect();
        assert_eq!(world.bodies(name, *queue), bodies, "{name}/{queue}");
        let places: Vec<u64> = world.entries(name, *queue, min, usize::MAX).iter().map(|e| e.log_offset.0).collect();
        assert_eq!(places, there.iter().map(|record| record.at).collect::<Vec<_>>());
    }
    let mut topics: Vec<&String> = model.keys().map(|(topic, _)| topic).collect();
    topics.dedup();
    let present = world.log.reader.topics();
    assert_eq!(present.iter().map(|topic| topic.as_str()).collect::<Vec<_>>(), topics);
}

fn check_keys(world: &World) {
    let start = world.log.reader.start().0;
    let mut all: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
    for record in world.views.0.iter().filter(|record| record.at >= start) {
        let bytes = world.log.reader.record_at(LogOffset(record.at)).unwrap();
        let view = RecordView::parse(&bytes).unwrap();
        let found = |key: &str| world.by_key(&record.topic, key).iter().map(|at| at.0).collect::<Vec<_>>();
        if let Some(unique) = view.property("UNIQ_KEY") {
            assert_eq!(found(unique), [record.at], "{unique}");
            all.entry(&record.topic).or_default().insert(0, record.at);
        }
    }
    for (topic, places) in all {
        let found: Vec<u64> = world.by_key(topic, "all").iter().map(|at| at.0).collect();
        assert_eq!(found, places, "all keys of {topic}, newest first");
    }
}

/// A disk with nothing but the files of the log.
pub fn only_the_log(disk: &FakeDisk) -> FakeDisk {
    let copy = FakeDisk::new();
    copy.create_dir("commitlog").unwrap();
    for path in disk.paths().iter().filter(|path| path.starts_with("commitlog/")) {
        let content = disk.content(path).unwrap();
        copy.create(path, content.len() as u64).unwrap().write_at(&content, 0).unwrap();
    }
    copy
}
