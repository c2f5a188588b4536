//! One queue of a pipeline's source, as the runtime's ports see it.

use std::{
    borrow::Cow,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use sluice_broker::{Fetch, FetchStatus, Position, Reader, StageUnit, Token};
use sluice_model::{
    Compression, GroupName, Host, Kind, Message, Properties, QueueId, QueueOffset, RecordView, SysFlag, Timestamp,
    TopicName, key, limits, record,
};
use sluice_protocol::compress;
use sluice_runtime::{
    Batch, Columns, Record,
    ports::{DeadLetter, Outgoing, PortError, Prefilter, Progress, Room, Sink, Source, Unit},
};

use super::{
    spec::{Checked, Start},
    state::States,
};
use crate::{
    failure::Failure,
    record::{flag_of, of_stored, readable_or_not},
    shell::Shell,
};

/// Properties that say how a message is to be delivered, not what it is: they end with the source.
const DELIVERY_KEYS: [&str; 8] = [
    key::DELAY,
    key::RETRY_TOPIC,
    key::ORIGIN_MESSAGE_ID,
    key::TRANSACTION_PREPARED,
    key::PRODUCER_GROUP,
    key::MAX_RECONSUME_TIMES,
    key::REAL_TOPIC,
    key::REAL_QUEUE,
];

/// What a dead letter carries besides its message's own properties.
pub(super) const FAILURE_KEYS: [&str; 8] = [
    "SLUICE_ERROR_CODE",
    "SLUICE_ERROR",
    "SLUICE_PLUGIN",
    "SLUICE_PLUGIN_DIGEST",
    "SLUICE_SOURCE_TOPIC",
    "SLUICE_SOURCE_QUEUE",
    "SLUICE_SOURCE_OFFSET",
    "SLUICE_TRIES",
];

/// The name of the timer that a dead letter is of. It is no message of the source and is not run again.
pub(super) const TIMER_KEY: &str = "SLUICE_TIMER";
/// Room for what the broker adds to the properties of a message: its unique key.
const ADDED: usize = 64;
/// Room for what a dead letter says besides: the reason has at most 1,024 letters.
const FAILURE_LEN: usize = 8 * 1024;
/// Longest value of a property that is kept when there is no room for all of them, bytes.
const KEPT_LEN: usize = 4 * 1024;
/// The most that a turn makes: its outputs, its dead letters and what goes with them are one unit. Entries that expire, and timers that
/// are taken out, are part of the change of the state besides.
pub(super) const ROOM: Room = Room {
    outputs: limits::UNIT_RECORDS - Batch::MAX_RECORDS as usize - 3,
    bytes: 8 * limits::BODY_LEN,
    state: limits::SYSTEM_BODY_LEN - 4 * 1024 * 1024,
};

/// Fetches of one read, and how long it goes on to another one: where a filter takes little, most of what is looked at comes to nothing.
const FETCHES: usize = 32;
const READ_FOR: Duration = Duration::from_millis(10);

/// Where a dead letter's message was read, and how often it was tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Origin {
    pub topic: String,
    pub queue: QueueId,
    pub offset: u64,
    pub tries: u32,
}

/// Where a stage reads.
pub(super) struct Input {
    reader: Reader,
    topic: TopicName,
    queue: QueueId,
    filter: sluice_broker::Filter,
    values: Values,
    /// Messages that retention took before they were read, and the offset before which they are counted.
    lost: u64,
    counted: u64,
}

/// Which compressed bodies are decompressed.
struct Values {
    /// Whether a step asks for values at all.
    asked: bool,
    /// That of the first step: what it does not take, no step sees.
    prefilter: Option<Arc<dyn Prefilter>>,
}

/// Where a stage writes, and how far it came.
pub(super) struct Output {
    shell: Shell,
    group: GroupName,
    topic: TopicName,
    queue: QueueId,
    start: Start,
    sinks: Vec<TopicName>,
    dead_letters: TopicName,
    /// The topic that holds the changes of the stage's state, if it has one.
    state: Option<TopicName>,
    /// Where the last committed unit ended.
    position: QueueOffset,
}

impl Input {
    pub fn new(shell: &Shell, checked: &Checked, queue: QueueId) -> Self {
        let (topic, filter) = (checked.topic.clone(), checked.filter.clone());
        let values = Values {
            asked: checked.steps.iter().any(|step| step.plugin.manifest().needs.contains(Columns::VALUE)),
            prefilter: checked.steps.first().and_then(|step| step.prefilter.clone()),
        };
        Self { reader: shell.reader.clone(), topic, queue, filter, values, lost: 0, counted: 0 }
    }

    /// One that gives every value as it was before it was compressed.
    pub fn of_all_values(shell: &Shell, checked: &Checked, queue: QueueId) -> Self {
        Self { values: Values { asked: true, prefilter: None }, ..Self::new(shell, checked, queue) }
    }

