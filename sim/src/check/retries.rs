//! A message handed back comes again: once for each time, in the group's retry topic or among its dead letters.

use std::collections::BTreeMap;

use super::{Checked, Phase, is_whole};
use crate::{ensure, world::World};

pub fn check(world: &World, phase: Phase) -> Checked {
    let mut expected: BTreeMap<(&str, u64), (usize, usize)> = BTreeMap::new();
    for back in &world.oracle.backs {
        let (least, most) = expected.entry((&back.to, back.id)).or_default();
        *least += usize::from(back.acknowledged);
        *most += 1;
    }
    for topic in ["%RETRY%keeper", "%DLQ%keeper"] {
        let mut found: BTreeMap<u64, usize> = BTreeMap::new();
        for seen in world.contents(topic).into_iter().flatten() {
            *found.entry(seen.id).or_default() += 1;
        }
        for (id, count) in &found {
            let most = expected.get(&(topic, *id)).map_or(0, |(_, most)| *most);
            ensure!(*count <= most, "message {id} came back {count} times in {topic}, expected at most {most}");
        }
        if phase == Phase::Recovered || !is_whole(world) {
            continue;
        }
        for ((_, id), (least, _)) in expected.iter().filter(|((to, _), _)| *to == topic) {
            let count = found.get(id).copied().unwrap_or(0);
            ensure!(count >= *least, "message {id} came back {count} times in {topic}, expected at least {least}");
        }
    }
    Ok(())
}
