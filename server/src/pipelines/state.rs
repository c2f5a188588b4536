//! What the processors of a pipeline keep: a file beside the log, and the topic that holds its changes.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use parking_lot::Mutex;
use sluice_broker::{Boundary, Fetch, Filter, Reader, Retention, state_topic};
use sluice_model::{Kind, LogOffset, QueueId, QueueOffset, RecordView, Timestamp, TopicName, limits};
use sluice_runtime::{
    ports::{Changelog, PortError},
    state::{Engine, Page, Partition, Shared, StateError},
};

use super::queue::trouble;
use crate::{
    clock,
    failure::{Failure, Result},
    record::unsigned,
    shell::Shell,
};

/// Bytes of entries that are looked at together, of all queues; an entry that has more is looked at alone.
const PAGE_BYTES: usize = 4 * 1024 * 1024;

/// Where a pipeline's state is. A pipeline that begins anew gets another.
#[derive(Clone)]
pub(super) struct Place {
    pub topic: TopicName,
    pub file: PathBuf,
}

impl Place {
    /// `incarnation` tells a pipeline from those that had its name before.
    pub fn new(folder: &Path, pipeline: &str, incarnation: u64) -> Result<Self> {
        let name = format!("{pipeline}_{incarnation}");
        Ok(Self { topic: state_topic(&name)?, file: folder.join(name) })
    }

    /// Deletes the files in the folder that belong to none of the places.
    pub fn sweep(folder: &Path, places: &[Self]) {
        // A folder that is not there, or cannot be read, has nothing to delete.
        for file in std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()) {
            if !places.iter().any(|place| place.file == file) {
                remove(&file);
            }
        }
    }

    /// Where one of two versions keeps what it keeps while they are compared.
    pub fn beside(&self, side: &str) -> PathBuf {
        let mut name = self.file.clone().into_os_string();
        name.push(format!(".{side}"));
        name.into()
    }

    /// Deletes the file; the topic is the caller's.
    pub fn remove_file(&self) {
        remove(&self.file);
    }
}

pub(super) fn remove(file: &Path) {
    if let Err(problem) = std::fs::remove_file(file)
        && problem.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!(file = %file.display(), %problem, "the file of a state that is over stays");
    }
}

/// The state of a running pipeline: a partition for each queue of its source.
pub struct States {
    shell: Shell,
    pub(super) topic: TopicName,
    /// `None` when it is closed.
    engine: Mutex<Option<Arc<Engine>>>,
    /// Memory for what is hot, of all queues together, bytes.
    memory: usize,
    /// By queue of the source, of those that have a stage.
    partitions: Mutex<BTreeMap<u32, Shared>>,
}

/// An entry of a store.
pub struct Found {
    pub queue: u32,
    pub key: Vec<u8>,
    pub value: Vec<u8>,
}

impl States {
    pub(super) fn open(shell: Shell, place: &Place, memory: usize) -> Result<Self> {
        let engine = engine(&place.file)?;
        let engine = Mutex::new(Some(engine));
        Ok(Self { shell, topic: place.topic.clone(), engine, memory, partitions: Mutex::default() })
    }

    /// Makes the topic of changes as wide as the source.
    pub(super) fn make_room(&self, queues: u32) -> Result<()> {
        let topic = self.topic.clone();
        self.shell.ask_blocking(move |broker, now| broker.put_state_topic(&topic, queues, now))
    }

    /// Opens the state of a queue; reads what the file does not have from the log. [`Self::share`] is to follow when its stage is open.
    pub(super) fn open_queue(&self, queue: QueueId, queues: u32) -> Result<Shared> {
        let mut changes = Changes { reader: self.shell.reader.clone(), topic: self.topic.clone(), queue };
        let memory = self.memory / queues.max(1) as usize;
        let engine = self.engine.lock().clone().ok_or_else(closed)?;
        let partition = Partition::open(engine, queue.0, memory, &mut changes).map_err(|e| broken(&e))?;
        Ok(Arc::new(Mutex::new(Some(Box::new(partition)))))
    }

    /// Lets others look into the state of a queue.
    pub(super) fn share(&self, queue: QueueId, partition: Shared) {
        self.partitions.lock().insert(queue.0, partition);
    }

    /// Lets go of the file, once the stages have closed what they share.
    pub(super) fn close(&self) {
        self.engine.lock().take();
    }

    /// Whether the file could not be read or written; nothing more can be until it is opened anew.
    pub(super) fn have_failed(&self) -> bool {
        self.engine.lock().as_ref().is_some_and(|engine| engine.has_failed())
    }

    /// What is kept of a queue of the source, to be shared with its stage; fails with `NotFound`.
    pub(super) fn partition(&self, queue: QueueId) -> Result<Shared> {
        let found = self.partitions.lock().get(&queue.0).cloned();
        found.ok_or_else(|| Failure::not_found("queue", format!("{queue} of the pipeline's source")))
    }

    /// How many changes of a queue are on the log's disk.
    pub(super) fn durable(reader: &Reader, topic: &TopicName, queue: QueueId) -> u64 {
        reader.bounds(topic, queue).1.0
    }