    /// Messages that retention took before they were read, those among them that the filter would not have taken.
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// The queue begins behind the offset that was to be read.
    fn note_lost(&mut self, position: u64, min: u64) {
        let from = position.max(self.counted);
        if from < min {
            self.lost += min - from;
            self.counted = min;
            let (topic, queue) = (&self.topic, self.queue);
            tracing::warn!(%topic, %queue, from, to = min, "retention took messages that a pipeline had not read");
        }
    }

    /// Offset behind the last record of the queue.
    pub fn end(&self) -> u64 {
        self.reader.bounds(&self.topic, self.queue).1.0
    }
}

impl Output {
    /// `start` is that of [`start_of`].
    pub fn new(shell: Shell, checked: &Checked, queue: QueueId, start: Start, state: Option<TopicName>) -> Self {
        Self {
            shell,
            state,
            group: checked.group.clone(),
            topic: checked.topic.clone(),
            queue,
            start,
            sinks: checked.sinks.clone(),
            dead_letters: TopicName::dead_letter_of(&checked.group),
            position: QueueOffset(0),
        }
    }

    pub fn id(&self) -> QueueId {
        self.queue
    }

    /// Messages of the source that were not read yet.
    pub fn lag(&self) -> u64 {
        self.shell.reader.bounds(&self.topic, self.queue).1.0.saturating_sub(self.position.0)
    }

    /// Asks to be woken under `token` by the next message; `false` when one is there already.
    pub fn wait(&self, token: Token) -> bool {
        self.shell.reader.wait(&self.topic, self.queue, self.position, token)
    }

    fn reader(&self) -> &Reader {
        &self.shell.reader
    }
}

/// The outputs of one record that were made last: its offset, and how many have its unique key, or one made of it.
pub(super) type Seen = Option<(u64, u32)>;

/// A message of the pipeline with this group for a sink.
pub(super) fn outgoing(
    group: &GroupName,
    sinks: &[TopicName],
    queue: QueueId,
    out: &Outgoing,
    seen: &mut Seen,
) -> Result<Message, PortError> {
    let topic = sinks.get(out.sink).ok_or_else(|| PortError::Failed(format!("there is no sink {}", out.sink)))?;
    let before = seen.filter(|(offset, _)| *offset == out.record.offset).map_or(0, |(_, count)| count);
    let made = made(group, &out.record, before);
    if made.as_ref().is_ok_and(|own| own.get(key::UNIQUE_KEY).is_some()) {
        *seen = Some((out.record.offset, before + 1));
    }
    Ok(message(topic.clone(), queue, &out.record, made.map_err(|error| trouble(&error.into()))?))
}

/// The properties of an output of a record of which so many were made before with its unique key: a later one is another message and needs an
/// id of its own.
fn made(group: &GroupName, record: &Record, before: u32) -> Result<Properties, sluice_model::Error> {
    if before > 0
        && let Some(unique) = Properties::parse(record.headers.clone())?.get(key::UNIQUE_KEY)
    {
        return properties(record, false)?.with(key::UNIQUE_KEY, &later_id(group, unique, before));
    }
    properties(record, true)
}

/// The unique key of an output behind the first, counted from 1, of a record that has `unique`: the same whenever the record is read. Another
/// pipeline's outputs have others, as the first ones, which keep `unique`, may be read by it.
///
/// It is longer than those that clients make, and shorter than those of clients with IPv6 addresses, which tools would take it for.
pub fn later_id(group: &GroupName, unique: &str, count: u32) -> String {
    format!("{unique}-{:08X}-{count}", record::crc(group.as_str().as_bytes()))
}

/// Why no message can be made of a record.
pub(super) fn check(record: &Record) -> Result<(), String> {
    if body(record).0.len() > limits::BODY_LEN {
        let (limit, got) = (limits::BODY_LEN, record.value.len());
        return Err(format!("the value has {got} bytes and more than {limit} when it is compressed"));
    }
    let own = properties(record, true).map_err(|error| error.to_string())?;
    let size = own.as_bytes().len();
    if size + ADDED > limits::PROPERTIES_LEN {
        let limit = limits::PROPERTIES_LEN - ADDED;
        return Err(format!("headers, key and tag have {size} bytes together, expected at most {limit}"));
    }
    // What has an id goes as it came.
    if own.get(key::UNIQUE_KEY).is_none()
        && let Some((name, _)) = own.iter().find(|pair| !is_storable(pair))
    {
        return Err(format!("the headers hold a pair that cannot be stored again, named {name:?}"));
    }
    Ok(())
}

/// Whether a property can be set. Stored messages may have others.
fn is_storable((name, value): &(&str, &str)) -> bool {
    !name.is_empty() && !value.contains(['\u{1}', '\u{2}'])
}

/// The value as a message's body: compressed where it is, or would be too large.
fn body(record: &Record) -> (Bytes, SysFlag) {
    if record.packed == 0 && record.value.len() > limits::BODY_LEN {
        return (compress::zlib(&record.value), SysFlag::default().with_compression(Compression::Zlib));
    }
    (record.value.clone(), flag_of(record))
}

