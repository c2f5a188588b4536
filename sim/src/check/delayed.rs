//! A delayed message comes once its time has come, never before, and does come.

use super::{Checked, Phase, by_id, is_whole};
use crate::{ensure, oracle::Sort, world::World};

pub fn check(world: &World, phase: Phase) -> Checked {
    let found = by_id(world);
    for said in &world.oracle.said {
        let Sort::Delayed { due } = said.sort else { continue };
        match found.get(&said.id).and_then(|places| places.first()) {
            Some((_, seen)) => {
                let early = seen.stored_at < due || world.now < due;
                ensure!(!early, "message {} is due at {due} and came at {}, {}", said.id, seen.stored_at, world.now);
            }
            None => {
                let may_miss = said.lost || phase == Phase::Recovered || !is_whole(world);
                ensure!(may_miss, "message {} was due at {due} and never came", said.id);
            }
        }
    }
    Ok(())
}