    /// The first change of a queue that retention leaves alone for as long again as it has left it alone.
    pub(super) fn fading(
        reader: &Reader,
        topic: &TopicName,
        queue: QueueId,
        retention: &Retention,
        now: Timestamp,
    ) -> u64 {
        let (min, end) = reader.bounds(topic, queue);
        let by_age = retention.max_age_ms.and_then(|age| {
            // A queue that is not there any more has nothing to carry.
            reader.offset_at_time(topic, queue, now.plus_ms(-age / 2), Boundary::Lower).ok()
        });
        let by_size = retention.max_bytes.map(|most| {
            let from = LogOffset(reader.store().appended().0.saturating_sub(most / 2));
            let before = |offset: u64| reader.log_offset(topic, queue, QueueOffset(offset)).is_none_or(|at| at < from);
            let (mut low, mut high) = (min.0, end.0);
            while low < high {
                let middle = low + (high - low) / 2;
                if before(middle) { low = middle + 1 } else { high = middle }
            }
            low
        });
        by_age.map_or(0, |offset| offset.0).max(by_size.unwrap_or(0))
    }

    /// Names of the stores, `step/store`. Fails, as those below do, with `Busy` while the pipeline is being changed, and with `Unavailable` or `Corrupt`
    /// when its state cannot be read.
    pub fn stores(&self) -> Result<Vec<String>> {
        let mut names = self.each(|_, partition| Ok(partition.stores()))?;
        names.sort();
        names.dedup();
        Ok(names)
    }

    /// The entries of a key that have not expired, one for each queue that has one.
    pub fn get(&self, store: &str, key: &[u8]) -> Result<Vec<Found>> {
        let now = now();
        self.each(|queue, partition| {
            let value = partition.look(store, key, now)?;
            Ok(value.map(|value| Found { queue, key: key.to_vec(), value }).into_iter().collect())
        })
    }

    /// Entries that have not expired, whose keys begin with `prefix`, by key, behind `after`, and whether there are more. A key that stands in several queues is
    /// given with all of them, also where they are more than `limit`.
    pub fn scan(&self, store: &str, prefix: &[u8], after: Option<&[u8]>, limit: usize) -> Result<(Vec<Found>, bool)> {
        let (now, room) = (now(), (limit, PAGE_BYTES / self.partitions.lock().len().max(1)));
        let pages =
            self.each(|queue, partition| Ok(vec![(queue, partition.look_through(store, prefix, after, room, now)?)]))?;
        Ok(merged(pages, limit))
    }

    fn each<T>(
        &self,
        mut of: impl FnMut(u32, &mut Partition) -> std::result::Result<Vec<T>, StateError>,
    ) -> Result<Vec<T>> {
        let partitions = self.partitions.lock().clone();
        let mut all = Vec::new();
        for (queue, shared) in partitions {
            let mut place = shared.lock();
            let partition = place.as_mut().ok_or_else(closed)?;
            all.extend(of(queue, partition).map_err(|error| broken(&error))?);
        }
        Ok(all)
    }
}

/// One page of those of all queues.
fn merged(pages: Vec<(u32, Page)>, limit: usize) -> (Vec<Found>, bool) {
    // Behind the end of a queue's page there may be entries of it that others' come after.
    let ends = pages.iter().filter(|(_, page)| page.more).filter_map(|(_, page)| page.entries.last());
    let end = ends.map(|(key, _)| key.clone()).min();
    let of_queue =
        |(queue, page): (u32, Page)| page.entries.into_iter().map(move |(key, value)| Found { queue, key, value });
    let mut found: Vec<Found> = pages.into_iter().flat_map(of_queue).collect();
    found.retain(|found| end.as_ref().is_none_or(|end| found.key <= *end));
    found.sort_by(|a, b| a.key.cmp(&b.key));
    let mut more = end.is_some();
    if let Some(over) = found.get(limit).map(|found| found.key.clone()) {
        // The next page begins behind a key: one key's entries are not parted.
        let first = found.partition_point(|found| found.key < over);
        let cut = if first > 0 { first } else { found.partition_point(|found| found.key <= over) };
        more |= cut < found.len();
        found.truncate(cut);
    }
    (found, more)
}

/// Opens a file of states, or makes it.
pub(super) fn engine(file: &Path) -> Result<Arc<Engine>> {
    if let Some(folder) = file.parent() {
        std::fs::create_dir_all(folder).map_err(|error| broken(&StateError::File(error.to_string())))?;
    }
    Ok(Arc::new(Engine::open(file).map_err(|error| broken(&error))?))
}

/// The state of a queue whose changes no log holds. `memory` is in bytes.
pub(super) fn alone(engine: Arc<Engine>, queue: QueueId, memory: usize) -> Result<Shared> {
    let partition = Partition::without_log(engine, queue.0, memory).map_err(|error| broken(&error))?;
    Ok(Arc::new(Mutex::new(Some(Box::new(partition)))))
}

/// What processors count time by, ms since 1970.
fn now() -> u64 {
    unsigned(clock::now())
}

fn closed() -> Failure {
    Failure::new(Kind::Busy, "the pipeline is being changed")
}