/// A message for the dead letters: what was read at `origin`, and why it failed. Headers or a body for which there is no room are left out.
pub(super) fn dead_letter(topic: TopicName, dead: &DeadLetter, origin: &Origin) -> Result<Message, PortError> {
    let no_message = |error: sluice_model::Error| trouble(&error.into());
    let mut message = message(topic, origin.queue, &dead.record, Properties::default());
    let mut left_out = String::new();
    if message.body.len() > limits::BODY_LEN {
        left_out = format!("[its body of {} bytes is left out] ", dead.record.value.len());
        (message.body, message.sys_flag) = (Bytes::new(), SysFlag::default());
    }
    let fit = |own: &Properties| {
        own.as_bytes().len() + FAILURE_LEN <= limits::PROPERTIES_LEN && own.iter().all(|pair| is_storable(&pair))
    };
    let own = properties(&dead.record, true).ok().filter(fit).unwrap_or_else(|| {
        left_out.push_str("[its headers are left out] ");
        kept(&dead.record)
    });
    let plain = |text: &str| text.chars().filter(|c| !c.is_control()).collect::<String>();
    let (queue, offset, tries) = (origin.queue.to_string(), origin.offset.to_string(), origin.tries.to_string());
    let reason = left_out.chars().chain(plain(&dead.reason).chars()).take(1024).collect::<String>();
    let (code, step) = (plain(&dead.code), plain(&dead.step));
    let values = [&code, &reason, &step, &dead.digest, &origin.topic, &queue, &offset, &tries];
    let pairs = FAILURE_KEYS.into_iter().zip(values.map(|value| Some(Cow::Borrowed(value.as_str()))));
    let timer = dead.timer.as_ref().map(|name| (TIMER_KEY, Some(Cow::Owned(plain(name)))));
    message.properties = own.changed(&pairs.chain(timer).collect::<Vec<_>>()).map_err(no_message)?;
    Ok(message)
}

/// Of a record's properties those by which it is found, as far as they can be stored.
fn kept(record: &Record) -> Properties {
    let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
    let headers = Properties::parse(record.headers.clone()).unwrap_or_default();
    let (key_text, tag) = (record.key.as_ref().map(text).unwrap_or_default(), text(&record.tag));
    let unique = headers.get(key::UNIQUE_KEY).unwrap_or_default();
    let pairs = [(key::KEYS, key_text.as_str()), (key::TAGS, tag.as_str()), (key::UNIQUE_KEY, unique)];
    let fits = |pair: &(&str, &str)| (1..=KEPT_LEN).contains(&pair.1.len()) && is_storable(pair);
    Properties::from_pairs(pairs.into_iter().filter(fits)).unwrap_or_default()
}

fn message(topic: TopicName, queue: QueueId, record: &Record, properties: Properties) -> Message {
    let born_at = Timestamp(i64::try_from(record.born_at).unwrap_or(i64::MAX));
    let (body, sys_flag) = body(record);
    Message {
        born_host: Host::LOCAL,
        sys_flag,
        // One stage a queue, and one queue of a sink for it: the order within the queue is kept.
        ..Message::new(topic, queue, born_at, properties, body)
    }
}

impl Progress for Output {
    fn load(&mut self) -> Result<u64, PortError> {
        let known = self.reader().offset(&self.group, &self.topic, self.queue);
        self.position = match known {
            Some(known) => known,
            None => {
                let first = first(self.reader(), &self.topic, self.queue, self.start)?;
                let position =
                    Position { group: self.group.clone(), topic: self.topic.clone(), queue: self.queue, offset: first };
                self.reader().commit_offset(position).map_err(|error| trouble(&error.into()))?;
                first
            }
        };
        Ok(self.position.0)
    }
}

impl Source for Input {
    fn read(
        &mut self,
        position: u64,
        max_records: usize,
        max_bytes: usize,
        into: &mut Vec<Record>,
    ) -> Result<u64, PortError> {
        let (mut next, mut bytes) = (position, 0);
        let (mut fetches, until) = (0, Instant::now() + READ_FOR);
        // A fetch gives less than a turn takes.
        while into.len() < max_records && bytes < max_bytes {
            let fetch = Fetch {
                topic: self.topic.clone(),
                queue: self.queue,
                from: QueueOffset(next),
                max_messages: u32::try_from(max_records - into.len()).unwrap_or(u32::MAX),
                max_bytes: max_bytes - bytes,
                filter: self.filter.clone(),
            };
            let found = self.reader.fetch(&fetch).map_err(unread)?;
            match found.status {
                FetchStatus::TooLarge => {
                    let text = format!("offset {next} is behind the end of queue {}", self.queue);
                    return Err(PortError::Failed(text));
                }
                FetchStatus::TooSmall => self.note_lost(next, found.min.0),
                FetchStatus::Found | FetchStatus::NoMatch | FetchStatus::AtEnd => {}
            }
            for piece in found.records {
                if let Some(full) = read_records(&piece, &self.values, max_bytes, &mut bytes, into)? {
                    return Ok(full);
                }
            }
            fetches += 1;
            let enough = fetches >= FETCHES || Instant::now() >= until;
            if found.next.0 == next || found.next >= found.max || enough {
                return Ok(found.next.0);
            }
            next = found.next.0;
        }
        Ok(next)
    }
}

