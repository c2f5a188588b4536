//! Verbs of POP consumption: take messages for a while, acknowledge them, keep them longer, and bring back what nobody
//! acknowledged.
//!
//! A group's position in a queue moves at the pop; a message that is not acknowledged in time comes again through the
//! group's retry topic for that topic, or goes to its dead letters. A message that was popped in order waits in its place
//! instead, and nothing behind it is handed out before. Each of these is a record of the log, so a crash takes no
//! acknowledgement back and loses no message. Behaviour and names follow Apache RocketMQ `PopMessageProcessor`,
//! `AckMessageProcessor`, `ChangeInvisibleTimeProcessor` and `PopReviveService`.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use sluice_model::{
    GroupName, Kind, Message, MessageId, Properties, QueueId, QueueOffset, RecordView, Timestamp, TopicName, key,
    limits,
};

use crate::{
    Error,
    back::mark_failed,
    broker::{Broker, Effect},
    error::Result,
    filter::Filter,
    leases::{self, Change, Lease, Place},
    offsets::Position,
    reader::{Fetch, FetchStatus, Fetched, Reader},
    system::SYSTEM,
    topics::Topic,
    waiters::{Token, Wait},
};

/// One pop of so many looks at the retry topic first (Apache RocketMQ `popFromRetryProbability`, 20 %).
const RETRY_FIRST: u32 = 5;
/// Most messages brought back in one unit.
const TURN_MESSAGES: usize = 256;
/// Most bytes brought back in one unit.
const TURN_BYTES: u64 = 8 * 1024 * 1024;
/// How far back in the log a message is still young; Apache asks whether it is still in memory.
const YOUNG_BYTES: u64 = 1 << 30;

/// What a member of a group wants to take.
#[derive(Clone, Debug)]
pub struct Pop {
    pub group: GroupName,
    pub topic: TopicName,
    /// `None`: any queue.
    pub queue: Option<QueueId>,
    /// 1 to [`limits::POP_MESSAGES`].
    pub max_messages: u32,
    /// How long the messages stay hidden from others, ms: 1 to [`limits::INVISIBLE_MS`].
    pub invisible_ms: i64,
    /// Messages that do not match count as consumed. Those that come again matched before.
    pub filter: Filter,
    /// A group that is new to a queue begins at its first message; otherwise at its end, unless the queue is young.
    pub from_start: bool,
    /// A queue of which anything is held is passed over, and what failed there is taken first.
    pub order: bool,
}

impl Pop {
    fn check(&self) -> Result<()> {
        check("maxMsgNums", i64::from(self.max_messages), i64::from(limits::POP_MESSAGES))?;
        check("invisibleTime", self.invisible_ms, limits::INVISIBLE_MS)
    }
}

/// Messages of one queue that a pop took.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoppedQueue {
    /// They came again: they are of the group's retry topic for the topic.
    pub retry: bool,
    pub queue: QueueId,
    /// Where the pop began in the queue.
    pub start: QueueOffset,
    pub offsets: Vec<QueueOffset>,
    /// Those of them that were popped in order before, and how often they failed.
    pub failures: Vec<(QueueOffset, u32)>,
}

/// What a pop would find in a queue now.
#[derive(Debug)]
pub struct Ahead {
    pub queue: QueueId,
    pub from: QueueOffset,
    pub found: Fetched,
}

/// A run of messages of a queue that somebody looked at before a pop: the kept ones may be taken, the others count as
/// consumed.
#[derive(Clone, Debug)]
pub struct Seen {
    pub queue: QueueId,
    /// The run is from here to before `next`.
    pub from: QueueOffset,
    pub next: QueueOffset,
    /// In order.
    pub kept: Vec<QueueOffset>,
}

impl Seen {
    pub(crate) fn covers(&self, offset: QueueOffset) -> bool {
        (self.from..self.next).contains(&offset)
    }

    pub(crate) fn keeps(&self, offset: QueueOffset) -> bool {
        self.kept.binary_search(&offset).is_ok()
    }
}

/// What a pop took.
#[derive(Clone, Debug)]
pub struct Popped {
    pub taken_at: Timestamp,
    /// By queue, in the order of the records. Empty: nothing was there.
    pub queues: Vec<PoppedQueue>,
    /// Stored records; neighbours in the log come as one piece.
    pub records: Vec<Bytes>,
    /// Messages that are left, whether they match or not.
    pub rest: u64,
    /// Messages were passed over that did not match, and there are more behind them.
    pub more: bool,
}

