//! The checks find what is wrong: each of these mistakes must be noticed at some crash.

use sluice_sim::{
    run::{calls, crash_run},
    script::everything,
    world::Mistake,
};
use sluice_storage::fake::Fate;

/// What the checks say first.
fn found(mistake: Mistake, fate: Fate) -> String {
    let script = everything(4);
    let mut runs = (1..=calls(&script)).filter_map(|call| crash_run(&script, call, fate, mistake).err());
    runs.next().unwrap_or_default()
}

#[test]
fn an_acknowledgement_before_the_disk_has_it_is_noticed() {
    let found = found(Mistake::AcknowledgesTooEarly, Fate::Dropped);
    assert!(found.contains("was acknowledged and is gone") || found.contains("expected one of"), "{found}");
}

#[test]
fn a_pipeline_with_its_position_apart_is_noticed() {
    let found = found(Mistake::PositionApart, Fate::Torn);
    assert!(found.contains("sink"), "{found}");
}

#[test]
fn a_rollback_that_commits_is_noticed() {
    let found = found(Mistake::CommitsRollbacks, Fate::Kept);
    assert!(found.contains("half message"), "{found}");
}

#[test]
fn a_delayed_message_before_its_time_is_noticed() {
    let found = found(Mistake::FastClock, Fate::Kept);
    assert!(found.contains("is due at"), "{found}");
}

#[test]
fn an_offset_taken_for_recorded_is_noticed() {
    let found = found(Mistake::RecordsTooEarly, Fate::Dropped);
    assert!(found.contains("the offset of"), "{found}");
}

#[test]
fn an_acknowledgement_that_is_not_recorded_is_noticed() {
    let found = found(Mistake::ForgetsAcknowledgements, Fate::Kept);
    assert!(found.contains("after it was told they are acknowledged"), "{found}");
}

#[test]
fn a_popped_message_that_nobody_acknowledged_is_missed() {
    let found = found(Mistake::AcknowledgesPops, Fate::Kept);
    assert!(found.contains("holds 0 of") || found.contains("is lost to"), "{found}");
}
