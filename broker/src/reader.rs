//! The readers' side: everything that changes no record. Cheap to clone, callable from any thread.

use std::sync::Arc;

use bytes::Bytes;
use sluice_model::{GroupName, LogOffset, QueueId, QueueOffset, RecordView, Timestamp, TopicName, limits};
use sluice_storage::{Boundary, Entry};

use crate::{
    Error,
    admin::document_body,
    broker::Shared,
    config::Config,
    documents::Document,
    error::Result,
    filter::Filter,
    groups::Group,
    halves::Half,
    members::{Changed, Heartbeat, Members, SessionId},
    offsets::Position,
    pop::Seen,
    schedule,
    sql::Expression,
    system::SYSTEM,
    topics::Topic,
    waiters::Token,
};

/// Consume queue entries that one fetch looks at, at the most (Apache RocketMQ `maxFilterMessageSize` / 20).
const SCAN_ENTRIES: usize = 800;
/// Bytes of properties that one fetch evaluates conditions on, but for the last message.
const SCAN_PROPERTIES: usize = 1 << 20;

/// What a consumer wants next of a queue.
#[derive(Clone, Debug)]
pub struct Fetch {
    pub topic: TopicName,
    pub queue: QueueId,
    pub from: QueueOffset,
    pub max_messages: u32,
    pub max_bytes: usize,
    pub filter: Filter,
}

/// What a fetch found.
#[derive(Clone, Debug)]
pub struct Fetched {
    pub status: FetchStatus,
    /// Where to fetch next.
    pub next: QueueOffset,
    /// First and next offset of the queue.
    pub min: QueueOffset,
    pub max: QueueOffset,
    /// Stored records, in order; neighbours in the log come as one piece.
    pub records: Vec<Bytes>,
    pub count: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FetchStatus {
    Found,
    /// There were messages, none of them wanted; `next` is behind them.
    NoMatch,
    /// The queue holds nothing at or behind `from` yet.
    AtEnd,
    /// `from` is before the first message that is still there; `next` is that one.
    TooSmall,
    /// `from` is behind the end; `next` is the end.
    TooLarge,
}

#[derive(Clone)]
pub struct Reader {
    store: sluice_storage::Reader,
    pub(crate) shared: Arc<Shared>,
}

impl Reader {
    pub(crate) fn new(store: sluice_storage::Reader, shared: Arc<Shared>) -> Self {
        Self { store, shared }
    }

    pub fn store(&self) -> &sluice_storage::Reader {
        &self.store
    }

    pub fn config(&self) -> &Config {
        &self.shared.config
    }

    pub fn topic(&self, name: &TopicName) -> Result<Arc<Topic>> {
        let state = self.shared.state.read();
        state.topics.get(name.as_str()).cloned().ok_or_else(|| Error::not_found("topic", name))
    }

    /// All topics with a number that changes when any of them does.
    pub fn topics(&self) -> (u64, Vec<Arc<Topic>>) {
        let state = self.shared.state.read();
        (state.topics.version, state.topics.iter().cloned().collect())
    }

    /// The group's settings; those of a new group when it is unknown.
    pub fn group(&self, name: &GroupName) -> Arc<Group> {
        let known = self.shared.state.read().groups.get(name).cloned();
        known.unwrap_or_else(|| Arc::new(Group::new(name.clone())))
    }

    pub fn knows_group(&self, name: &GroupName) -> bool {
        self.shared.state.read().groups.get(name).is_some()
    }

    pub fn groups(&self) -> Vec<Arc<Group>> {
        self.shared.state.read().groups.iter().cloned().collect()
    }

    /// First and next offset of a queue; both 0 when nothing was ever sent to it.
    pub fn bounds(&self, topic: &TopicName, queue: QueueId) -> (QueueOffset, QueueOffset) {
        self.store.bounds(topic, queue).unwrap_or_default()
    }

    /// Reads messages of one queue. Fails with `NotFound` for an unknown topic, `Invalid` for a queue it does not have.
    ///
    /// A filter looks at 800 messages at most, a condition over properties at 1 MiB of them besides: a fetch that finds
    /// nothing until then answers [`FetchStatus::NoMatch`].
    pub fn fetch(&self, fetch: &Fetch) -> Result<Fetched> {
        self.fetch_noting(fetch, None, |_| ())
    }

