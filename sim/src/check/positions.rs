//! A consumer's offset is one that it committed, none older than what was recorded, and not behind the end of its queue.

use sluice_model::{GroupName, QueueId};

use super::Checked;
use crate::{
    ensure,
    oracle::Place,
    world::{World, topic_name},
};

pub fn check(world: &World) -> Checked {
    for (place, commits) in &world.oracle.commits {
        let (is, may_be) = (value(world, place), &commits.values[commits.least..]);
        ensure!(may_be.contains(&is), "the offset of {place:?} is {is:?}, expected one of {may_be:?}");
    }
    for group in world.opened.reader.groups_with_offsets() {
        for position in world.opened.reader.offsets_of(&group) {
            let end = world.opened.reader.bounds(&position.topic, position.queue).1;
            ensure!(position.offset <= end, "{position:?} is behind the end {end}");
        }
    }
    Ok(())
}

pub fn value(world: &World, (group, topic, queue): &Place) -> Option<u64> {
    let group = GroupName::parse(group).expect("a valid name");
    world.opened.reader.offset(&group, &topic_name(topic), QueueId(*queue)).map(|offset| offset.0)
}