/// Messages of one queue that a member took and now speaks of.
#[derive(Clone, Debug)]
pub struct Leased {
    pub group: GroupName,
    /// The topic itself or the group's retry topic for it.
    pub topic: TopicName,
    pub queue: QueueId,
    pub offsets: Vec<QueueOffset>,
    /// When they were taken, or last kept longer.
    pub taken_at: Timestamp,
}

impl Leased {
    fn place(&self) -> Place {
        Place { group: self.group.clone(), topic: self.topic.clone(), queue: self.queue }
    }
}

/// A queue that a pop looks into.
struct Source {
    place: Place,
    retry: bool,
}

/// Single messages that were read, or are gone.
#[derive(Default)]
struct Found {
    offsets: Vec<QueueOffset>,
    records: Vec<Bytes>,
    gone: Vec<QueueOffset>,
}

impl Reader {
    /// The queues that a pop may take from: those of the topic and then those of the retry topic, if there is one.
    fn sources(&self, pop: &Pop) -> Result<Vec<Source>> {
        let topic = self.topic(&pop.topic)?;
        let queues = match pop.queue {
            None => 0..topic.read_queues,
            Some(queue) => {
                self.check_queue(&pop.topic, queue)?;
                queue.0..queue.0 + 1
            }
        };
        let retry = if pop.order { None } else { retry_topic(pop)? };
        let retries = retry.as_ref().and_then(|name| self.topic(name).ok()).map_or(0, |topic| topic.read_queues);
        let source = |topic: &TopicName, queue, retry| Source {
            place: Place { group: pop.group.clone(), topic: topic.clone(), queue: QueueId(queue) },
            retry,
        };
        let own = queues.map(|queue| source(&pop.topic, queue, false));
        let again = retry.iter().flat_map(|name| (0..retries).map(move |queue| source(name, queue, true)));
        Ok(own.chain(again).collect())
    }

    /// Where a pop goes on in a queue, and whether that is the group's position already; `None` while it may take nothing
    /// there.
    fn pop_from(&self, source: &Source, pop: &Pop) -> Option<(QueueOffset, bool)> {
        let Source { place, retry } = source;
        let known = {
            let state = self.shared.state.read();
            // The queue of a topic that was deleted and made again is the old one until the deletion is readable.
            let stale = state.topics.is_being_deleted(&place.topic, self.store().readable());
            let blocked = pop.order && state.leases.count(place) > 0;
            if stale || blocked || state.leases.is_full(place) {
                return None;
            }
            state.offsets.get(&place.group, &place.topic, place.queue)
        };
        if let Some(known) = known {
            return Some((known, true));
        }
        let (min, max) = self.bounds(&place.topic, place.queue);
        let from_start = pop.from_start || *retry || self.is_young(&place.topic, place.queue);
        Some((if from_start { min } else { max }, false))
    }

    /// Whether a queue has its first message, and that within the newest part of the log. A group that is new to a young
    /// queue begins at its first message, as with Apache.
    pub fn is_young(&self, topic: &TopicName, queue: QueueId) -> bool {
        let (min, _) = self.bounds(topic, queue);
        let first = self.log_offset(topic, queue, min);
        min == QueueOffset(0) && first.is_none_or(|at| self.store().readable().0 - at.0 < YOUNG_BYTES)
    }

    /// Whether a pop has something to do now: messages to look at, or a position to take up. Fails as [`Broker::pop`] does.
    pub fn can_pop(&self, pop: &Pop) -> Result<bool> {
        pop.check()?;
        let behind = |source: &Source| {
            let (_, max) = self.bounds(&source.place.topic, source.place.queue);
            let start = self.pop_from(source, pop);
            start.is_some_and(|(from, known)| !known || from != max || self.has_returned(&source.place))
        };
        Ok(self.sources(pop)?.iter().any(behind))
    }