    /// [`Self::fetch`] that tells the offset of each message it found, and finds only what was seen and kept before.
    pub(crate) fn fetch_noting(
        &self,
        fetch: &Fetch,
        seen: Option<&Seen>,
        mut note: impl FnMut(QueueOffset),
    ) -> Result<Fetched> {
        self.check_queue(&fetch.topic, fetch.queue)?;
        let (min, max) = self.bounds(&fetch.topic, fetch.queue);
        let nothing = |status, next| Fetched { status, next, min, max, records: Vec::new(), count: 0 };
        if fetch.from < min {
            return Ok(nothing(FetchStatus::TooSmall, min));
        }
        if fetch.from > max {
            return Ok(nothing(FetchStatus::TooLarge, max));
        }
        if fetch.from == max {
            return Ok(nothing(FetchStatus::AtEnd, max));
        }
        let most = fetch.max_messages.clamp(1, limits::PULL_MESSAGES);
        let scan = if fetch.filter == Filter::All && seen.is_none() { most as usize } else { SCAN_ENTRIES };
        let mut entries: Vec<Entry> = Vec::with_capacity(most as usize);
        self.store.entries(&fetch.topic, fetch.queue, fetch.from, scan, &mut entries);
        let mut pieces = Pieces::default();
        let mut next = fetch.from;
        let condition = fetch.filter.condition();
        let mut looked_at = 0;
        for entry in &entries {
            if looked_at >= SCAN_PROPERTIES || seen.is_some_and(|seen| !seen.covers(entry.queue_offset)) {
                break;
            }
            let wanted = match (seen, condition) {
                (Some(seen), _) => seen.keeps(entry.queue_offset),
                (None, None) => fetch.filter.matches(entry.tag),
                (None, Some(condition)) => self.holds(condition, entry, &mut looked_at)?,
            };
            if wanted {
                if pieces.count == most || pieces.is_full(entry.size, fetch.max_bytes) {
                    break;
                }
                pieces.add(entry);
                note(entry.queue_offset);
            }
            next = entry.queue_offset.next();
        }
        if next == fetch.from {
            return Ok(nothing(FetchStatus::AtEnd, next));
        }
        let records = pieces.read(&self.store)?;
        let status = if pieces.count == 0 { FetchStatus::NoMatch } else { FetchStatus::Found };
        Ok(Fetched { status, next, min, max, records, count: pieces.count })
    }

    /// Whether a condition holds for the record of an entry; adds to `looked_at` the bytes of its properties.
    fn holds(&self, condition: &Expression, entry: &Entry, looked_at: &mut usize) -> Result<bool> {
        let bytes = self.store.record(entry.log_offset, entry.size)?;
        let record = RecordView::parse(&bytes)?;
        *looked_at += record.properties().len();
        Ok(condition.matches(record.own_properties()))
    }

    /// Registers a fetch that found nothing; [`crate::Effect::Wake`] follows when its queue reaches `next`.
    ///
    /// Answers `false` when there is no need to wait, because a message came meanwhile, or no room to.
    pub fn wait(&self, topic: &TopicName, queue: QueueId, next: QueueOffset, token: Token) -> bool {
        if !self.shared.waiters.lock().add(topic, Some(queue), next, token) {
            return false;
        }
        // A message that became readable before the registration wakes nobody.
        if self.bounds(topic, queue).1 > next {
            self.stop_waiting(topic, token);
            return false;
        }
        true
    }

    pub fn stop_waiting(&self, topic: &TopicName, token: Token) {
        self.shared.waiters.lock().remove(topic, token);
    }

    /// Fails with `NotFound` for an unknown topic, `Invalid` (field `queueId`) for a queue that it does not have.
    pub fn check_queue(&self, topic: &TopicName, queue: QueueId) -> Result<()> {
        let queues = {
            let topic = self.topic(topic)?;
            topic.read_queues.max(topic.write_queues)
        };
        if queue.0 >= queues {
            let text = format!("expected 0 to {} for topic {topic:?}, got {queue}", queues.saturating_sub(1));
            return Err(Error::invalid("queueId", text));
        }
        Ok(())
    }

    /// The stored record that begins at `at`.
    pub fn record_at(&self, at: LogOffset) -> Result<Bytes> {
        Ok(self.store.record_at(at)?)
    }

