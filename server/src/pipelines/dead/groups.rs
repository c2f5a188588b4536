//! Dead letters counted by what went wrong.

use std::time::{Duration, Instant};

use sluice_broker::{Boundary, Fetch, Filter};
use sluice_model::{MessageId, QueueId, QueueOffset, RecordView, Timestamp, limits};

use super::{DeadLetters, Marks};
use crate::{failure::Result, pipelines::queue::FAILURE_KEYS};

/// Most letters that one request reads.
const SCAN_LIMIT: u64 = 20_000;
/// Longest time that one request reads.
const SCAN_TIME: Duration = Duration::from_secs(10);
/// Most groups of one answer.
const GROUPS_LIMIT: usize = 1_000;

/// Letters that failed in the same way.
#[derive(Clone, Debug)]
pub struct ErrorGroup {
    /// Empty, as the other two, for messages that somebody else sent to the topic.
    pub code: String,
    pub step: String,
    pub digest: String,
    pub count: u64,
    /// When the first and the last of them were stored.
    pub first: Timestamp,
    pub last: Timestamp,
    /// The last of them: its id, and its own words.
    pub sample: MessageId,
    pub reason: String,
}

/// Groups of the letters that were read.
pub struct Groups {
    /// The largest first.
    pub groups: Vec<ErrorGroup>,
    pub scanned: u64,
    /// Offset to go on from, by queue; `None` when all were read.
    pub next: Option<Vec<QueueOffset>>,
}

impl DeadLetters {
    /// How many queues a cursor is about.
    pub fn queue_count(&self) -> usize {
        self.queues().count()
    }

    /// Counts letters from `starts` on, by queue; without `marks` those as well that are dealt with.
    pub fn groups(
        &self,
        marks: Option<&Marks>,
        starts: Option<Vec<QueueOffset>>,
        (from, to): (Option<Timestamp>, Option<Timestamp>),
    ) -> Result<Groups> {
        let until = Instant::now() + SCAN_TIME;
        let (mut found, mut next, mut whole) =
            (Groups { groups: Vec::new(), scanned: 0, next: None }, Vec::new(), true);
        for queue in self.queues() {
            let mut at = match (starts.as_ref().and_then(|starts| starts.get(queue.0 as usize)), from) {
                (Some(start), _) => *start,
                (None, Some(from)) => self.reader().offset_at_time(&self.topic, queue, from, Boundary::Lower)?,
                (None, None) => QueueOffset(0),
            };
            let end = QueueOffset(self.end(queue));
            while whole && at < end {
                at = match self.count(
                    queue,
                    at.max(self.reader().bounds(&self.topic, queue).0),
                    marks,
                    to,
                    &mut found,
                )? {
                    Some(next) => next,
                    None => end,
                };
                whole = found.scanned < SCAN_LIMIT && found.groups.len() < GROUPS_LIMIT && Instant::now() < until;
            }
            whole &= at >= end;
            next.push(at);
        }
        found.next = (!whole).then_some(next);
        found.groups.sort_by(|a, b| b.count.cmp(&a.count).then(b.last.cmp(&a.last)));
        Ok(found)
    }

    /// Counts some letters; answers where to go on, `None` behind the last one that is wanted.
    fn count(
        &self,
        queue: QueueId,
        from: QueueOffset,
        marks: Option<&Marks>,
        to: Option<Timestamp>,
        found: &mut Groups,
    ) -> Result<Option<QueueOffset>> {
        let from = marks.map_or(from, |marks| marks.next_open(queue, from));
        let fetch = Fetch {
            topic: self.topic.clone(),
            queue,
            from,
            max_messages: limits::PULL_MESSAGES,
            max_bytes: limits::PULL_BYTES,
            filter: Filter::All,
        };
        let fetched = self.reader().fetch(&fetch)?;
        if fetched.records.is_empty() {
            return Ok(None);
        }
        for piece in &fetched.records {
            let mut rest = &piece[..];
            while !rest.is_empty() {
                let letter = RecordView::parse(rest)?;
                rest = rest.get(letter.bytes().len()..).unwrap_or_default();
                found.scanned += 1;
                if to.is_some_and(|to| letter.stored_at() > to) {
                    return Ok(None);
                }
                if !marks.is_some_and(|marks| marks.holds(queue, letter.queue_offset())) {
                    found.add(&letter);
                }
            }
        }
        Ok(Some(fetched.next))
    }
}

impl Groups {
    fn add(&mut self, letter: &RecordView<'_>) {
        let [code, reason, step, digest, ..] = FAILURE_KEYS.map(|key| letter.property(key).unwrap_or_default());
        let (at, place) =
            (letter.stored_at(), MessageId { broker: letter.store_host(), log_offset: letter.log_offset() });
        let same = |group: &&mut ErrorGroup| group.code == code && group.step == step && group.digest == digest;
        match self.groups.iter_mut().find(same) {
            Some(group) => {
                group.count += 1;
                group.first = group.first.min(at);
                if at >= group.last {
                    (group.last, group.sample, group.reason) = (at, place, reason.to_owned());
                }
            }
            None => self.groups.push(ErrorGroup {
                code: code.to_owned(),
                step: step.to_owned(),
                digest: digest.to_owned(),
                count: 1,
                first: at,
                last: at,
                sample: place,
                reason: reason.to_owned(),
            }),
        }
    }
}