    /// The messages that a pop would find in the topic's own queues, for who wants to look at them before [`Broker::pop_seen`]:
    /// no more queues than hold what the pop may take. `turn` says which queue comes first.
    pub fn look_ahead(&self, pop: &Pop, turn: usize) -> Result<Vec<Ahead>> {
        pop.check()?;
        let mut sources = self.sources(pop)?;
        sources.retain(|source| !source.retry);
        let first = turn % sources.len().max(1);
        sources.rotate_left(first);
        let (mut ahead, mut count) = (Vec::with_capacity(sources.len()), 0);
        for source in &sources {
            let Some((from, _)) = self.pop_from(source, pop) else { continue };
            let Place { topic, queue, .. } = source.place.clone();
            let (filter, max_bytes) = (pop.filter.clone(), limits::PULL_BYTES);
            let mut fetch = Fetch { topic, queue, from, max_messages: pop.max_messages, max_bytes, filter };
            let mut found = self.fetch(&fetch)?;
            if matches!(found.status, FetchStatus::TooSmall | FetchStatus::TooLarge) {
                fetch.from = found.next;
                found = self.fetch(&fetch)?;
            }
            count += found.count;
            ahead.push(Ahead { queue, from: fetch.from, found });
            if count >= pop.max_messages {
                break;
            }
        }
        Ok(ahead)
    }

    fn has_returned(&self, place: &Place) -> bool {
        self.shared.state.read().leases.has_returned(place)
    }

    /// The records of single messages, up to `max_bytes` but for the first, and which of the messages are gone.
    fn records_of(&self, place: &Place, offsets: &[QueueOffset], max_bytes: usize) -> Result<Found> {
        let (mut found, mut bytes) = (Found::default(), 0);
        for offset in offsets {
            let entry = self.entry(&place.topic, place.queue, *offset);
            let record = entry.map(|entry| self.store().record(entry.log_offset, entry.size)).transpose();
            let record = match record {
                Ok(record) => record,
                Err(sluice_storage::Error::NotFound(_)) => None,
                Err(error) => return Err(error.into()),
            };
            let Some(record) = record else {
                found.gone.push(*offset);
                continue;
            };
            bytes += record.len();
            if bytes > max_bytes && !found.offsets.is_empty() {
                break;
            }
            found.offsets.push(*offset);
            found.records.push(record);
        }
        Ok(found)
    }

    /// Registers a pop that found nothing; [`crate::Effect::Wake`] follows when a message comes to one of its queues.
    pub fn wait_to_pop(&self, pop: &Pop, token: Token) -> Wait {
        let added = {
            let mut waiters = self.shared.waiters.lock();
            let retry = retry_topic(pop).ok().flatten();
            waiters.add(&pop.topic, pop.queue, QueueOffset(0), token)
                && retry.is_none_or(|retry| waiters.add(&retry, None, QueueOffset(0), token))
        };
        // A message that became readable before the registration wakes nobody.
        let verdict = match added {
            false => Wait::Full,
            true if self.can_pop(pop).unwrap_or(true) => Wait::Ready,
            true => return Wait::Waits,
        };
        self.stop_waiting_to_pop(pop, token);
        verdict
    }

    pub fn stop_waiting_to_pop(&self, pop: &Pop, token: Token) {
        let mut waiters = self.shared.waiters.lock();
        waiters.remove(&pop.topic, token);
        if let Ok(Some(retry)) = retry_topic(pop) {
            waiters.remove(&retry, token);
        }
    }

    /// Messages that are popped and not acknowledged.
    pub fn leased(&self) -> usize {
        self.shared.state.read().leases.total()
    }
}

impl Broker {
    /// Takes messages for a group: they are hidden from its other members until they are acknowledged or their time is up.
    ///
    /// All that one pop takes is one record. Fails with `NotFound` for an unknown topic, and `Invalid` for a queue that the
    /// topic does not have and for numbers out of bounds.
    pub fn pop(&mut self, pop: &Pop, now: Timestamp) -> Result<Popped> {
        self.pop_seen(pop, None, now)
    }

    /// [`Self::pop`] that takes of the topic's own queues only what was seen and kept. What came again was kept before.
    pub fn pop_seen(&mut self, pop: &Pop, seen: Option<&[Seen]>, now: Timestamp) -> Result<Popped> {
        pop.check()?;
        let mut sources = self.reader.sources(pop)?;
        self.pops = self.pops.wrapping_add(1);
        self.order(&mut sources);
        let mut popped = Popped { taken_at: now, queues: Vec::new(), records: Vec::new(), rest: 0, more: false };
        let mut changes = Vec::new();
        for source in &sources {
            self.pop_queue(pop, source, seen, &mut popped, &mut changes)?;
        }
        if !changes.is_empty() {
            self.stage_one(lease_message(&changes, now), now)?;
        }
        Ok(popped)
    }

