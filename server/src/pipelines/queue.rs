//! One queue of a pipeline's source, as the runtime's ports see it.

use std::borrow::Cow;

use bytes::Bytes;
use sluice_broker::{Fetch, FetchStatus, Position, Reader, StageUnit, Token};
use sluice_model::{
    GroupName, Host, Kind, Message, Properties, QueueId, QueueOffset, RecordView, SysFlag, Timestamp, TopicName, key,
};
use sluice_runtime::{
    Columns, Record,
    ports::{DeadLetter, Outgoing, PortError, Progress, Sink, Source, Unit},
};

use super::{
    spec::{Checked, Start},
    state::States,
};
use crate::{failure::Failure, record::of_stored, shell::Shell};

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
        Self { reader: shell.reader.clone(), topic, queue, filter }
    }

    /// Offset behind the last record of the queue.
    pub fn end(&self) -> u64 {
        self.reader.bounds(&self.topic, self.queue).1.0
    }
}

impl Output {
    pub fn new(shell: Shell, checked: &Checked, queue: QueueId, state: Option<TopicName>) -> Self {
        Self {
            shell,
            state,
            group: checked.group.clone(),
            topic: checked.topic.clone(),
            queue,
            start: checked.start,
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

    /// Waits until everything that was committed is on disk, and so is seen by consumers.
    pub fn settle(&self) -> crate::failure::Result<()> {
        self.shell.ask_blocking(|_, _| Ok(()))
    }

    fn reader(&self) -> &Reader {
        &self.shell.reader
    }
}

/// A message for a sink. `seen` is the offset of the record before.
pub(super) fn outgoing(
    sinks: &[TopicName],
    queue: QueueId,
    out: &Outgoing,
    seen: &mut Option<u64>,
) -> Result<Message, PortError> {
    let topic = sinks.get(out.sink).ok_or_else(|| PortError::Failed(format!("there is no sink {}", out.sink)))?;
    // A second output of one record is another message and needs an id of its own.
    let first = seen.replace(out.record.offset) != Some(out.record.offset);
    let properties = properties(&out.record, first).map_err(|error| trouble(&error.into()))?;
    Ok(message(topic.clone(), queue, &out.record, properties))
}

/// A message for the dead letters: what was read at `origin`, and why it failed.
pub(super) fn dead_letter(topic: TopicName, dead: &DeadLetter, origin: &Origin) -> Result<Message, PortError> {
    let own = properties(&dead.record, true).map_err(|error| trouble(&error.into()))?;
    let (queue, offset, tries) = (origin.queue.to_string(), origin.offset.to_string(), origin.tries.to_string());
    let reason: String = dead.reason.chars().filter(|c| !c.is_control()).take(1024).collect();
    let values = [&dead.code, &reason, &dead.step, &dead.digest, &origin.topic, &queue, &offset, &tries];
    let pairs: Vec<_> = FAILURE_KEYS.into_iter().zip(values.map(|value| Some(Cow::Borrowed(value.as_str())))).collect();
    let properties = own.changed(&pairs).map_err(|error| trouble(&error.into()))?;
    Ok(message(topic, origin.queue, &dead.record, properties))
}

fn message(topic: TopicName, queue: QueueId, record: &Record, properties: Properties) -> Message {
    let born_at = Timestamp(i64::try_from(record.born_at).unwrap_or(i64::MAX));
    Message {
        born_host: Host::LOCAL,
        sys_flag: SysFlag::default(),
        // One stage a queue, and one queue of a sink for it: the order within the queue is kept.
        ..Message::new(topic, queue, born_at, properties, record.value.clone())
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
            let found = self.reader.fetch(&fetch).map_err(|error| trouble(&error.into()))?;
            if found.status == FetchStatus::TooLarge {
                let text = format!("offset {next} is behind the end of queue {}", self.queue);
                return Err(PortError::Failed(text));
            }
            for piece in found.records {
                if let Some(full) = read_records(&piece, max_bytes, &mut bytes, into)? {
                    return Ok(full);
                }
            }
            if found.next.0 == next || found.next >= found.max {
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
            outputs.push(outgoing(&self.sinks, self.queue, &out, &mut seen)?);
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

    fn durable_changes(&self) -> u64 {
        self.state.as_ref().map_or(0, |topic| States::durable(self.reader(), topic, self.queue))
    }
}

/// Where a pipeline that is new to a queue begins.
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
    positions(shell, checked, |queue| match reader.offset(&checked.group, &checked.topic, queue) {
        Some(known) => Ok(known),
        None => first(reader, &checked.topic, queue, checked.start),
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

/// Adds records until they have `max_bytes` with those before, which have `size`; gives the offset to go on from when there is no room for
/// all. A compressed body counts with what it becomes, which may be a thousand times what was fetched.
fn read_records(
    piece: &Bytes,
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
        let record = to_record(&view, &bytes)?;
        *size += record.size();
        into.push(record);
    }
    Ok(None)
}

pub(super) fn to_record(view: &RecordView<'_>, bytes: &Bytes) -> Result<Record, PortError> {
    of_stored(view, bytes, Columns::all()).or_else(|problem| {
        let stored = of_stored(view, bytes, Columns::empty()).map_err(PortError::Failed)?;
        Ok(Record { unreadable: Some(problem.into()), ..stored })
    })
}

/// The properties of a message to be sent: the headers, with the record's key and tag.
fn properties(record: &Record, keep_id: bool) -> Result<Properties, sluice_model::Error> {
    let headers = Properties::parse(record.headers.clone())?;
    let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
    let (key_text, tag) = (record.key.as_ref().map(text), text(&record.tag));
    let dropped = |name: &str| {
        DELIVERY_KEYS.contains(&name) || name == key::KEYS || name == key::TAGS || (name == key::UNIQUE_KEY && !keep_id)
    };
    let kept = headers.iter().filter(|(name, _)| !dropped(name));
    let own = key_text.as_deref().map(|text| (key::KEYS, text)).into_iter();
    let tag = (!tag.is_empty()).then_some((key::TAGS, tag.as_str()));
    Properties::from_pairs(kept.chain(own).chain(tag))
}

#[cfg(test)]
mod tests {
    use sluice_model::{
        Compression, LogOffset,
        record::{self, Placement, UnitPlace},
    };
    use sluice_protocol::compress;

    use super::*;

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
            let next = read_records(&piece, max_bytes, &mut size, &mut into).unwrap();
            assert_eq!(size, into.iter().map(Record::size).sum::<usize>());
            (into.iter().map(|record| record.offset).collect::<Vec<_>>(), next)
        };
        assert_eq!(read(1), (vec![7], Some(8)));
        assert_eq!(read(2 * plain), (vec![7, 8], Some(9)));
        assert_eq!(read(usize::MAX), ((7..12).collect(), None));
    }
}
