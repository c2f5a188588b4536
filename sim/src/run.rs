//! One run: a script until the disk dies, then everything that must come after.

use sluice_broker::Leased;
use sluice_model::Timestamp;
use sluice_storage::fake::{FakeDisk, Fate};

use crate::{
    check::{self, Checked, Phase, halves, positions, rebuild, things},
    ensure,
    oracle::{Commits, Oracle, Popping, Register, Sort},
    script::{self, POPPER, QUEUES, RANKS, Step},
    world::{Mistake, World},
};

/// Time for everything that is delayed, ms.
const LONG: i64 = 3 * 3_600_000;
/// Turns after which what should have come to rest has not.
const TURNS: usize = 1_000;

/// Plays a script on a disk until its end, or the disk's.
pub fn play(disk: &FakeDisk, steps: &[Step], mistake: Mistake) -> (Oracle, Timestamp, Vec<String>) {
    let now = Timestamp(1_000_000);
    match World::open(disk, Oracle::default(), now, mistake) {
        Err(_) => (Oracle::default(), now, Vec::new()),
        Ok(mut world) => {
            let outcome = world.play(steps);
            let last = outcome.err().map(|error| format!("{error}"));
            world.trace.extend(last);
            (world.oracle, world.now, world.trace)
        }
    }
}

/// How many calls to the disk a script makes.
pub fn calls(steps: &[Step]) -> u64 {
    let disk = FakeDisk::new();
    play(&disk, steps, Mistake::None);
    assert!(!disk.is_dead());
    disk.mutating_calls()
}

/// The process dies at a call; then safety, life, and safety again. Answers with the trace, which the arguments decide.
pub fn crash_run(steps: &[Step], call: u64, fate: Fate, mistake: Mistake) -> Result<Vec<String>, String> {
    let disk = FakeDisk::new();
    disk.crash_at(call);
    let (oracle, now, mut trace) = play(&disk, steps, mistake);
    let left = disk.crash(fate, call);
    trace.extend(after(&left, oracle, now, mistake).map_err(|what| format!("call {call}, {fate:?}: {what}"))?);
    Ok(trace)
}

/// Everything that must hold from a crash on.
pub fn after(left: &FakeDisk, oracle: Oracle, now: Timestamp, mistake: Mistake) -> Result<Vec<String>, String> {
    left.set_capacity(None);
    let mut world = recover(left, oracle, now, mistake, Phase::Recovered)?;
    rebuild::check(&world, left)?;
    let mut trace = rebuild::state(&world);
    settle(&mut world);
    let again = recover(&left.crash(Fate::Dropped, 0), world.oracle.clone(), now, mistake, Phase::Recovered)?;
    ensure!(rebuild::state(&again) == trace, "it comes up otherwise the second time");
    drop(again);

    world.play(&script::more()).map_err(|error| format!("it does not go on: {error}"))?;
    come_to_rest(&mut world)?;
    check::all(&world, Phase::Quiet).map_err(|what| format!("in the end: {what}"))?;
    trace.extend(world.trace.iter().cloned());
    let end = rebuild::state(&world);
    let (oracle, now, asked) = (world.oracle.clone(), world.now, std::mem::take(&mut world.asked));
    drop(world);
    let next = left.crash(Fate::Dropped, 0);
    let mut last = World::open(&next, oracle, now, mistake).map_err(|error| error.to_string())?;
    last.asked = asked;
    check::all(&last, Phase::Quiet).map_err(|what| format!("after the end: {what}"))?;
    ensure!(rebuild::state(&last) == end, "it comes up otherwise after the end");
    trace.extend(end);
    Ok(trace)
}

fn recover(disk: &FakeDisk, oracle: Oracle, now: Timestamp, mistake: Mistake, phase: Phase) -> Result<World, String> {
    let opened = World::open(disk, oracle, now, mistake);
    let mut world = opened.map_err(|error| format!("it does not come up: {error}"))?;
    world.oracle.lose_beyond(world.end());
    check::all(&world, phase).map_err(|what| format!("as it came up: {what}"))?;
    Ok(world)
}

/// What nobody was told is known now: it is there, or it is not and never will be.
fn settle(world: &mut World) {
    let mut oracle = std::mem::take(&mut world.oracle);
    for (thing, register) in &mut oracle.things {
        *register = Register::new(things::value(world, thing));
    }
    for (place, commits) in &mut oracle.commits {
        *commits = Commits { values: vec![positions::value(world, place)], least: 0 };
    }
    for said in oracle.said.iter_mut().filter(|said| !said.lost) {
        said.acknowledged = true;
        let waits = halves::waits(world, said);
        if let Sort::Half { decision } = &mut said.sort {
            *decision = decision.filter(|_| !waits).map(|(verdict, _)| (verdict, true));
        }
    }
    world.oracle = oracle;
}

/// Lets time pass until nothing happens by itself any more.
fn come_to_rest(world: &mut World) -> Checked {
    world.settle().map_err(|error| error.to_string())?;
    world.now = world.now.plus_ms(LONG);
    for _ in 0..TURNS {
        let before = world.end();
        let turn = turn(world);
        turn.map_err(|error| format!("it does not come to rest: {error} ({:?})", error.kind()))?;
        if world.end() == before {
            pop_all(world)?;
            let asked = world.play(&[Step::CheckHalves, Step::Settle]);
            return asked.map_err(|error| error.to_string());
        }
    }
    Err("it never comes to rest".to_owned())
}

/// Each group takes and acknowledges whatever it can still get.
fn pop_all(world: &mut World) -> Checked {
    for group in [POPPER, RANKS] {
        for _ in 0..TURNS {
            let popped = world.pop(group, 32).map_err(|error| error.to_string())?;
            let Popping { held, left, .. } = world.oracle.popping.entry(group.to_owned()).or_default();
            let leased: Vec<Leased> =
                held[held.len() - popped.len()..].iter().map(|(_, leased)| leased.clone()).collect();
            left.extend(&popped);
            let acknowledged = world.opened.broker.ack(&leased, world.now).map_err(|error| error.to_string())?;
            world.settle().map_err(|error| error.to_string())?;
            ensure!(acknowledged == popped.len(), "{group} holds {acknowledged} of {popped:?}");
            if popped.is_empty() {
                break;
            }
        }
    }
    Ok(())
}

fn turn(world: &mut World) -> sluice_broker::Result<()> {
    world.deliver()?;
    while world.opened.broker.revive(world.now)? {}
    let mut steps: Vec<Step> = (0..QUEUES).map(Step::Pipe).collect();
    steps.extend([Step::RecordOffsets, Step::Settle]);
    world.play(&steps)
}
