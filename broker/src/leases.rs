//! POP leases: which messages the members of a group hold, and until when.
//!
//! A lease is of one message; one record tells of all that one request took, gave back or keeps longer. Of a queue that is
//! popped in order nothing is taken while a lease of it lasts; what was not acknowledged *returned* to its place, with the
//! number of its failures, and is taken again before what is behind it.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use sluice_model::{GroupName, QueueId, QueueOffset, RecordView, Timestamp, TopicName, limits};

use crate::{
    Error,
    codec::{In, Out},
    error::Result,
    offsets::Position,
};

/// A group's part in one queue.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Place {
    pub group: GroupName,
    pub topic: TopicName,
    pub queue: QueueId,
}

/// That a member holds one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lease {
    /// When it was taken, or kept longer: who has an older handle has lost it.
    pub taken_at: Timestamp,
    /// From then on the message comes again.
    pub until: Timestamp,
    /// It was taken in order.
    pub ordered: bool,
}

/// What a record of the leases' topic says of one place.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Change {
    /// Messages are held from now on; a position that came with it is the group's.
    Taken { place: Place, lease: Lease, next: Option<QueueOffset>, offsets: Vec<QueueOffset> },
    /// Messages are held no longer: acknowledged, or on their way to the retry topic.
    Ended { place: Place, offsets: Vec<QueueOffset> },
    /// Messages that were taken in order are held no longer, and wait in their place.
    Returned { place: Place, offsets: Vec<QueueOffset> },
}

const TAKEN: u32 = 1;
const ENDED: u32 = 2;
const TAKEN_IN_ORDER: u32 = 3;
const RETURNED: u32 = 4;
/// In place of a position that there is not.
const NOWHERE: u64 = u64::MAX;

/// View: all messages that are popped and not acknowledged.
#[derive(Default)]
pub struct Leases {
    by_place: HashMap<Arc<Place>, BTreeMap<QueueOffset, Lease>>,
    by_due: BTreeSet<(Timestamp, Arc<Place>, QueueOffset)>,
    /// How often messages failed that were taken in order and are not acknowledged, held or not.
    failures: HashMap<Arc<Place>, BTreeMap<QueueOffset, u32>>,
}

impl Leases {
    pub(crate) fn get(&self, place: &Place, offset: QueueOffset) -> Option<Lease> {
        self.by_place.get(place)?.get(&offset).copied()
    }

    /// How often a message failed that was taken in order.
    pub(crate) fn failures(&self, place: &Place, offset: QueueOffset) -> u32 {
        self.failures.get(place).and_then(|failed| failed.get(&offset)).copied().unwrap_or(0)
    }

    /// Up to `max` messages that were taken in order, failed, and wait in their place.
    pub(crate) fn returned(&self, place: &Place, max: usize) -> Vec<QueueOffset> {
        let failed = self.failures.get(place).into_iter().flatten().map(|(offset, _)| *offset);
        failed.filter(|offset| self.get(place, *offset).is_none()).take(max).collect()
    }

    /// Whether a message waits in its place that was taken in order and failed.
    pub(crate) fn has_returned(&self, place: &Place) -> bool {
        !self.returned(place, 1).is_empty()
    }

    /// Messages that a group holds of one queue.
    pub(crate) fn count(&self, place: &Place) -> usize {
        self.by_place.get(place).map_or(0, BTreeMap::len)
    }

    /// Messages that all groups hold.
    pub(crate) fn total(&self) -> usize {
        self.by_due.len()
    }

    /// Whether the group may hold no more messages of this queue.
    pub(crate) fn is_full(&self, place: &Place) -> bool {
        self.total() >= limits::LEASED || self.count(place) >= limits::LEASED_OF_QUEUE
    }

    /// Up to `max` messages whose time is up, the longest due first.
    pub(crate) fn due(&self, now: Timestamp, max: usize) -> Vec<(Arc<Place>, QueueOffset, Lease)> {
        let due = self.by_due.iter().take_while(|(until, ..)| *until <= now).take(max);
        due.filter_map(|(_, place, offset)| Some((place.clone(), *offset, self.get(place, *offset)?))).collect()
    }

    /// Applies a record of the leases' topic; answers with the positions that it moves.
    pub(crate) fn apply(&mut self, record: &RecordView<'_>) -> Result<Vec<Position>> {
        let mut positions = Vec::new();
        for change in decode(record.body())? {
            match change {
                Change::Taken { place, lease, next, offsets } => {
                    if let Some(offset) = next {
                        let Place { group, topic, queue } = place.clone();
                        positions.push(Position { group, topic, queue, offset });
                    }
                    self.take(place, lease, &offsets);
                }
                Change::Ended { place, offsets } => {
                    self.end(&place, &offsets);
                    self.forget_failures(&place, &offsets);
                }
                Change::Returned { place, offsets } => {
                    self.end(&place, &offsets);
                    let failed = self.failures.entry(Arc::new(place)).or_default();
                    offsets.into_iter().for_each(|offset| *failed.entry(offset).or_default() += 1);
                }
            }
        }
        Ok(positions)
    }

