//! A half message is unseen until it is committed, is committed once, is never seen when rolled back, and is asked about
//! while nobody decided.

use sluice_broker::Verdict;
use sluice_model::QueueOffset;

use super::{Checked, Phase, by_id, is_whole};
use crate::{
    ensure,
    oracle::{Said, Sort},
    world::World,
};

pub fn check(world: &World, phase: Phase) -> Checked {
    let found = by_id(world);
    for said in &world.oracle.said {
        let Sort::Half { decision } = said.sort else { continue };
        let (waits, seen, id) = (waits(world, said), found.contains_key(&said.id), said.id);
        let gone = seen || !is_whole(world);
        let right = match decision {
            _ if said.lost => !seen,
            None => waits && !seen,
            Some((Verdict::Commit, true)) => !waits && gone,
            Some((Verdict::Commit, false)) => !(waits && seen) && (waits || gone),
            Some((Verdict::Rollback, acknowledged)) => !(seen || acknowledged && waits),
        };
        ensure!(right, "half message {id}, decided {decision:?}: waits {waits}, is seen {seen}");
        if phase == Phase::Quiet && waits {
            let asked = world.asked.iter().any(|check| check.half.at == said.at);
            ensure!(asked, "nobody was asked about half message {id}");
        }
    }
    let known = |at| world.oracle.said.iter().any(|said| said.at == at && !said.lost);
    let stranger = world.opened.reader.halves(QueueOffset(0), usize::MAX).into_iter().find(|half| !known(half.at));
    ensure!(stranger.is_none(), "{stranger:?} was never sent");
    Ok(())
}

/// Whether it is undecided.
pub fn waits(world: &World, said: &Said) -> bool {
    let here = |half: &sluice_broker::Half| half.queue_offset.0 == said.offset && half.at == said.at;
    !said.lost && world.opened.reader.halves(QueueOffset(0), usize::MAX).iter().any(here)
}
