//! What a stage reads: the messages of one queue as records.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use sluice_broker::{Fetch, FetchStatus, Reader};
use sluice_model::{Kind, QueueId, QueueOffset, RecordView, TopicName};
use sluice_runtime::{
    Columns, Record,
    ports::{PortError, Prefilter, Source},
};

use super::{Checked, trouble};
use crate::{
    priority,
    record::{of_stored, readable_or_not},
    shell::Shell,
};

/// Fetches of one read, and how long it goes on to another one: where a filter takes little, most of what is looked at comes to nothing.
const FETCHES: usize = 32;
const READ_FOR: Duration = Duration::from_millis(10);

/// Where a stage reads.
pub struct Input {
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
            let found = priority::upright(|| self.reader.fetch(&fetch)).map_err(unread)?;
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
pub fn to_record(view: &RecordView<'_>, bytes: &Bytes) -> Result<Record, PortError> {
    readable_or_not(view, bytes).map_err(PortError::Failed)
}

#[cfg(test)]
mod tests {
    use sluice_model::{
        Compression, Host, LogOffset, Message, Properties, Timestamp,
        record::{self, Placement, UnitPlace},
    };
    use sluice_protocol::compress;
    use sluice_runtime::ports::Outgoing;

    use super::super::message::{
        check, outgoing,
        tests::{group, letter},
    };
    use super::*;

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
            log.checkpointer.write(log.applier.draft().unwrap().unwrap()).unwrap();
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
}
