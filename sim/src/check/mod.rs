//! What must hold, one file for each.

pub mod delayed;
pub mod halves;
pub mod leases;
pub mod messages;
pub mod pipeline;
pub mod positions;
pub mod queues;
pub mod rebuild;
pub mod retries;
pub mod things;

use std::collections::BTreeMap;

use crate::{
    script::{ASYNC, FLEETING, SYNC},
    world::{Seen, World},
};

pub type Checked = Result<(), String>;

/// How far the world has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The broker has just come up.
    Recovered,
    /// Everything that was to happen by itself had its time.
    Quiet,
}

/// Fails with the text if the condition does not hold.
#[macro_export]
macro_rules! ensure {
    ($holds:expr, $($text:tt)+) => {
        if !$holds {
            return Err(format!($($text)+));
        }
    };
}

pub fn all(world: &World, phase: Phase) -> Checked {
    queues::check(world)?;
    messages::check(world)?;
    things::check(world)?;
    positions::check(world)?;
    halves::check(world, phase)?;
    delayed::check(world, phase)?;
    retries::check(world, phase)?;
    leases::check(world, phase)?;
    pipeline::check(world, phase)
}

/// Whether nothing was deleted from the front of the log yet: only then is everything that came out of it there.
fn is_whole(world: &World) -> bool {
    world.start().0 == 0
}

/// Everything in the topics that clients send to, by number.
fn by_id(world: &World) -> BTreeMap<u64, Vec<(&'static str, Seen)>> {
    let mut found: BTreeMap<u64, Vec<_>> = BTreeMap::new();
    for name in [SYNC, ASYNC, FLEETING] {
        for seen in world.contents(name).into_iter().flatten() {
            found.entry(seen.id).or_default().push((name, seen));
        }
    }
    found
}
