//! Stages over fake ports, for what only a stage does: timers, and the search for the record that fails.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde_json::Map;
use sluice_runtime::state::Partition;
use sluice_runtime::{Begin, Given, Grants, Plan, Plugin, Policy, Record, Silent, Stage, StatePlan, Step, Then, Turn};

use crate::common::ports::Store;
use crate::common::records;

const STORM: usize = 256;

fn stage(plugin: Plugin) -> Stage {
    let partition = Partition::fresh().unwrap();
    let plan = Plan {
        pipeline: "p".into(),
        queue: 0,
        input_topic: "in".into(),
        sinks: vec!["out".into()],
        steps: vec![Step {
            name: "corpus".into(),
            plugin,
            config: Map::new(),
            prefilter: None,
            grants: Grants::default(),
        }],
        policy: Policy { retries: 0, backoff: Duration::from_millis(1), then: Then::DeadLetter },
        limits: crate::limits(),
        batch_records: STORM,
        batch_bytes: 1 << 20,
        observer: Arc::new(Silent),
        state: Some(StatePlan { partition: Arc::new(Mutex::new(Some(Box::new(partition)))), lateness: 0 }),
    };
    Stage::open(plan, &mut Begin(0)).unwrap()
}

/// Code and reason of the first dead letter, once there is nothing more to do.
fn run(mut stage: Stage, records: Vec<Record>, most_traps: u64) -> (String, String, Store) {
    let (mut store, mut traps) = (Store::default(), 0);
    let mut queue = Given { records: &records, next: records.len() as u64 };
    loop {
        let turn = stage.turn(&mut queue, &mut store, 1_000_000);
        let now = stage.counters().traps;
        assert!(now - traps <= most_traps, "{} traps in one turn", now - traps);
        traps = now;
        match turn {
            Turn::Idle => break,
            Turn::Progressed { .. } => {}
            other => return ("stopped".into(), format!("{other:?}"), store),
        }
    }
    let letter = store.units.iter().flat_map(|unit| &unit.dead_letters).next();
    let (code, reason) = letter.map_or(("fine".into(), String::new()), |dead| (dead.code.clone(), dead.reason.clone()));
    (code, reason, store)
}

/// One record, for which a processor sets a timer that is due at once.
pub fn timers(plugin: Plugin) -> (String, String) {
    let (code, reason, _) = run(stage(plugin), records(&["one"]), 4);
    (code, reason)
}

/// Every record ends an instance. Each turn finds a few of them, with as many calls as halving takes.
pub fn storm(plugin: Plugin) -> (String, String) {
    let values = vec!["x"; STORM];
    let began = Instant::now();
    let (code, reason, store) = run(stage(plugin), records(&values), 24);
    let dead: usize = store.units.iter().map(|unit| unit.dead_letters.len()).sum();
    assert_eq!(dead, STORM);
    println!("a storm of {STORM} records: {:?} for each", began.elapsed() / u32::try_from(STORM).unwrap());
    (code, reason)
}