impl Sink for Output {
    fn commit(&mut self, unit: Unit) -> Result<(), PortError> {
        let mut seen = None;
        let mut outputs = Vec::with_capacity(unit.outputs.len() + unit.dead_letters.len());
        for out in unit.outputs {
            outputs.push(outgoing(&self.group, &self.sinks, self.queue, &out, &mut seen)?);
        }
        for dead in &unit.dead_letters {
            let (offset, tries) = (dead.record.offset, dead.tries);
            let origin = Origin { topic: self.topic.to_string(), queue: self.queue, offset, tries };
            outputs.push(dead_letter(self.dead_letters.clone(), dead, &origin)?);
        }
        let next = QueueOffset(unit.position);
        let staged = StageUnit {
            group: self.group.clone(),
            topic: self.topic.clone(),
            queue: self.queue,
            from: self.position,
            next,
            outputs,
            state: self.state.clone().zip(unit.state).map(|(topic, change)| (topic, self.queue, change)),
            document: None,
        };
        let with_dead_letters = !unit.dead_letters.is_empty();
        let group = self.group.clone();
        // A crash before it is on disk takes outputs, state and position together: the records are read again.
        let committed = self.shell.ask_blocking_async(move |broker, now| {
            if with_dead_letters {
                broker.dead_letter_topic(&group, now)?;
            }
            broker.commit_stage(staged, now)
        });
        committed.map_err(|failure| trouble(&failure))?;
        self.position = next;
        Ok(())
    }

    fn room(&self) -> Room {
        ROOM
    }

    fn check(&self, record: &Record) -> Result<(), String> {
        check(record)
    }

    fn durable_changes(&self) -> u64 {
        self.state.as_ref().map_or(0, |topic| States::durable(self.reader(), topic, self.queue))
    }

    fn settle(&mut self) -> Result<(), PortError> {
        self.shell.ask_blocking(|_, _| Ok(())).map_err(|failure| trouble(&failure))
    }
}

/// Where a pipeline begins in the queues of its source in which it has no position. When it has one in another, they are newer than it is, and all
/// that is in them is for it.
pub(super) fn start_of(reader: &Reader, checked: &Checked) -> Start {
    let known = reader.offsets_of(&checked.group).iter().any(|position| position.topic == checked.topic);
    if known { Start::Earliest } else { checked.start }
}

/// The offset of a start in one queue.
pub(super) fn first(
    reader: &Reader,
    topic: &TopicName,
    queue: QueueId,
    start: Start,
) -> Result<QueueOffset, PortError> {
    let (min, max) = reader.bounds(topic, queue);
    match start {
        Start::Earliest => Ok(min),
        Start::Latest => Ok(max),
        Start::At(time) => reader
            .offset_at_time(topic, queue, time, sluice_broker::Boundary::Lower)
            .map_err(|error| trouble(&error.into())),
    }
}

/// Where a pipeline begins that is to begin anew, in every queue of its source.
pub(super) fn first_positions(shell: &Shell, checked: &Checked, start: Start) -> crate::failure::Result<Vec<Position>> {
    positions(shell, checked, |queue| first(&shell.reader, &checked.topic, queue, start))
}

/// Where a pipeline stands in every queue of its source, or begins where it is new.
pub(super) fn standing(shell: &Shell, checked: &Checked) -> crate::failure::Result<Vec<Position>> {
    let reader = &shell.reader;
    let start = start_of(reader, checked);
    positions(shell, checked, |queue| match reader.offset(&checked.group, &checked.topic, queue) {
        Some(known) => Ok(known),
        None => first(reader, &checked.topic, queue, start),
    })
}

fn positions(
    shell: &Shell,
    checked: &Checked,
    at: impl Fn(QueueId) -> Result<QueueOffset, PortError>,
) -> crate::failure::Result<Vec<Position>> {
    let topic = shell.reader.topic(&checked.topic)?;
    let position = |queue| {
        let offset = at(queue).map_err(|error| Failure::new(Kind::Internal, error.to_string()))?;
        Ok(Position { group: checked.group.clone(), topic: checked.topic.clone(), queue, offset })
    };
    (0..topic.read_queues.max(topic.write_queues)).map(QueueId).map(position).collect()
}

/// What passes is tried again; what does not stops the stage.
pub(super) fn trouble(failure: &Failure) -> PortError {
    match failure.kind {
        Kind::Busy | Kind::Full | Kind::Timeout => PortError::Busy(failure.text.clone()),
        _ => PortError::Failed(failure.text.clone()),
    }
}

