//! What a pipeline wrote is what its function makes of the source up to its position: nothing twice, nothing left out.

use sluice_model::QueueId;

use super::{Checked, Phase, is_whole};
use crate::{
    ensure, pipeline,
    script::{SINK, SYNC},
    world::{Seen, World, topic_name},
};

pub fn check(world: &World, phase: Phase) -> Checked {
    let (source, sink) = (world.contents(SYNC), world.contents(SINK));
    for (queue, seen) in sink.iter().enumerate() {
        let bodies: Vec<&[u8]> = seen.iter().map(|seen| seen.body.as_slice()).collect();
        let mut once: Vec<&[u8]> = bodies.clone();
        once.sort_unstable();
        once.dedup();
        ensure!(once.len() == bodies.len(), "the sink has something twice in queue {queue}: {:?}", ids(seen));
        if !is_whole(world) {
            continue;
        }
        let at = world.opened.reader.offset(&pipeline::group(), &topic_name(SYNC), QueueId(queue as u32));
        let at = at.map_or(0, |offset| offset.0 as usize);
        let read = source.get(queue).and_then(|seen| seen.get(..at)).ok_or("the pipeline is ahead of its source")?;
        let expected: Vec<_> = read.iter().filter_map(|seen| pipeline::stage(seen.id, &seen.body)).collect();
        ensure!(bodies == expected, "queue {queue} of the sink up to {at}: {:?} of {:?}", ids(seen), ids(read));
        let rest = source[queue].len() - at;
        ensure!(phase == Phase::Recovered || rest == 0, "the pipeline left out {rest} messages of queue {queue}");
    }
    Ok(())
}

fn ids(seen: &[Seen]) -> Vec<u64> {
    seen.iter().map(|seen| seen.id).collect()
}
