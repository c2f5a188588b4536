//! Consumer offsets: how far each group has come in each queue.
//!
//! A commit is visible at once and recorded soon after, many in one record: a crash may set a group back by what was
//! not recorded, never forward.

use std::collections::{HashMap, HashSet};

use sluice_model::{GroupName, QueueId, QueueOffset, RecordView, TopicName};

use crate::{
    codec::{In, Out},
    error::Result,
};

/// One group's position in one queue.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Position {
    pub group: GroupName,
    pub topic: TopicName,
    pub queue: QueueId,
    /// Offset of the next message to consume.
    pub offset: QueueOffset,
}

type Place = (TopicName, QueueId);

/// View: the offsets of all groups, and which of them no record holds yet.
#[derive(Default)]
pub struct Offsets {
    by_group: HashMap<GroupName, HashMap<Place, QueueOffset>>,
    unrecorded: HashSet<(GroupName, Place)>,
}

impl Offsets {
    pub fn get(&self, group: &GroupName, topic: &TopicName, queue: QueueId) -> Option<QueueOffset> {
        self.by_group.get(group)?.get(&(topic.clone(), queue)).copied()
    }

    /// Every position of a group.
    pub fn of_group(&self, group: &GroupName) -> Vec<Position> {
        let positions = self.by_group.get(group).into_iter().flatten();
        positions
            .map(|((topic, queue), offset)| Position {
                group: group.clone(),
                topic: topic.clone(),
                queue: *queue,
                offset: *offset,
            })
            .collect()
    }

    /// Groups that have a position.
    pub fn groups(&self) -> impl Iterator<Item = &GroupName> {
        self.by_group.keys()
    }

    pub(crate) fn commit(&mut self, position: Position) {
        let place = (position.topic, position.queue);
        let was = self.by_group.entry(position.group.clone()).or_default().insert(place.clone(), position.offset);
        if was != Some(position.offset) {
            self.unrecorded.insert((position.group, place));
        }
    }

    /// Takes over a position that a record was just staged for: unlike one that comes with a record of the past, it is
    /// newer than every commit before it.
    pub(crate) fn recorded(&mut self, position: Position) {
        let place = (position.topic, position.queue);
        self.by_group.entry(position.group.clone()).or_default().insert(place.clone(), position.offset);
        self.unrecorded.remove(&(position.group, place));
    }

    /// Takes up to `max` positions that no record holds yet.
    pub(crate) fn take_unrecorded(&mut self, max: usize) -> Vec<Position> {
        let taken: Vec<_> = self.unrecorded.iter().take(max).cloned().collect();
        taken
            .into_iter()
            .filter_map(|entry| {
                self.unrecorded.remove(&entry);
                let (group, place) = entry;
                let offset = *self.by_group.get(&group)?.get(&place)?;
                Some(Position { group, topic: place.0, queue: place.1, offset })
            })
            .collect()
    }

    /// Undoes [`Self::take_unrecorded`]; a newer commit stays.
    pub(crate) fn put_back(&mut self, positions: Vec<Position>) {
        self.unrecorded.extend(positions.into_iter().map(|at| (at.group, (at.topic, at.queue))));
    }

    pub(crate) fn apply(&mut self, record: &RecordView<'_>) -> Result<()> {
        for position in decode(record.body())? {
            let place = (position.topic, position.queue);
            // A commit made since the record was written is newer than the record.
            if !self.unrecorded.contains(&(position.group.clone(), place.clone())) {
                self.by_group.entry(position.group).or_default().insert(place, position.offset);
            }
        }
        Ok(())
    }

    pub(crate) fn forget_topic(&mut self, topic: &TopicName) {
        for places in self.by_group.values_mut() {
            places.retain(|(at, _), _| at != topic);
        }
        self.unrecorded.retain(|(_, (at, _))| at != topic);
    }

    pub(crate) fn forget_group(&mut self, group: &GroupName) {
        self.by_group.remove(group);
        self.unrecorded.retain(|(of, _)| of != group);
    }

    pub(crate) fn snapshot(&self, out: &mut Out) {
        let all: Vec<Position> = self.by_group.keys().flat_map(|group| self.of_group(group)).collect();
        out.bytes(&encode(&all));
    }

    pub(crate) fn restore(&mut self, from: &mut In<'_>) -> Result<()> {
        for position in decode(from.bytes()?)? {
            let places = self.by_group.entry(position.group).or_default();
            places.insert((position.topic, position.queue), position.offset);
        }
        Ok(())
    }
}

/// The body of an offsets record.
pub(crate) fn encode(positions: &[Position]) -> Vec<u8> {
    let mut out = Out::default();
    for position in positions {
        out.text(position.group.as_str()).text(position.topic.as_str());
        out.u32(position.queue.0).u64(position.offset.0);
    }
    out.0
}

fn decode(body: &[u8]) -> Result<Vec<Position>> {
    let mut from = In::new(body);
    let mut positions = Vec::new();
    while !from.is_empty() {
        positions.push(Position {
            group: GroupName::parse(from.text()?)?,
            topic: TopicName::parse(from.text()?)?,
            queue: QueueId(from.u32()?),
            offset: QueueOffset(from.u64()?),
        });
    }
    Ok(positions)
}