/// Why nothing was read. Retention takes a segment out of the log a moment before the entries of its messages out of their queues: what is not
/// there meanwhile is not looked for there the next time.
fn unread(error: sluice_broker::Error) -> PortError {
    match error {
        sluice_broker::Error::Store(error) if error.kind() == Kind::NotFound => PortError::Busy(error.to_string()),
        error => trouble(&error.into()),
    }
}

/// Adds records until they have `max_bytes` with those before, which have `size`; gives the offset to go on from when there is no room for
/// all. A compressed body counts with what it becomes, which may be a thousand times what was fetched.
fn read_records(
    piece: &Bytes,
    values: &Values,
    max_bytes: usize,
    size: &mut usize,
    into: &mut Vec<Record>,
) -> Result<Option<u64>, PortError> {
    let mut at = 0;
    while at < piece.len() {
        let view = RecordView::parse(&piece[at..]).map_err(|error| PortError::Failed(error.to_string()))?;
        if *size >= max_bytes {
            return Ok(Some(view.queue_offset().0));
        }
        let bytes = piece.slice(at..at + view.bytes().len());
        at += bytes.len();
        let record = values.record(&view, &bytes)?;
        *size += record.size();
        into.push(record);
    }
    Ok(None)
}

impl Values {
    fn record(&self, view: &RecordView<'_>, bytes: &Bytes) -> Result<Record, PortError> {
        if view.sys_flag().compression().is_some() && (!self.asked || self.prefilter.is_some()) {
            let packed = of_stored(view, bytes, Columns::empty()).map_err(PortError::Failed)?;
            if !self.asked || self.prefilter.as_ref().is_some_and(|prefilter| !prefilter.wants(&packed)) {
                return Ok(packed);
            }
        }
        to_record(view, bytes)
    }
}

/// A stored message with its value as it was before it was compressed. One that does not decompress is as it was stored, and marked.
pub(super) fn to_record(view: &RecordView<'_>, bytes: &Bytes) -> Result<Record, PortError> {
    readable_or_not(view, bytes).map_err(PortError::Failed)
}

/// The properties of a message to be sent: the headers, with the record's key and tag.
fn properties(record: &Record, keep_id: bool) -> Result<Properties, sluice_model::Error> {
    let headers = Properties::parse(record.headers.clone())?;
    if go_on(record, &headers, keep_id) {
        return Ok(headers);
    }
    let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
    let (key_text, tag) = (record.key.as_ref().map(text), text(&record.tag));
    let dropped = |name: &str| {
        DELIVERY_KEYS.contains(&name) || name == key::KEYS || name == key::TAGS || (name == key::UNIQUE_KEY && !keep_id)
    };
    // One that is to get another id could not be given it with what cannot be stored again.
    let kept = headers.iter().filter(|pair| !dropped(pair.0) && (keep_id || is_storable(pair)));
    let own = key_text.as_deref().map(|text| (key::KEYS, text)).into_iter();
    let tag = (!tag.is_empty()).then_some((key::TAGS, tag.as_str()));
    Properties::from_pairs(kept.chain(own).chain(tag))
}

/// Whether a record's headers can be the properties of a message as they are: those of one that was not changed, mostly.
fn go_on(record: &Record, headers: &Properties, keep_id: bool) -> bool {
    let (mut key, mut tag): (Option<&[u8]>, &[u8]) = (None, b"");
    for (name, value) in headers.iter() {
        match name {
            key::KEYS => key = Some(value.as_bytes()),
            key::TAGS => tag = value.as_bytes(),
            key::UNIQUE_KEY if !keep_id => return false,
            name if DELIVERY_KEYS.contains(&name) => return false,
            _ => {}
        }
    }
    record.key.as_deref() == key && record.tag == tag
}

#[cfg(test)]
mod tests {
    use sluice_model::{
        Compression, LogOffset,
        record::{self, Placement, UnitPlace},
    };
    use sluice_protocol::compress;

    use super::*;

    fn group() -> GroupName {
        GroupName::parse("pipeline-p").unwrap()
    }

    const ALL: Values = Values { asked: true, prefilter: None };

    /// Reads queue 0 of topic `t`.
    fn input(reader: &Reader, filter: &str) -> Input {
        let (topic, filter) = (TopicName::parse("t").unwrap(), sluice_broker::Filter::read(filter).unwrap());
        Input { reader: reader.clone(), topic, queue: QueueId(0), filter, values: ALL, lost: 0, counted: 0 }
    }

    fn sends(count: usize, len: usize) -> sluice_broker::Send {
        let body = Bytes::from(vec![b'.'; len]);
        let topic = TopicName::parse("t").unwrap();
        let message = Message::new(topic, QueueId(0), Timestamp(1), Properties::default(), body);
        let messages = vec![Message { born_host: Host::LOCAL, ..message }; count];
        sluice_broker::Send { messages, queue: Some(QueueId(0)), template: None, max_reconsume_times: None }
    }

