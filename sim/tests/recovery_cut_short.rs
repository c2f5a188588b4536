//! The process dies again while it recovers, at every call that changes the disk.

use sluice_sim::{
    run::{after, calls, play},
    script::everything,
    world::{Mistake, World},
};
use sluice_storage::fake::{FakeDisk, Fate};

#[test]
fn a_recovery_that_is_cut_short_loses_nothing() {
    let script = everything(3);
    let mut cuts = 0;
    for call in (1..calls(&script)).step_by(23) {
        let disk = FakeDisk::new();
        disk.crash_at(call);
        let (oracle, now, _) = play(&disk, &script, Mistake::None);
        let left = disk.crash(Fate::Torn, call);
        for again in 1.. {
            let second = left.crash(Fate::Kept, 0);
            second.crash_at(again);
            let came_up = World::open(&second, oracle.clone(), now, Mistake::None).is_ok();
            if came_up {
                break;
            }
            cuts += 1;
            let third = second.crash(Fate::Torn, again);
            let checked = after(&third, oracle.clone(), now, Mistake::None);
            checked.map(drop).unwrap_or_else(|what| panic!("call {call}, then {again}: {what}"));
        }
    }
    assert!(cuts >= 20, "only {cuts} recoveries were cut short");
}