    /// The offset of the first message stored at or after `time` (`Lower`), or of the last stored at or before it.
    pub fn offset_at_time(
        &self,
        topic: &TopicName,
        queue: QueueId,
        time: Timestamp,
        boundary: Boundary,
    ) -> Result<QueueOffset> {
        self.check_queue(topic, queue)?;
        if self.store.bounds(topic, queue).is_none() {
            return Ok(QueueOffset(0));
        }
        Ok(self.store.offset_at_time(topic, queue, time, boundary)?)
    }

    pub(crate) fn entry(&self, topic: &TopicName, queue: QueueId, offset: QueueOffset) -> Option<Entry> {
        let mut entries: Vec<Entry> = Vec::new();
        self.store.entries(topic, queue, offset, 1, &mut entries);
        entries.first().filter(|entry| entry.queue_offset == offset).copied()
    }

    /// Where the message at an offset stands in the log; `None` when it is not there.
    pub fn log_offset(&self, topic: &TopicName, queue: QueueId, offset: QueueOffset) -> Option<LogOffset> {
        self.entry(topic, queue, offset).map(|entry| entry.log_offset)
    }

    /// When the message at an offset was stored; `None` when it is not there.
    pub fn stored_at(&self, topic: &TopicName, queue: QueueId, offset: QueueOffset) -> Option<Timestamp> {
        let entry = self.entry(topic, queue, offset)?;
        let record = self.store.record(entry.log_offset, entry.size).ok()?;
        RecordView::parse(&record).ok().map(|record| record.stored_at())
    }

    /// Stored records with this key that are in their queues still, the newest first, at most [`limits::QUERY_MESSAGES`].
    pub fn by_key(
        &self,
        topic: &TopicName,
        key: &str,
        times: (Timestamp, Timestamp),
        max: usize,
    ) -> Result<Vec<Bytes>> {
        let places = self.store.by_key(topic, key, times.0, times.1, max.min(limits::QUERY_MESSAGES))?;
        let mut found: Vec<Bytes> = places.into_iter().map(|at| self.record_at(at)).collect::<Result<_>>()?;
        found.retain(|record| RecordView::parse(record).is_ok_and(|record| !self.is_expired(topic, &record)));
        Ok(found)
    }

    /// Whether the queue of a stored record of a topic begins behind it.
    fn is_expired(&self, topic: &TopicName, record: &RecordView<'_>) -> bool {
        record.queue_offset() < self.bounds(topic, record.queue()).0
    }

    pub fn offset(&self, group: &GroupName, topic: &TopicName, queue: QueueId) -> Option<QueueOffset> {
        self.shared.state.read().offsets.get(group, topic, queue)
    }

    pub fn offsets_of(&self, group: &GroupName) -> Vec<Position> {
        self.shared.state.read().offsets.of_group(group)
    }

    pub fn groups_with_offsets(&self) -> Vec<GroupName> {
        self.shared.state.read().offsets.groups().cloned().collect()
    }

    /// Takes over how far a group has come; it is recorded soon after.
    ///
    /// Fails with `Invalid` when the offset is beyond the end of the queue.
    pub fn commit_offset(&self, position: Position) -> Result<()> {
        self.check_queue(&position.topic, position.queue)?;
        let mut state = self.shared.state.write();
        // The queue of a topic that was deleted and made again is the old one until the deletion is readable.
        let stale = state.topics.is_being_deleted(&position.topic, self.store.readable());
        let max = if stale { QueueOffset(0) } else { self.bounds(&position.topic, position.queue).1 };
        if position.offset > max {
            let text = format!("expected at most {max}, the end of the queue, got {}", position.offset);
            return Err(Error::invalid("commitOffset", text));
        }
        state.offsets.commit(position);
        Ok(())
    }

    pub fn members<T>(&self, look: impl FnOnce(&Members) -> T) -> T {
        look(&self.shared.members.lock())
    }

    pub fn heartbeat(&self, session: SessionId, heartbeat: Heartbeat, now: Timestamp) -> Vec<Changed> {
        self.shared.members.lock().heartbeat(session, heartbeat, now)
    }

    pub fn leave(&self, client: &str, producer: Option<&GroupName>, consumer: Option<&GroupName>) -> Vec<Changed> {
        let changed = self.shared.members.lock().leave(client, producer, consumer);
        self.free_locks(&changed);
        changed
    }

    pub fn session_closed(&self, session: SessionId) -> Vec<Changed> {
        let changed = self.shared.members.lock().closed(session);
        self.free_locks(&changed);
        changed
    }