    fn take(&mut self, place: Place, lease: Lease, offsets: &[QueueOffset]) {
        let known = self.by_place.get_key_value(&place).map(|(known, _)| known.clone());
        let place = known.unwrap_or_else(|| Arc::new(place));
        let held = self.by_place.entry(place.clone()).or_default();
        for offset in offsets {
            if let Some(old) = held.insert(*offset, lease) {
                self.by_due.remove(&(old.until, place.clone(), *offset));
            }
            self.by_due.insert((lease.until, place.clone(), *offset));
        }
    }

    fn end(&mut self, place: &Place, offsets: &[QueueOffset]) {
        let Some((place, held)) =
            self.by_place.get_key_value(place).map(|(place, _)| place.clone()).and_then(|place| {
                let held = self.by_place.get_mut(&place)?;
                Some((place, held))
            })
        else {
            return;
        };
        for offset in offsets {
            if let Some(lease) = held.remove(offset) {
                self.by_due.remove(&(lease.until, place.clone(), *offset));
            }
        }
        if held.is_empty() {
            self.by_place.remove(&place);
        }
    }

    fn forget_failures(&mut self, place: &Place, offsets: &[QueueOffset]) {
        if let Some(failed) = self.failures.get_mut(place) {
            for offset in offsets {
                failed.remove(offset);
            }
            if failed.is_empty() {
                self.failures.remove(place);
            }
        }
    }

    pub(crate) fn forget_topic(&mut self, topic: &TopicName) {
        self.forget(|place| place.topic == *topic);
    }

    pub(crate) fn forget_group(&mut self, group: &GroupName) {
        self.forget(|place| place.group == *group);
    }

    fn forget(&mut self, gone: impl Fn(&Place) -> bool) {
        self.failures.retain(|place, _| !gone(place));
        if self.by_place.keys().any(|place| gone(place)) {
            self.by_place.retain(|place, _| !gone(place));
            self.by_due.retain(|(_, place, _)| !gone(place));
        }
    }

    pub(crate) fn snapshot(&self, out: &mut Out) {
        out.u32(self.by_place.len() as u32);
        for (place, held) in &self.by_place {
            put_place(out, place);
            out.u32(held.len() as u32);
            for (offset, lease) in held {
                out.u64(offset.0).i64(lease.taken_at.0).i64(lease.until.0).u32(u32::from(lease.ordered));
            }
        }
        out.u32(self.failures.len() as u32);
        for (place, failed) in &self.failures {
            put_place(out, place);
            out.u32(failed.len() as u32);
            for (offset, failures) in failed {
                out.u64(offset.0).u32(*failures);
            }
        }
    }

    pub(crate) fn restore(&mut self, from: &mut In<'_>) -> Result<()> {
        for _ in 0..from.u32()? {
            let place = take_place(from)?;
            for _ in 0..from.u32()? {
                let offset = QueueOffset(from.u64()?);
                let (taken_at, until) = (Timestamp(from.i64()?), Timestamp(from.i64()?));
                self.take(place.clone(), Lease { taken_at, until, ordered: from.u32()? != 0 }, &[offset]);
            }
        }
        for _ in 0..from.u32()? {
            let failed = self.failures.entry(Arc::new(take_place(from)?)).or_default();
            for _ in 0..from.u32()? {
                failed.insert(QueueOffset(from.u64()?), from.u32()?);
            }
        }
        Ok(())
    }
}

/// The body of a record of the leases' topic.
pub(crate) fn encode(changes: &[Change]) -> Vec<u8> {
    let mut out = Out::default();
    for change in changes {
        match change {
            Change::Taken { place, lease, next, offsets } => {
                put_place(out.u32(if lease.ordered { TAKEN_IN_ORDER } else { TAKEN }), place);
                out.i64(lease.taken_at.0).i64(lease.until.0).u64(next.map_or(NOWHERE, |next| next.0));
                put_runs(&mut out, offsets);
            }
            Change::Ended { place, offsets } => {
                put_place(out.u32(ENDED), place);
                put_runs(&mut out, offsets);
            }
            Change::Returned { place, offsets } => {
                put_place(out.u32(RETURNED), place);
                put_runs(&mut out, offsets);
            }
        }
    }
    out.0
}

