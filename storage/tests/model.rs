//! Random scripts with crashes in between, against a plain list of what was appended.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may stop where it fails")]

#[path = "kit/mod.rs"]
mod kit;

use kit::{
    World,
    driver::{Driver, History, Step, only_the_log, reopen},
    small,
};
use proptest::prelude::*;
use sluice_storage::{
    Config,
    fake::{FakeDisk, Fate},
};

#[derive(Clone, Debug)]
enum Action {
    Step(Step),
    Crash(Fate, u64),
    /// The process dies at this mutating call from now on.
    Doom(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let unit = prop::collection::vec((0u8..3, 0u8..3, 0u16..900), 1..4);
    prop_oneof![
        8 => unit.prop_map(Step::Append),
        4 => Just(Step::Sync),
        4 => Just(Step::Apply),
        1 => Just(Step::Draft),
        1 => Just(Step::Checkpoint),
        1 => Just(Step::Mark),
        1 => Just(Step::Ahead),
        1 => (4_000u64..40_000).prop_map(Step::Retain),
        1 => (0u8..3, 0u16..600).prop_map(|(topic, ms)| Step::Expire(topic, ms)),
        1 => (0u8..3).prop_map(Step::Delete),
    ]
}

fn action() -> impl Strategy<Value = Action> {
    let fate = prop_oneof![Just(Fate::Kept), Just(Fate::Dropped), Just(Fate::Torn)];
    prop_oneof![
        30 => step().prop_map(Action::Step),
        1 => (fate, any::<u64>()).prop_map(|(fate, seed)| Action::Crash(fate, seed)),
        1 => (1u64..40).prop_map(Action::Doom),
    ]
}

fn play(actions: &[Action], config: &Config) {
    let mut disk = FakeDisk::new();
    let mut driver = Driver::new(World::open(&disk, config.clone()).unwrap(), History::default());
    for (n, action) in actions.iter().enumerate() {
        let (fate, seed) = match action {
            Action::Step(step) => match driver.step(step) {
                Ok(()) => continue,
                Err(error) => {
                    assert!(disk.is_dead(), "{error}");
                    (Fate::Torn, n as u64)
                }
            },
            Action::Doom(call) => {
                disk.crash_at(*call);
                continue;
            }
            Action::Crash(fate, seed) => (*fate, *seed),
        };
        disk = disk.crash(fate, seed);
        let (world, survived) = reopen(&disk, config, &driver.history);
        driver = Driver::new(world, survived);
    }
    let disk = disk.crash(Fate::Kept, 0);
    let (world, survived) = reopen(&disk, config, &driver.history);
    if world.log.reader.start().0 == 0 {
        let (fresh, _) = reopen(&only_the_log(&disk), config, &survived);
        assert_eq!(fresh.views, world.views);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    #[test]
    fn the_log_agrees_with_a_list(actions in prop::collection::vec(action(), 1..150)) {
        play(&actions, &small());
    }

    #[test]
    fn so_it_does_with_larger_segments_and_few_open_files(actions in prop::collection::vec(action(), 1..150)) {
        play(&actions, &Config { segment_len: 30_000, allocate_step: 8192, open_files: 8, ..small() });
    }
}