    /// Takes what there is still room for from one queue.
    fn pop_queue(
        &self,
        pop: &Pop,
        source: &Source,
        seen: Option<&[Seen]>,
        popped: &mut Popped,
        changes: &mut Vec<Change>,
    ) -> Result<()> {
        let place = &source.place;
        let Some((from, known)) = self.reader.pop_from(source, pop) else { return Ok(()) };
        let count = popped.queues.iter().map(|queue| queue.offsets.len()).sum::<usize>();
        let bytes = popped.records.iter().map(Bytes::len).sum::<usize>();
        let room = (pop.max_messages as usize).saturating_sub(count);
        if room == 0 || bytes >= limits::PULL_BYTES {
            popped.rest += self.reader.bounds(&place.topic, place.queue).1.0.saturating_sub(from.0);
            return Ok(());
        }
        let Found { mut offsets, mut records, gone } = self.returned(place, room, limits::PULL_BYTES - bytes)?;
        if !gone.is_empty() {
            changes.push(Change::Ended { place: place.clone(), offsets: gone });
        }
        let bytes = bytes + records.iter().map(Bytes::len).sum::<usize>();
        let mut next = None;
        let seen = seen.filter(|_| !source.retry);
        let here = seen.and_then(|seen| seen.iter().find(|seen| seen.queue == place.queue));
        if seen.is_some() && here.is_none() {
            popped.rest += self.reader.bounds(&place.topic, place.queue).1.0.saturating_sub(from.0);
        } else if offsets.len() < room && bytes < limits::PULL_BYTES {
            let mut fetch = Fetch {
                topic: place.topic.clone(),
                queue: place.queue,
                from,
                max_messages: (room - offsets.len()) as u32,
                max_bytes: limits::PULL_BYTES - bytes,
                filter: if source.retry { Filter::All } else { pop.filter.clone() },
            };
            let mut found = self.reader.fetch_noting(&fetch, here, |offset| offsets.push(offset))?;
            if matches!(found.status, FetchStatus::TooSmall | FetchStatus::TooLarge) {
                fetch.from = found.next;
                found = self.reader.fetch_noting(&fetch, here, |offset| offsets.push(offset))?;
            }
            popped.rest += found.max.0.saturating_sub(found.next.0);
            popped.more |= offsets.is_empty() && found.next > fetch.from && found.next < found.max;
            records.extend(found.records);
            next = Some(found.next).filter(|next| !known || *next != from);
        }
        let Some(start) = offsets.first().copied() else {
            if let Some(offset) = next {
                let Place { group, topic, queue } = place.clone();
                self.shared.state.write().offsets.commit(Position { group, topic, queue, offset });
            }
            return Ok(());
        };
        let (taken_at, until) = (popped.taken_at, popped.taken_at.plus_ms(pop.invisible_ms));
        let lease = Lease { taken_at, until, ordered: pop.order };
        changes.push(Change::Taken { place: place.clone(), lease, next, offsets: offsets.clone() });
        let failures = self.failures(place, &offsets);
        popped.queues.push(PoppedQueue { retry: source.retry, queue: place.queue, start, offsets, failures });
        popped.records.extend(records);
        Ok(())
    }

    /// What was popped in order before, failed, and waits in its place.
    fn returned(&self, place: &Place, max: usize, max_bytes: usize) -> Result<Found> {
        let offsets = self.shared.state.read().leases.returned(place, max);
        self.reader.records_of(place, &offsets, max_bytes)
    }

    fn failures(&self, place: &Place, offsets: &[QueueOffset]) -> Vec<(QueueOffset, u32)> {
        let state = self.shared.state.read();
        let counted = offsets.iter().map(|offset| (*offset, state.leases.failures(place, *offset)));
        counted.filter(|(_, failures)| *failures > 0).collect()
    }

    /// Each pop begins at another queue, and one of several with what came again.
    fn order(&self, sources: &mut [Source]) {
        let own = sources.iter().take_while(|source| !source.retry).count();
        let (queues, _) = sources.split_at_mut(own);
        if !queues.is_empty() {
            let by = self.pops as usize % queues.len();
            queues.rotate_left(by);
        }
        if self.pops.is_multiple_of(RETRY_FIRST) {
            sources.rotate_left(own);
        }
    }