fn decode(body: &[u8]) -> Result<Vec<Change>> {
    let mut from = In::new(body);
    let mut changes = Vec::new();
    while !from.is_empty() {
        let (kind, place) = (from.u32()?, take_place(&mut from)?);
        changes.push(match kind {
            TAKEN | TAKEN_IN_ORDER => {
                let (taken_at, until) = (Timestamp(from.i64()?), Timestamp(from.i64()?));
                let lease = Lease { taken_at, until, ordered: kind == TAKEN_IN_ORDER };
                let next = Some(from.u64()?).filter(|next| *next != NOWHERE).map(QueueOffset);
                Change::Taken { place, lease, next, offsets: take_runs(&mut from)? }
            }
            ENDED => Change::Ended { place, offsets: take_runs(&mut from)? },
            RETURNED => Change::Returned { place, offsets: take_runs(&mut from)? },
            other => return Err(Error::invalid("lease record", format!("expected a known kind, got {other}"))),
        });
    }
    Ok(changes)
}

fn put_place(out: &mut Out, place: &Place) {
    out.text(place.group.as_str()).text(place.topic.as_str()).u32(place.queue.0);
}

fn take_place(from: &mut In<'_>) -> Result<Place> {
    Ok(Place {
        group: GroupName::parse(from.text()?)?,
        topic: TopicName::parse(from.text()?)?,
        queue: QueueId(from.u32()?),
    })
}

/// Offsets as runs: first, and how many.
fn put_runs(out: &mut Out, offsets: &[QueueOffset]) {
    let runs: Vec<&[QueueOffset]> = offsets.chunk_by(|a, b| a.next() == *b).collect();
    out.u32(runs.len() as u32);
    for run in runs {
        out.u64(run.first().map_or(0, |first| first.0)).u32(run.len() as u32);
    }
}

fn take_runs(from: &mut In<'_>) -> Result<Vec<QueueOffset>> {
    let mut offsets = Vec::new();
    for _ in 0..from.u32()? {
        let (first, count) = (QueueOffset(from.u64()?), from.u32()?);
        if offsets.len() + count as usize > limits::ACKED_MESSAGES {
            let text = format!("expected at most {} messages", limits::ACKED_MESSAGES);
            return Err(Error::invalid("lease record", text));
        }
        offsets.extend((0..u64::from(count)).map(|step| first.plus(step)));
    }
    Ok(offsets)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(queue: u32) -> Place {
        Place { group: GroupName::parse("g").unwrap(), topic: TopicName::parse("t").unwrap(), queue: QueueId(queue) }
    }

    #[test]
    fn a_record_reads_as_it_was_written() {
        let offsets: Vec<QueueOffset> = [3, 4, 5, 9, 11, 12].map(QueueOffset).to_vec();
        let lease = Lease { taken_at: Timestamp(7), until: Timestamp(8), ordered: false };
        let ordered = Lease { ordered: true, ..lease };
        let changes = vec![
            Change::Taken { place: place(0), lease, next: Some(QueueOffset(13)), offsets: offsets.clone() },
            Change::Taken { place: place(1), lease: ordered, next: None, offsets: vec![QueueOffset(1)] },
            Change::Ended { place: place(2), offsets: offsets.clone() },
            Change::Returned { place: place(3), offsets },
        ];
        let body = encode(&changes);
        assert_eq!(decode(&body).unwrap(), changes);
        assert!(decode(&body[..body.len() - 1]).is_err());
    }

    #[test]
    fn the_two_orders_say_the_same_and_a_snapshot_says_it_again() {
        let mut leases = Leases::default();
        let lease = |until| Lease { taken_at: Timestamp(1), until: Timestamp(until), ordered: false };
        leases.take(place(0), lease(10), &[QueueOffset(0), QueueOffset(1)]);
        leases.take(place(0), lease(30), &[QueueOffset(1)]);
        leases.take(place(1), lease(20), &[QueueOffset(5)]);
        assert_eq!((leases.total(), leases.count(&place(0))), (3, 2));
        let mut out = Out::default();
        leases.snapshot(&mut out);
        let mut leases = Leases::default();
        leases.restore(&mut In::new(&out.0)).unwrap();
        let due = leases.due(Timestamp(20), 9);
        let due: Vec<_> = due.iter().map(|(place, offset, _)| (place.queue.0, offset.0)).collect();
        assert_eq!(due, [(0, 0), (1, 5)]);
        leases.end(&place(0), &[QueueOffset(0), QueueOffset(1), QueueOffset(77)]);
        assert_eq!((leases.total(), leases.count(&place(0))), (1, 0));
        leases.forget_topic(&place(0).topic);
        assert_eq!((leases.total(), leases.by_place.len()), (0, 0));
    }
}