fn broken(error: &StateError) -> Failure {
    // A full disk, or one that fails, may be well again.
    let kind = if matches!(error, StateError::File(_)) { Kind::Unavailable } else { Kind::Corrupt };
    Failure::new(kind, format!("state: {error}"))
}

/// The changes of one queue's state: the messages of a topic.
struct Changes {
    reader: Reader,
    topic: TopicName,
    queue: QueueId,
}

impl Changelog for Changes {
    fn bounds(&self) -> std::result::Result<(u64, u64), PortError> {
        let (first, end) = self.reader.bounds(&self.topic, self.queue);
        Ok((first.0, end.0))
    }

    fn read(&mut self, from: u64) -> std::result::Result<Vec<Bytes>, PortError> {
        let fetch = Fetch {
            topic: self.topic.clone(),
            queue: self.queue,
            from: QueueOffset(from),
            max_messages: limits::PULL_MESSAGES,
            max_bytes: limits::PULL_BYTES,
            filter: Filter::All,
        };
        let found = self.reader.fetch(&fetch).map_err(|error| trouble(&error.into()))?;
        let mut bodies = Vec::with_capacity(found.count as usize);
        for piece in found.records {
            let mut at = 0;
            while at < piece.len() {
                let view = RecordView::parse(&piece[at..]).map_err(|error| PortError::Failed(error.to_string()))?;
                let range = view.body_range();
                bodies.push(piece.slice(at + range.start..at + range.end));
                at += view.bytes().len();
            }
        }
        Ok(bodies)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is given page by page, each behind the last key of the one before, of queues that give so many entries at once.
    fn read(queues: &[&[u8]], at_once: usize, limit: usize) -> Vec<(u8, u32)> {
        let (mut all, mut after) = (Vec::new(), None);
        loop {
            let page = |keys: &&[u8]| {
                let behind = keys.iter().filter(|key| after.is_none_or(|after| **key > after));
                let mut entries: Vec<_> = behind.map(|key| (vec![*key], Vec::new())).collect();
                let more = entries.len() > at_once;
                entries.truncate(at_once);
                Page { entries, more }
            };
            let (found, more) = merged((0..).zip(queues.iter().map(page)).collect(), limit);
            assert!(!found.is_empty() || !more, "it would go on for ever");
            all.extend(found.iter().map(|found| (found.key[0], found.queue)));
            if !more {
                return all;
            }
            after = found.last().map(|found| found.key[0]);
        }
    }

    #[test]
    fn changes_fade_when_they_are_half_as_old_as_retention_leaves_them_or_half_as_far_back() {
        let dir = tempfile::tempdir().unwrap();
        let disk = Arc::new(sluice_broker::RealDisk::open(dir.path()).unwrap());
        let store = sluice_broker::StoreConfig { segment_len: 1 << 20, reserve_bytes: 0, ..Default::default() };
        let mut log = sluice_broker::open(disk, store, sluice_broker::Config::default()).unwrap();
        let topic = TopicName::parse("t").unwrap();
        let at = |n: u64| Timestamp(1_000_000 + 1_000 * n as i64);
        log.broker.put_topic(sluice_broker::Topic::new(topic.clone(), 1), at(0)).unwrap();
        for n in 0..40 {
            let message = sluice_model::Message {
                born_host: sluice_model::Host::LOCAL,
                ..sluice_model::Message::new(
                    topic.clone(),
                    QueueId(0),
                    at(n),
                    Default::default(),
                    vec![b'.'; 1_000].into(),
                )
            };
            let send = sluice_broker::Send {
                messages: vec![message],
                queue: Some(QueueId(0)),
                template: None,
                max_reconsume_times: None,
            };
            log.broker.send(send, at(n)).unwrap();
            let written = log.broker.write().unwrap().unwrap();
            log.applier.sync().unwrap();
            log.applier.apply(&written, &mut Vec::new()).unwrap();
            log.broker.recycle(written.bytes);
        }
        let fading = |max_age_ms, max_bytes| {
            let retention = Retention { max_age_ms, max_bytes };
            States::fading(&log.reader, &topic, QueueId(0), &retention, at(40))
        };
        assert_eq!([fading(None, None), fading(Some(20_000), None), fading(Some(200_000), None)], [0, 30, 0]);
        let by_size = fading(None, Some(20_000));
        assert!((30..33).contains(&by_size), "the last 10,000 bytes are young, {by_size}");
        assert_eq!([fading(None, Some(1 << 20)), fading(Some(2_000), Some(20_000))], [0, 39]);
    }

    #[test]
    fn pages_of_several_queues_leave_nothing_out_and_repeat_nothing() {
        let queues: [&[u8]; 3] = [b"aceg", b"abcdefgh", b"cez"];
        let mut expected: Vec<(u8, u32)> =
            (0..).zip(queues).flat_map(|(queue, keys)| keys.iter().map(move |key| (*key, queue))).collect();
        expected.sort_unstable();
        for at_once in 1..10 {
            for limit in 1..16 {
                assert_eq!(read(&queues, at_once, limit), expected, "{at_once} at once, pages of {limit}");
            }
        }
    }
}