    #[test]
    fn a_turn_does_not_look_through_a_whole_backlog_for_what_is_seldom() {
        let dir = tempfile::tempdir().unwrap();
        let shell = crate::shell::tests::start(dir.path());
        let topic = sluice_broker::Topic::new(TopicName::parse("t").unwrap(), 1);
        shell.ask_blocking(move |broker, now| broker.put_topic(topic, now)).unwrap();
        let (batches, each) = (30, 1_000);
        for _ in 0..batches {
            shell.ask_blocking(move |broker, now| broker.send(sends(each, 1), now)).unwrap();
        }
        let end = batches * each as u64;
        for filter in ["seldom", "region = 'x'"] {
            let (mut input, mut position, mut reads) = (input(&shell.reader, filter), 0, 0);
            while position < end {
                let mut into = Vec::new();
                let next = input.read(position, 512, 1 << 20, &mut into).unwrap();
                assert!(into.is_empty() && next > position && next - position <= 32 * 800, "{position} to {next}");
                (position, reads) = (next, reads + 1);
            }
            assert!(reads > 1, "{filter}");
        }
    }

    #[test]
    fn what_retention_took_is_counted_once_and_what_it_takes_just_now_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let store = sluice_broker::StoreConfig {
            segment_len: 4096,
            allocate_step: 4096,
            reserve_bytes: 0,
            checkpoint_bytes: 2048,
            ..Default::default()
        };
        let disk = Arc::new(sluice_broker::RealDisk::open(dir.path()).unwrap());
        let mut log = sluice_broker::open(disk, store, sluice_broker::Config::default()).unwrap();
        let now = Timestamp(1_000_000);
        log.broker.put_topic(sluice_broker::Topic::new(TopicName::parse("t").unwrap(), 1), now).unwrap();
        for _ in 0..2 {
            for _ in 0..20 {
                log.broker.send(sends(1, 400), now).unwrap();
                let written = log.broker.write().unwrap().unwrap();
                log.applier.sync().unwrap();
                log.applier.apply(&written, &mut Vec::new()).unwrap();
                log.broker.recycle(written.bytes);
            }
            log.applier.checkpoint().unwrap();
        }
        let policy = sluice_broker::Retention { max_age_ms: None, max_bytes: Some(4096) };
        log.applier.retain(now, &policy).unwrap();
        let mut input = input(&log.reader, "*");
        let (min, end) = log.reader.bounds(&input.topic, QueueId(0));
        assert!(min.0 > 0 && end.0 == 40);
        // What was read and not committed is read again.
        for _ in 0..2 {
            let mut into = Vec::new();
            assert_eq!(input.read(3, 512, 1 << 20, &mut into).unwrap(), 40);
            assert_eq!((into[0].offset, into.len() as u64, input.lost()), (min.0, 40 - min.0, min.0 - 3));
        }

