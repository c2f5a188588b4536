//! Scripts by lot, each with a crash by lot. `SLUICE_SIM_SEEDS` says how many (50), `SLUICE_SIM_SEED` which one alone.
#![allow(clippy::unwrap_used, reason = "a test may stop where it fails")]

use sluice_sim::{
    dice::Dice,
    run::{calls, crash_run},
    script::random,
    world::Mistake,
};
use sluice_storage::fake::Fate;

fn run(seed: u64) -> Result<Vec<String>, String> {
    let script = random(seed, 250);
    let mut dice = Dice(seed);
    let call = 1 + dice.throw(calls(&script) + 1);
    let fate = [Fate::Kept, Fate::Dropped, Fate::Torn][dice.throw(3) as usize];
    crash_run(&script, call, fate, Mistake::None)
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

#[test]
fn all_holds_for_every_seed() {
    let seeds = number("SLUICE_SIM_SEED").map_or(0..number("SLUICE_SIM_SEEDS").unwrap_or(50), |seed| seed..seed + 1);
    for seed in seeds {
        run(seed).unwrap_or_else(|what| panic!("seed {seed}: {what}"));
    }
}

#[test]
fn a_seed_says_it_all() {
    for seed in [1, 2, 3, 4, 5] {
        assert_eq!(run(seed), run(seed), "seed {seed}");
    }
}