    /// Acknowledges messages; answers how many of them were held under the handle's time. The others were acknowledged
    /// before, or their time was up and they come again.
    pub fn ack(&mut self, leased: &[Leased], now: Timestamp) -> Result<usize> {
        let (mut changes, mut freed) = (Vec::new(), Vec::new());
        let mut count = 0;
        for leased in leased {
            let place = leased.place();
            let (offsets, waited_for) = self.held(&place, leased);
            count += offsets.len();
            if waited_for {
                freed.push(place.clone());
            }
            if !offsets.is_empty() {
                changes.push(Change::Ended { place, offsets });
            }
        }
        if count > limits::ACKED_MESSAGES {
            let most = limits::ACKED_MESSAGES;
            return Err(Error::invalid("acks", format!("expected at most {most} messages, got {count}")));
        }
        if !changes.is_empty() {
            self.stage_one(lease_message(&changes, now), now)?;
        }
        freed.iter().for_each(|place| self.wake(place));
        Ok(count)
    }

    /// Hides messages for `invisible_ms` from now on; with 0 they come again at once. Answers how many of them were held
    /// under the handle's time; those are held under `now` then.
    pub fn keep(&mut self, leased: &Leased, invisible_ms: i64, now: Timestamp) -> Result<usize> {
        if invisible_ms != 0 {
            check("invisibleTime", invisible_ms, limits::INVISIBLE_MS)?;
        }
        let place = leased.place();
        let (offsets, _) = self.held(&place, leased);
        let count = offsets.len();
        let first = offsets.first().and_then(|offset| self.shared.state.read().leases.get(&place, *offset));
        if let Some(old) = first {
            let lease = Lease { taken_at: now, until: now.plus_ms(invisible_ms), ordered: old.ordered };
            self.stage_one(lease_message(&[Change::Taken { place, lease, next: None, offsets }], now), now)?;
        }
        Ok(count)
    }

    /// Which of the messages are held under the handle's time, and whether somebody may wait for their end: the queue is
    /// popped in order, or the group holds as many of it as it may.
    fn held(&self, place: &Place, leased: &Leased) -> (Vec<QueueOffset>, bool) {
        let state = self.shared.state.read();
        let mut waited_for = false;
        let held = |offset: &QueueOffset| {
            let lease = state.leases.get(place, *offset).filter(|lease| lease.taken_at == leased.taken_at);
            waited_for |= lease.is_some_and(|lease| lease.ordered);
            lease.is_some()
        };
        let offsets: Vec<_> = leased.offsets.iter().copied().filter(held).collect();
        (offsets, waited_for || state.leases.is_full(place))
    }

    /// Wakes who waits for a queue, if it may be popped again.
    fn wake(&mut self, place: &Place) {
        if self.shared.state.read().leases.is_full(place) {
            return;
        }
        let mut woken = Vec::new();
        let mut waiters = self.shared.waiters.lock();
        waiters.arrived(place.topic.as_str(), place.queue, QueueOffset(u64::MAX), &mut woken);
        self.effects.extend(woken.into_iter().map(Effect::Wake));
    }

    /// Stages again what was popped and not acknowledged in time, up to a bound; call again while it answers `true`.
    ///
    /// Messages and the end of their leases are one unit: none is lost, and none comes twice for one lease.
    pub fn revive(&mut self, now: Timestamp) -> Result<bool> {
        let due = self.shared.state.read().leases.due(now, TURN_MESSAGES);
        // A unit stays within a segment; half of one leaves room for what encoding adds.
        let most = TURN_BYTES.min(self.shared.segment_len / 2) as usize;
        let (mut unit, mut bytes, mut done) = (Vec::new(), 0, 0);
        let mut ended: BTreeMap<&Place, Vec<QueueOffset>> = BTreeMap::new();
        let mut returned: BTreeMap<&Place, Vec<QueueOffset>> = BTreeMap::new();
        let mut freed: BTreeSet<Place> = BTreeSet::new();
        for (place, offset, lease) in &due {
            if lease.ordered {
                freed.insert(Place::clone(place));
            }
            if lease.ordered && !self.is_dead_in_order(place, *offset) {
                returned.entry(place).or_default().push(*offset);
                done += 1;
                continue;
            }
            if let Some(message) = self.failed(place, *offset, *lease, now)? {
                bytes += message.body.len() + message.properties.as_bytes().len();
                if bytes > most && !unit.is_empty() {
                    break;
                }
                unit.push(message);
            }
            ended.entry(place).or_default().push(*offset);
            done += 1;
        }
        if done == 0 {
            return Ok(false);
        }
        let sorted = |(place, mut offsets): (&Place, Vec<QueueOffset>)| {
            offsets.sort_unstable();
            (place.clone(), offsets)
        };
        let ended = ended.into_iter().map(sorted).map(|(place, offsets)| Change::Ended { place, offsets });
        let returned = returned.into_iter().map(sorted).map(|(place, offsets)| Change::Returned { place, offsets });
        unit.push(lease_message(&ended.chain(returned).collect::<Vec<_>>(), now));
        self.stage(&unit, now)?;
        freed.iter().for_each(|place| self.wake(place));
        Ok(done < due.len() || due.len() == TURN_MESSAGES)
    }