        let gone = log.reader.record_at(LogOffset(0)).unwrap_err();
        assert!(matches!(unread(gone), PortError::Busy(_)));
        input.topic = TopicName::parse("none").unwrap();
        assert!(matches!(input.read(0, 1, 1, &mut Vec::new()), Err(PortError::Failed(_))));
    }

    struct Never;

    impl Prefilter for Never {
        fn wants(&self, _: &Record) -> bool {
            false
        }
    }

    #[test]
    fn a_value_that_nobody_asks_for_goes_on_as_it_is_compressed() {
        let bytes = Bytes::from(stored(7, 100));
        let view = RecordView::parse(&bytes).unwrap();
        let read = |asked, prefilter| Values { asked, prefilter }.record(&view, &bytes).unwrap();
        assert_eq!(read(true, None).value.len(), 100);
        let never: Arc<dyn Prefilter> = Arc::new(Never);
        assert_eq!(read(true, Some(never)).value, view.body(), "no step sees it");
        let packed = read(false, None);
        assert_eq!(packed.value, view.body());
        assert_eq!(check(&packed), Ok(()));
        let out = Outgoing { record: packed.clone(), sink: 0 };
        let sent = outgoing(&group(), &[TopicName::parse("t").unwrap()], QueueId(0), &out, &mut None).unwrap();
        for message in [sent, letter(packed, None)] {
            assert_eq!((&message.body[..], message.sys_flag.compression()), (view.body(), Some(Compression::Zlib)));
        }
    }

    #[test]
    fn headers_that_cannot_be_stored_again_stop_nothing() {
        let record = |headers: &'static str| Record {
            headers: headers.into(),
            key: Some("k".into()),
            tag: "t".into(),
            ..Record::default()
        };
        let topics = [TopicName::parse("t").unwrap()];
        let sent = |record: &Record, seen: Seen| {
            let out = Outgoing { record: record.clone(), sink: 0 };
            outgoing(&group(), &topics, QueueId(0), &out, &mut { seen }).unwrap().properties
        };
        for pair in ["\u{1}no name\u{2}", "a\u{1}b\u{1}c\u{2}"] {
            let own = format!("KEYS\u{1}k\u{2}TAGS\u{1}t\u{2}UNIQ_KEY\u{1}u\u{2}{pair}").leak();
            let as_it_came = record(own);
            assert_eq!(check(&as_it_came), Ok(()));
            assert_eq!(sent(&as_it_came, None).as_str(), own);
            // The second output of a record is given an id of its own.
            let second = sent(&as_it_came, Some((0, 1)));
            assert_eq!(second.get(key::UNIQUE_KEY), Some(later_id(&group(), "u", 1).as_str()));

            let changed = Record { key: Some("l".into()), ..as_it_came };
            let without_id = record(format!("KEYS\u{1}k\u{2}TAGS\u{1}t\u{2}{pair}").leak());
            for record in [changed, without_id] {
                assert!(check(&record).is_err());
                let dead = letter(record, None).properties;
                assert_eq!(dead.get("SLUICE_ERROR"), Some("[its headers are left out] why"));
                assert_eq!((dead.get(key::TAGS), dead.get("SLUICE_ERROR_CODE")), (Some("t"), Some("c")));
            }
        }
        // A timer's key may be anything.
        let timer = Record { key: Some("\u{1}".into()), ..Record::default() };
        assert!(check(&timer).is_err());
        assert_eq!(letter(timer, Some("wake")).properties.get(TIMER_KEY), Some("wake"));
    }

    fn stored(offset: u64, plain: usize) -> Vec<u8> {
        let body = compress::zlib(&vec![0; plain]);
        let topic = TopicName::parse("t").unwrap();
        let mut message = Message::new(topic, QueueId(0), Timestamp(0), Properties::default(), body);
        message.sys_flag = message.sys_flag.with_compression(Compression::Zlib);
        let place = Placement {
            queue_offset: QueueOffset(offset),
            log_offset: LogOffset(0),
            stored_at: Timestamp(0),
            store_host: Host::LOCAL,
            unit: UnitPlace::ALONE,
        };
        let mut bytes = Vec::new();
        record::encode(&mut bytes, &message, &place);
        bytes
    }

    #[test]
    fn a_turn_is_bounded_by_what_compressed_bodies_become() {
        let plain = 100_000;
        let piece = Bytes::from((7..12).flat_map(|offset| stored(offset, plain)).collect::<Vec<_>>());
        assert!(piece.len() < plain / 10);
        let read = |max_bytes| {
            let (mut into, mut size) = (Vec::new(), 0);
            let next = read_records(&piece, &ALL, max_bytes, &mut size, &mut into).unwrap();
            assert_eq!(size, into.iter().map(Record::size).sum::<usize>());
            (into.iter().map(|record| record.offset).collect::<Vec<_>>(), next)
        };
        assert_eq!(read(1), (vec![7], Some(8)));
        assert_eq!(read(2 * plain), (vec![7, 8], Some(9)));
        assert_eq!(read(usize::MAX), ((7..12).collect(), None));
    }

    /// Bytes that no compression makes fewer.
    fn noise(len: usize) -> Bytes {
        let mut state = 1_u64;
        let next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) as u8
        };
        std::iter::repeat_with(next).take(len).collect()
    }

    fn letter(record: Record, timer: Option<&str>) -> Message {
        let (code, reason, step, digest) = ("c\u{1}".to_owned(), "why".to_owned(), "s".to_owned(), "d".to_owned());
        let timer = timer.map(str::to_owned);
        let dead = DeadLetter { record, timer, queue: 0, code, reason, step, digest, tries: 2 };
        let origin = Origin { topic: "t".to_owned(), queue: QueueId(3), offset: 9, tries: 2 };
        dead_letter(TopicName::parse("dead").unwrap(), &dead, &origin).unwrap()
    }

    #[test]
    fn outputs_of_one_record_have_ids_of_their_own_which_are_the_same_each_time() {
        let (sinks, group) = ([TopicName::parse("t").unwrap()], GroupName::parse("pipeline-p").unwrap());
        let headers = |pairs: &[(&str, &str)]| {
            Bytes::copy_from_slice(Properties::from_pairs(pairs.iter().copied()).unwrap().as_bytes())
        };
        let mut seen = None;
        let mut id = |offset, pairs: &[(&str, &str)]| {
            let out = Outgoing { record: Record { offset, headers: headers(pairs), ..Record::default() }, sink: 0 };
            let message = outgoing(&group, &sinks, QueueId(0), &out, &mut seen).unwrap();
            message.properties.get(key::UNIQUE_KEY).map(str::to_owned)
        };
        let (own, other) = (&[("UNIQ_KEY", "AC110002")][..], &[("UNIQ_KEY", "AC110003")][..]);
        // A timer's output has none, and stands before those of the record that comes next.
        assert_eq!(id(7, &[("a", "1")]), None);
        let ids = [id(7, own), id(7, own), id(7, own), id(8, other), id(8, other)].map(Option::unwrap);
        let mark = format!("{:08X}", record::crc(b"pipeline-p"));
        assert_eq!(ids[..3], ["AC110002".to_owned(), format!("AC110002-{mark}-1"), format!("AC110002-{mark}-2")]);
        assert_eq!(ids[3..], ["AC110003".to_owned(), format!("AC110003-{mark}-1")]);
        let longest = later_id(&group, &"A".repeat(32), limits::UNIT_RECORDS as u32);
        assert!(longest.len() < 2 * 28, "as long as one with an IPv6 address: {longest}");
    }

    #[test]
    fn what_does_not_decompress_is_read_as_it_is() {
        let mut bytes = stored(7, 100);
        let view = RecordView::parse(&bytes).unwrap();
        let body = view.body_range();
        bytes[body.clone()].fill(0xA5);
        let (mut into, mut size) = (Vec::new(), 0);
        read_records(&Bytes::from(bytes), &ALL, usize::MAX, &mut size, &mut into).unwrap();
        assert!(into[0].unreadable.as_ref().unwrap().contains("zlib"), "{:?}", into[0].unreadable);
        assert_eq!((into[0].offset, into[0].value.len()), (7, body.len()));
    }

    #[test]
    fn a_large_value_is_compressed_and_one_that_stays_too_large_is_refused() {
        let large = Record { value: vec![7; limits::BODY_LEN + 1].into(), ..Record::default() };
        assert_eq!(check(&large), Ok(()));
        let out = Outgoing { record: large.clone(), sink: 0 };
        let group = GroupName::parse("pipeline-p").unwrap();
        let message = outgoing(&group, &[TopicName::parse("t").unwrap()], QueueId(0), &out, &mut None).unwrap();
        let plain = compress::decompress(&message.body, message.sys_flag.compression().unwrap(), usize::MAX >> 1);
        assert_eq!(plain.unwrap(), large.value);

        let larger = Record { value: noise(limits::BODY_LEN + 1), key: Some("k".into()), ..Record::default() };
        assert!(check(&larger).unwrap_err().contains("4194305 bytes"));
        let dead = letter(larger, None);
        assert_eq!((dead.body.len(), dead.properties.get(key::KEYS)), (0, Some("k")));
        assert_eq!(dead.properties.get("SLUICE_ERROR"), Some("[its body of 4194305 bytes is left out] why"));
    }

    #[test]
    fn properties_are_the_headers_with_the_key_and_tag_and_without_what_ends_with_the_source() {
        let record = |headers: &[(&str, &str)], key: Option<&str>, tag: &str| Record {
            headers: Properties::from_pairs(headers.iter().copied()).unwrap().as_bytes().to_vec().into(),
            key: key.map(|key| key.to_owned().into()),
            tag: tag.to_owned().into(),
            ..Record::default()
        };
        let made = |record: &Record, keep_id| {
            let of = properties(record, keep_id).unwrap();
            let mut pairs: Vec<_> = of.iter().map(|(name, value)| format!("{name}={value}")).collect();
            pairs.sort();
            pairs.join(" ")
        };
        let own = [("KEYS", "k"), ("a", "1"), ("TAGS", "t"), ("UNIQ_KEY", "u")];
        let unchanged = record(&own, Some("k"), "t");
        assert_eq!(properties(&unchanged, true).unwrap().as_bytes(), &unchanged.headers[..], "as it was sent");
        assert_eq!(made(&record(&own, Some("k"), "t"), true), "KEYS=k TAGS=t UNIQ_KEY=u a=1");
        assert_eq!(made(&record(&own, Some("k"), "t"), false), "KEYS=k TAGS=t a=1");
        assert_eq!(made(&record(&own, Some("l"), "t"), true), "KEYS=l TAGS=t UNIQ_KEY=u a=1");
        assert_eq!(made(&record(&own, None, ""), true), "UNIQ_KEY=u a=1");
        assert_eq!(made(&record(&[("a", "1")], Some("k"), "t"), true), "KEYS=k TAGS=t a=1");
        assert_eq!(made(&record(&[("DELAY", "3"), ("KEYS", "k")], Some("k"), ""), true), "KEYS=k");
    }

    #[test]
    fn headers_for_which_there_is_no_room_are_refused_and_a_dead_letter_goes_without_them() {
        let headers = |len: usize| Properties::from_pairs([("h", "x".repeat(len).as_str())]).unwrap();
        let record = |len: usize| Record {
            headers: headers(len).as_bytes().to_vec().into(),
            key: Some("k".into()),
            ..Record::default()
        };
        assert_eq!(check(&record(limits::PROPERTIES_LEN - ADDED - 20)), Ok(()));
        let full = record(limits::PROPERTIES_LEN - 20);
        assert!(check(&full).unwrap_err().contains("headers, key and tag"));
        let dead = letter(full, Some("wake\u{1}"));
        let said = FAILURE_KEYS.map(|name| dead.properties.get(name).unwrap());
        assert_eq!(said, ["c", "[its headers are left out] why", "s", "d", "t", "3", "9", "2"]);
        let get = |name| dead.properties.get(name);
        assert_eq!((get(key::KEYS), get("h"), get(TIMER_KEY)), (Some("k"), None, Some("wake")));
        assert_eq!(letter(record(100), None).properties.get("h").map(str::len), Some(100));
    }
}
