//! Offsets of a queue are dense, and in the order of the log.

use sluice_model::QueueId;

use super::Checked;
use crate::{ensure, world::World};

pub fn check(world: &World) -> Checked {
    for topic in world.opened.reader.topics().1 {
        for (queue, seen) in world.contents(topic.name.as_str()).into_iter().enumerate() {
            let (min, end) = world.opened.reader.bounds(&topic.name, QueueId(queue as u32));
            let offsets: Vec<u64> = seen.iter().map(|seen| seen.offset).collect();
            let expected: Vec<u64> = (min.0..end.0).collect();
            ensure!(offsets == expected, "{}/{queue}: offsets {offsets:?}, expected {expected:?}", topic.name);
            ensure!(seen.is_sorted_by(|a, b| a.at < b.at), "{}/{queue} is not in the order of the log", topic.name);
        }
    }
    Ok(())
}