    /// Locks queues for one client of a group; answers with all that are the client's now.
    pub fn lock_queues(
        &self,
        group: &GroupName,
        client: &str,
        queues: Vec<(TopicName, QueueId)>,
        now: Timestamp,
    ) -> Vec<(TopicName, QueueId)> {
        self.shared.locks.lock().lock(group, client, queues, now)
    }

    pub fn unlock_queues(&self, group: &GroupName, client: &str, queues: &[(TopicName, QueueId)]) {
        self.shared.locks.lock().unlock(group, client, queues);
    }

    /// Queues that a client held which left are free at once.
    fn free_locks(&self, changed: &[Changed]) {
        for Changed { group, .. } in changed {
            let members = self.members(|members| {
                members.group(group).map(|of| of.members.keys().cloned().collect::<Vec<_>>()).unwrap_or_default()
            });
            self.shared.locks.lock().keep_members(group, |client| members.iter().any(|member| member == client));
        }
    }

    /// Drops members that were silent too long.
    pub fn expire_members(&self, now: Timestamp) -> Vec<Changed> {
        let changed = self.shared.members.lock().expire(now, self.shared.config.member_timeout_ms);
        self.free_locks(&changed);
        changed
    }

    /// A document with its bytes.
    pub fn document(&self, kind: &str, name: &str) -> Result<Option<(Document, Bytes)>> {
        let Some(document) = self.shared.state.read().documents.get(kind, name).cloned() else { return Ok(None) };
        let body = document_body(self.record_at(document.at)?)?;
        Ok(Some((document, body)))
    }

    /// Names and positions of the documents of a kind.
    pub fn documents(&self, kind: &str) -> Vec<(String, Document)> {
        let state = self.shared.state.read();
        state.documents.of_kind(kind).map(|(name, document)| (name.to_owned(), document.clone())).collect()
    }

    /// Where the oldest delayed message that was not delivered yet stands.
    pub(crate) fn oldest_delayed(&self) -> Option<LogOffset> {
        let first = |topic| self.held(topic).into_iter().map(|entry| entry.log_offset);
        first(&SYSTEM.schedule).chain(first(&SYSTEM.timers)).min()
    }

    /// The first message of each queue of a system topic that still waits there to be delivered.
    pub(crate) fn held(&self, topic: &TopicName) -> Vec<Entry> {
        let cursor = schedule::cursor();
        let mut held: Vec<Entry> = Vec::new();
        for (queue, min, _) in self.store.queues(topic) {
            let from = cursor.as_ref().and_then(|group| self.offset(group, topic, queue));
            let mut entries: Vec<Entry> = Vec::new();
            self.store.entries(topic, queue, from.unwrap_or_default().max(min), 1, &mut entries);
            held.extend(entries);
        }
        held
    }

    /// The half message at this place, as long as it is undecided.
    pub fn half(&self, at: QueueOffset) -> Option<Half> {
        self.shared.state.read().halves.get(at).cloned()
    }

    /// Undecided half messages from a place in the half topic on, the oldest first, at most `max`.
    pub fn halves(&self, from: QueueOffset, max: usize) -> Vec<Half> {
        self.shared.state.read().halves.from(from).take(max).cloned().collect()
    }

    /// How many half messages are not decided.
    pub fn half_count(&self) -> usize {
        self.shared.state.read().halves.len()
    }
}

/// Records to read, neighbours joined.
#[derive(Default)]
struct Pieces {
    spans: Vec<(LogOffset, u32)>,
    bytes: usize,
    count: u32,
}

impl Pieces {
    /// Whether one more record would be too much; the first one never is.
    fn is_full(&self, size: u32, max_bytes: usize) -> bool {
        self.count > 0 && self.bytes + size as usize > max_bytes.min(limits::PULL_BYTES)
    }

    fn add(&mut self, entry: &Entry) {
        match self.spans.last_mut() {
            Some((at, len)) if at.plus(u64::from(*len)) == entry.log_offset => *len += entry.size,
            _ => self.spans.push((entry.log_offset, entry.size)),
        }
        self.bytes += entry.size as usize;
        self.count += 1;
    }

    fn read(&self, store: &sluice_storage::Reader) -> Result<Vec<Bytes>> {
        Ok(self.spans.iter().map(|(at, len)| store.span(*at, *len)).collect::<std::result::Result<_, _>>()?)
    }
}
