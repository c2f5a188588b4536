//! A popped message that was acknowledged never comes again, and one that was not can always be popped.

use std::collections::BTreeSet;

use super::{Checked, Phase, is_whole};
use crate::{
    ensure,
    oracle::{Popping, Sort},
    script::SYNC,
    world::World,
};

pub fn check(world: &World, phase: Phase) -> Checked {
    for (group, popping) in &world.oracle.popping {
        let Popping { acknowledged, again, left, .. } = popping;
        ensure!(again.is_empty(), "messages {again:?} came to {group} again after it was told they are acknowledged");
        if phase == Phase::Recovered || !is_whole(world) {
            continue;
        }
        let dead: BTreeSet<u64> =
            world.contents(&format!("%DLQ%{group}")).into_iter().flatten().map(|seen| seen.id).collect();
        for said in &world.oracle.said {
            let is_there = said.acknowledged && !said.lost && said.topic == SYNC && said.sort == Sort::Plain;
            let known = acknowledged.contains_key(&said.id) || left.contains(&said.id) || dead.contains(&said.id);
            ensure!(
                !is_there || known,
                "message {} is lost to {group}: neither acknowledged nor to be popped",
                said.id
            );
        }
    }
    Ok(())
}
