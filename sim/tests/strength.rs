//! A run in which little happens says little: the scripts must really do what they are for.

use sluice_broker::Verdict;
use sluice_model::Timestamp;
use sluice_sim::{
    oracle::{Oracle, Sort},
    run::play,
    script::{ASYNC, POPPER, RANKS, SINK, SYNC, everything, random},
    world::{Mistake, World},
};
use sluice_storage::fake::{FakeDisk, Fate};

#[test]
fn the_script_does_a_bit_of_everything() {
    let disk = FakeDisk::new();
    let (oracle, now, trace) = play(&disk, &everything(4), Mistake::None);
    let refused: Vec<&String> = trace.iter().filter(|line| !line.ends_with(": ok")).collect();
    assert!(refused.len() <= 8, "{refused:#?}");
    let count = |wanted: fn(&Sort) -> bool| oracle.said.iter().filter(|said| wanted(&said.sort)).count();
    assert!(count(|sort| *sort == Sort::Plain) >= 36);
    assert!(count(|sort| matches!(sort, Sort::Delayed { .. })) >= 4);
    assert!(count(|sort| matches!(sort, Sort::Half { decision: None })) >= 2);
    assert!(count(|sort| *sort == Sort::Half { decision: Some((Verdict::Commit, true)) }) >= 2);
    assert!(count(|sort| *sort == Sort::Half { decision: Some((Verdict::Rollback, true)) }) >= 2);
    assert!(oracle.backs.len() >= 6);
    for group in [POPPER, RANKS] {
        let popping = &oracle.popping[group];
        let acknowledged = popping.acknowledged.values().filter(|told| **told).count();
        assert!(popping.held.len() >= 4 && acknowledged >= 2, "{group}: {acknowledged} of {}", popping.held.len());
    }
    assert!(oracle.commits.values().filter(|commits| commits.least > 0).count() >= 3);
    let world = World::open(&disk.crash(Fate::Dropped, 0), oracle, now, Mistake::None);
    let world = world.expect("it comes up");
    assert!(world.opened.recovery.checkpoint.is_some());
    let messages = |name| world.contents(name).iter().map(Vec::len).collect::<Vec<_>>();
    assert!(messages(SYNC).iter().all(|count| *count >= 4), "{:?}", messages(SYNC));
    assert!(messages(SINK).iter().sum::<usize>() >= 6, "{:?}", messages(SINK));
    assert!(messages("%RETRY%popper_sync")[0] > 0, "what was not acknowledged came again");
    assert!(messages(ASYNC)[0] >= 4 && messages("%DLQ%keeper")[0] > 0 && messages("%RETRY%keeper")[0] > 0);
}

#[test]
fn random_scripts_are_mostly_answered_with_yes() {
    let (mut done, mut full, mut all, mut trimmed) = (0, 0, 0, 0);
    for seed in 0..60 {
        let disk = FakeDisk::new();
        let (oracle, now, trace): (Oracle, Timestamp, _) = play(&disk, &random(seed, 250), Mistake::None);
        done += trace.iter().filter(|line| line.ends_with(": ok")).count();
        full += trace.iter().filter(|line| line.ends_with(": Full")).count();
        all += trace.len();
        let left = disk.crash(Fate::Kept, 0);
        let world = World::open(&left, oracle, now, Mistake::None).expect("it comes up");
        trimmed += usize::from(world.start().0 > 0);
    }
    assert!(done * 10 >= all * 8, "{done} of {all} steps were done");
    assert!(full >= 60, "{full} steps met a full disk");
    assert!(trimmed >= 6, "retention took something in {trimmed} runs");
}
