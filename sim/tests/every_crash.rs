//! The process dies at every call that changes the disk; what was not synced is kept, dropped or torn.
#![allow(clippy::unwrap_used, reason = "a test may stop where it fails")]

use sluice_sim::{
    run::{calls, crash_run},
    script::everything,
    world::Mistake,
};
use sluice_storage::fake::Fate;

fn crash_everywhere(fate: Fate) {
    let script = everything(4);
    let calls = calls(&script);
    assert!((100..400).contains(&calls), "the script makes {calls} calls to the disk");
    for call in 1..=calls + 1 {
        crash_run(&script, call, fate, Mistake::None).unwrap_or_else(|what| panic!("{what}"));
    }
}

#[test]
fn all_holds_when_everything_is_kept() {
    crash_everywhere(Fate::Kept);
}

#[test]
fn all_holds_when_everything_else_is_gone() {
    crash_everywhere(Fate::Dropped);
}

#[test]
fn all_holds_when_everything_else_is_torn() {
    crash_everywhere(Fate::Torn);
}
