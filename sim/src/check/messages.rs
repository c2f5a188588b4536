//! Every acknowledged message is there, once, at its place, with its bytes; the log survives up to one point, and nothing
//! is there that nobody sent.

use std::collections::BTreeMap;

use super::{Checked, by_id};
use crate::{
    ensure,
    oracle::{Said, Sort},
    world::World,
};

pub fn check(world: &World) -> Checked {
    let known: BTreeMap<u64, &Said> = world.oracle.said.iter().map(|said| (said.id, said)).collect();
    let found = by_id(world);
    for (id, places) in &found {
        ensure!(!world.oracle.refused.contains(id), "message {id} was refused and is there");
        ensure!(places.len() == 1, "message {id} is there {} times: {places:?}", places.len());
        let said = known.get(id).ok_or_else(|| format!("message {id} was never sent"))?;
        let (topic, seen) = &places[0];
        ensure!(!said.lost, "message {id} was lost and is there again");
        ensure!(said.topic == *topic, "message {id} is in topic {topic}, not {}", said.topic);
        ensure!(world.life(topic) == Some(said.life), "message {id} is of a topic that was deleted");
        ensure!(said.body == seen.body, "message {id} has another body");
    }
    for said in &world.oracle.said {
        ensure!(!(said.lost && said.acknowledged), "message {} was acknowledged and is gone: {said:?}", said.id);
        let is_here = said.sort == Sort::Plain && !said.lost && world.life(&said.topic) == Some(said.life);
        if !is_here || said.at < world.start() {
            continue;
        }
        let Some((_, seen)) = found.get(&said.id).and_then(|places| places.first()) else {
            if said.at >= world.end() {
                continue;
            }
            return Err(format!("message {} is not there: {said:?}", said.id));
        };
        let place = (said.offset, said.at) == (seen.offset, seen.at);
        let queue = world.contents(&said.topic)[said.queue as usize].iter().any(|seen| seen.id == said.id);
        ensure!(place && queue, "message {} is at {seen:?}, not at its place {said:?}", said.id);
    }
    Ok(())
}