    /// Topics through which popped messages come again to the groups and topics of those positions.
    pub(crate) fn pop_retry_topics(&self, of: impl Fn(&Position) -> bool) -> BTreeSet<TopicName> {
        let state = self.shared.state.read();
        let positions = state.offsets.groups().flat_map(|group| state.offsets.of_group(group));
        let names = positions
            .filter(|position| !position.topic.is_retry() && of(position))
            .filter_map(|position| TopicName::pop_retry_of(&position.group, &position.topic).ok());
        // The same name may be another group's own retry topic.
        let is_own = |name: &TopicName| state.groups.iter().any(|group| TopicName::retry_of(&group.name) == *name);
        names.filter(|name| state.topics.get(name.as_str()).is_some() && !is_own(name)).collect()
    }

    /// Whether a message that was popped in order has failed as often as its group allows.
    fn is_dead_in_order(&self, place: &Place, offset: QueueOffset) -> bool {
        let failures = self.shared.state.read().leases.failures(place, offset);
        failures >= self.reader.group(&place.group).retries
    }

    /// The message again, for where it comes next. `None` when it is gone: deleted with its topic, or by age.
    fn failed(&mut self, place: &Place, offset: QueueOffset, lease: Lease, now: Timestamp) -> Result<Option<Message>> {
        let Some(entry) = self.reader.entry(&place.topic, place.queue, offset) else { return Ok(None) };
        let record = match self.reader.store().record(entry.log_offset, entry.size) {
            Ok(record) => record,
            // Nobody could be given it. An error would keep all others from coming back as well.
            Err(error) if matches!(error.kind(), Kind::NotFound | Kind::Corrupt) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let Ok(mut message) = RecordView::parse(&record).and_then(|record| record.to_message()) else {
            return Ok(None);
        };
        if lease.ordered {
            let failures = self.shared.state.read().leases.failures(place, offset);
            message.reconsume_times = i32::try_from(failures).unwrap_or(i32::MAX - 1);
        }
        let dead = message.reconsume_times.max(0) as u32 >= self.reader.group(&place.group).retries;
        let origin = MessageId { broker: self.config().advertised, log_offset: entry.log_offset };
        let mut marked = message.clone();
        // A message with no room for the notes goes without them rather than not at all.
        if note_pop(&mut marked, lease).and_then(|()| mark_failed(&mut marked, origin, dead)).is_ok() {
            message = marked;
        } else {
            message.reconsume_times += 1;
        }
        message.queue = QueueId(0);
        message.topic = if dead {
            self.dead_letter_topic(&place.group, now)?
        } else if place.topic.is_retry() {
            place.topic.clone()
        } else {
            let retry = TopicName::pop_retry_of(&place.group, &place.topic)?;
            if self.topic(&retry).is_none() {
                self.put_topic(Topic::new(retry.clone(), 1), now)?;
            }
            retry
        };
        Ok(Some(message))
    }
}

/// Notes when a message was popped first.
fn note_pop(message: &mut Message, lease: Lease) -> Result<()> {
    if message.properties.get(key::FIRST_POP_TIME).is_none() {
        message.properties = message.properties.with(key::FIRST_POP_TIME, &lease.taken_at.to_string())?;
    }
    Ok(())
}

/// The topic through which messages of a pop come again; a retry topic has none of its own.
fn retry_topic(pop: &Pop) -> Result<Option<TopicName>> {
    if pop.topic.is_retry() {
        return Ok(None);
    }
    Ok(Some(TopicName::pop_retry_of(&pop.group, &pop.topic)?))
}

fn check(field: &'static str, got: i64, most: i64) -> Result<()> {
    if (1..=most).contains(&got) {
        return Ok(());
    }
    Err(Error::invalid(field, format!("expected 1 to {most}, got {got}")))
}

fn lease_message(changes: &[Change], now: Timestamp) -> Message {
    let body = leases::encode(changes).into();
    Message::new(SYSTEM.leases.clone(), QueueId(0), now, Properties::default(), body)
}
