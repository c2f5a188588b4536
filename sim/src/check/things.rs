//! Topics, groups and documents are there as acknowledged, or as asked for since.

use sluice_model::{GroupName, TopicName};

use super::Checked;
use crate::{ensure, oracle::Thing, world::World};

pub fn check(world: &World) -> Checked {
    for (thing, register) in &world.oracle.things {
        let (is, may_be) = (value(world, thing), &register.values[register.least..]);
        ensure!(may_be.contains(&is), "{thing:?} is {is:?}, expected one of {may_be:?}");
    }
    for (name, _) in world.opened.reader.documents("kind") {
        ensure!(world.oracle.things.contains_key(&Thing::Document(name.clone())), "document {name} was never stored");
    }
    Ok(())
}

pub fn value(world: &World, thing: &Thing) -> Option<String> {
    let reader = &world.opened.reader;
    match thing {
        Thing::Topic(name) => world.life(name).map(|life| life.to_string()),
        Thing::Group(name) => {
            let group = GroupName::parse(name).expect("a valid name");
            let has_retries = reader.topic(&TopicName::retry_of(&group)).is_ok();
            let known = reader.knows_group(&group);
            assert!(has_retries || !known, "group {name} has no retry topic");
            known.then(|| reader.group(&group).retries.to_string())
        }
        Thing::Document(name) => {
            let (_, body) = reader.document("kind", name).expect("a document can be read")?;
            Some(String::from_utf8_lossy(&body).into_owned())
        }
    }
}
