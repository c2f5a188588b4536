//! Processors over fake ports: what they keep, their timers, and what a crash leaves of them.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use serde_json::Map;
use sluice_guest_build::Guests;
use sluice_runtime::ports::{Changelog, PortError, Progress, Room, Sink, Source, Unit};
use sluice_runtime::state::{Engine, Partition, Shared};
use sluice_runtime::{
    Config, Grants, Limits, Plan, Plugin, Policy, Record, Runtime, Silent, Stage, StatePlan, Step, Then, Turn,
};

static PLUGIN: LazyLock<Plugin> = LazyLock::new(|| {
    let runtime = Runtime::new(Config { instances: 64, ..Config::default() }).unwrap();
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/keeper");
    let component = Guests::at(dir).build().unwrap_or_else(|e| panic!("{e}")).remove(0).component;
    runtime.load("keeper", &component).unwrap().0
});

/// A log that holds a source queue and everything that was committed.
#[derive(Default)]
struct Log {
    source: Vec<Record>,
    units: Vec<Unit>,
    /// The next commit is refused.
    busy: bool,
    /// The first change that retention left.
    cut: u64,
    /// How many changes are on its disk, where not all are at once.
    durable: Option<u64>,
    /// Most bytes of a change, where it matters.
    most: Option<usize>,
}

impl Log {
    fn changes(&self) -> Vec<Bytes> {
        self.units.iter().filter_map(|unit| unit.state.clone()).collect()
    }

    fn said(&self) -> Vec<String> {
        let all = self.units.iter().flat_map(|unit| &unit.outputs);
        all.map(|out| String::from_utf8_lossy(&out.record.value).into_owned()).collect()
    }

    fn dead(&self) -> Vec<(u64, String)> {
        let all = self.units.iter().flat_map(|unit| &unit.dead_letters);
        all.map(|dead| (dead.record.offset, dead.code.clone())).collect()
    }
}

struct Port(Arc<Mutex<Log>>);

impl Source for Port {
    fn read(&mut self, at: u64, most: usize, _: usize, into: &mut Vec<Record>) -> Result<u64, PortError> {
        into.extend(self.0.lock().source.iter().filter(|r| r.offset >= at).take(most).cloned());
        Ok(into.last().map_or(at, |r| r.offset + 1))
    }
}

impl Sink for Port {
    fn commit(&mut self, unit: Unit) -> Result<(), PortError> {
        let mut log = self.0.lock();
        if std::mem::take(&mut log.busy) {
            return Err(PortError::Busy("full".into()));
        }
        log.units.push(unit);
        Ok(())
    }

    fn room(&self) -> Room {
        Room { state: self.0.lock().most.unwrap_or(usize::MAX), ..Room::default() }
    }

    fn durable_changes(&self) -> u64 {
        let log = self.0.lock();
        log.durable.unwrap_or(log.changes().len() as u64)
    }

    fn settle(&mut self) -> Result<(), PortError> {
        let mut log = self.0.lock();
        log.durable = log.durable.map(|_| log.changes().len() as u64);
        Ok(())
    }
}

impl Progress for Port {
    fn load(&mut self) -> Result<u64, PortError> {
        Ok(self.0.lock().units.last().map_or(0, |unit| unit.position))
    }
}

impl Changelog for Port {
    fn bounds(&self) -> Result<(u64, u64), PortError> {
        let log = self.0.lock();
        let end = log.changes().len() as u64;
        Ok((log.cut, end))
    }

    fn read(&mut self, from: u64) -> Result<Vec<Bytes>, PortError> {
        Ok(self.0.lock().changes().into_iter().skip(usize::try_from(from).unwrap()).take(3).collect())
    }
}

/// A stage over a log and a file of its state.
struct World {
    log: Arc<Mutex<Log>>,
    dir: tempfile::TempDir,
    stage: Option<(Stage, Shared)>,
    /// How many processors follow each other.
    steps: usize,
    batch: usize,
    lateness: u64,
    retries: u32,
    now: u64,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self { log: Arc::default(), dir, stage: None, steps: 1, batch: 256, lateness: 0, retries: 0, now: 0 }
    }

    /// Puts a record into the source.
    fn put(&mut self, key: &str, born_at: u64, value: &str) -> &mut Self {
        let mut log = self.log.lock();
        let offset = log.source.len() as u64;
        log.source.push(Record {
            offset,
            key: Some(key.as_bytes().to_vec().into()),
            value: value.as_bytes().to_vec().into(),
            born_at,
            stored_at: 1_000 + offset,
            ..Record::default()
        });
        drop(log);
        self
    }

    fn open(&mut self) -> &mut (Stage, Shared) {
        if self.stage.is_none() {
            let engine = Arc::new(Engine::open(&self.dir.path().join("state")).unwrap());
            let mut port = Port(self.log.clone());
            let partition = Partition::open(engine, 3, 1 << 20, &mut port).unwrap();
            let partition: Shared = Arc::new(Mutex::new(Some(Box::new(partition))));
            let plan = Plan {
                pipeline: "p".into(),
                queue: 3,
                input_topic: "in".into(),
                sinks: vec!["out".into()],
                steps: vec![
                    Step {
                        name: "keeper".into(),
                        plugin: PLUGIN.clone(),
                        config: Map::new(),
                        prefilter: None,
                        grants: Grants::default(),
                    };
                    self.steps
                ],
                policy: Policy { retries: self.retries, backoff: Duration::from_millis(1), then: Then::DeadLetter },
                limits: Limits { deadline: Duration::from_millis(200), ..Limits::default() },
                batch_records: self.batch,
                batch_bytes: 1 << 20,
                observer: Arc::new(Silent),
                state: Some(StatePlan { partition: partition.clone(), lateness: self.lateness }),
            };
            self.stage = Some((Stage::open(plan, &mut port).unwrap(), partition));
        }
        self.stage.as_mut().unwrap()
    }

    fn turn(&mut self) -> Turn {
        let (mut port, now) = (Port(self.log.clone()), self.now);
        let mut sink = Port(self.log.clone());
        self.open().0.turn(&mut port, &mut sink, now)
    }

    /// Turns until there is nothing to do.
    fn run(&mut self) -> Vec<String> {
        for _ in 0..1_000 {
            match self.turn() {
                Turn::Idle => return self.log.lock().said(),
                Turn::Stopped(reason) => panic!("{reason}"),
                _ => {}
            }
        }
        panic!("the stage does not come to rest");
    }

    /// The process dies: what is not in the log or the file is gone.
    fn die(&mut self) {
        self.stage = None;
    }

    /// The stage stops as it should.
    fn close(&mut self) {
        self.stage.take().unwrap().0.close(&mut Port(self.log.clone()));
    }

    fn look(&mut self, store: &str, key: &str) -> Option<Vec<u8>> {
        self.open().1.lock().as_mut().unwrap().look(store, key.as_bytes(), 0).unwrap()
    }
}

#[test]
fn counts_go_on_after_a_crash_with_the_file_and_without_it() {
    let mut world = World::new();
    for round in 0..6_u64 {
        for key in ["a", "b", "a"] {
            world.put(key, round, "count");
        }
        world.run();
        match round {
            0 | 1 => {}
            2 => world.close(),
            3 => world.die(),
            _ => {
                world.die();
                std::fs::remove_file(world.dir.path().join("state")).unwrap();
            }
        }
    }
    let said = world.run();
    let of = |key: &str| said.iter().filter(|line| line.starts_with(key)).cloned().collect::<Vec<_>>();
    let expected = |key: &str, n: usize| (1..=n).map(|i| format!("{key} {i}")).collect::<Vec<_>>();
    assert_eq!((of("a"), of("b")), (expected("a", 12), expected("b", 6)));
    assert_eq!(world.look("totals", "a"), Some(12_i64.to_le_bytes().to_vec()));
    assert_eq!(world.look("sluice-test-keeper/totals", "b"), Some(6_i64.to_le_bytes().to_vec()));
    assert_eq!(world.look("totals", "c"), None);
}

#[test]
fn a_stage_that_rests_writes_its_state_down() {
    let mut world = World::new();
    world.put("a", 0, "count").put("a", 0, "count");
    world.run();
    std::thread::sleep(Duration::from_millis(2_100));
    assert_eq!(world.turn(), Turn::Idle);
    world.die();
    // The log no longer holds the changes, as after a long time; the file has what they did.
    world.log.lock().cut = 1;
    assert_eq!(world.look("totals", "a"), Some(2_i64.to_le_bytes().to_vec()));
}

#[test]
fn a_stage_that_never_rests_writes_its_state_down_as_well() {
    const KEYS: u64 = 20_000;
    let mut world = World::new();
    // The log's disk is behind, as it is while there is more to do.
    world.log.lock().durable = Some(0);
    for i in 0..KEYS {
        world.put(&format!("a key of some forty bytes, number {i:05}"), i, "count");
    }
    while world.log.lock().units.last().is_none_or(|unit| unit.position < KEYS - 256) {
        assert!(matches!(world.turn(), Turn::Progressed { .. }));
    }
    world.die();
    {
        let mut log = world.log.lock();
        let changes = log.changes().len() as u64;
        assert!(log.durable.is_some_and(|durable| durable > changes - 30), "what is in memory has a bound");
        log.cut = changes - 30;
    }
    assert_eq!(world.look("totals", "a key of some forty bytes, number 00007"), Some(1_i64.to_le_bytes().to_vec()));
}

#[test]
fn what_a_turn_keeps_in_all_of_its_steps_has_a_bound_and_a_record_that_is_too_much_for_it_falls() {
    const MOST: usize = 1 << 20;
    let mut world = World::new();
    world.steps = 2;
    world.log.lock().most = Some(MOST);
    for i in 0..10 {
        world.put(&format!("k{i}"), 0, "keep 100");
    }
    world.put("large", 0, "keep 700").put("last", 0, "keep 1");
    world.run();
    let log = world.log.lock();
    assert!(log.changes().iter().all(|change| change.len() < MOST), "{:?}", log.changes().len());
    assert_eq!(log.dead(), [(10, "too-much-output".to_owned())]);
    assert_eq!(log.said().len(), 11);
    drop(log);
    for store in ["sluice-test-keeper/totals", "sluice-test-keeper-2/totals"] {
        assert_eq!(world.look(store, "k9").map(|value| value.len()), Some(100 << 10));
        assert_eq!(world.look(store, "last").map(|value| value.len()), Some(1 << 10));
        assert_eq!(world.look(store, "large"), None);
    }
}

#[test]
fn what_fails_leaves_no_trace_and_what_stands_around_it_stays() {
    let mut world = World::new();
    world.put("a", 0, "count").put("a", 0, "add-then fail").put("a", 0, "count");
    world.put("a", 0, "add-then trap").put("a", 0, "count").put("a", 0, "hoard").put("a", 0, "count");
    assert_eq!(world.run(), ["a 1", "a 2", "a 3", "a 4"]);
    let dead = world.log.lock().dead();
    assert_eq!(dead, [(1, "told".to_owned()), (3, "trap".to_owned()), (5, "too-much-output".to_owned())]);
}

#[test]
fn additions_that_wait_are_seen_by_who_looks_and_go_with_the_record_that_fails() {
    let mut world = World::new();
    let all = [("a", "increase"), ("a", "increase 5"), ("b", "increase 7"), ("a", "count"), ("a", "increase-then")];
    for (key, value) in all {
        world.put(key, 0, value);
    }
    for fails in ["fail", "trap"] {
        world.put("b", 0, "increase").put("b", 0, &format!("increase-then {fails}")).put("b", 0, "increase 20");
    }
    assert_eq!(world.run(), ["a 7", "107"]);
    assert_eq!(world.look("totals", "a"), Some(107_i64.to_le_bytes().to_vec()));
    assert_eq!(world.look("totals", "b"), Some(49_i64.to_le_bytes().to_vec()));
    assert_eq!(world.log.lock().dead().len(), 2);
}

#[test]
fn a_commit_that_is_refused_is_made_again_without_counting_twice() {
    let mut world = World::new();
    world.put("a", 0, "count").put("a", 0, "count");
    world.log.lock().busy = true;
    assert!(matches!(world.turn(), Turn::Wait(_)));
    assert_eq!(world.look("totals", "a"), None, "what is not committed is seen");
    assert_eq!(world.run(), ["a 1", "a 2"]);
}

#[test]
fn windows_close_when_the_watermark_has_passed_them_wherever_batches_are_cut() {
    let mut expected = None;
    for batch in [1, 2, 3, 7, 256] {
        let mut world = World::new();
        (world.batch, world.lateness) = (batch, 3);
        for (key, born) in
            [("a", 1), ("b", 2), ("a", 9), ("a", 12), ("b", 8), ("a", 14), ("b", 4), ("a", 31), ("c", 60)]
        {
            world.put(key, born, "ten").put(key, born, "hop");
        }
        let said = world.run();
        let expected = expected.get_or_insert_with(|| said.clone());
        assert_eq!(&said, expected, "batches of {batch}");
    }
    let expected = expected.unwrap();
    let tens: Vec<&str> = expected.iter().map(String::as_str).filter(|line| line.contains("0..10 ")).collect();
    // The 8 is on time, 3 later than it should be; the 4 is late.
    assert_eq!(tens, ["a 0..10 2", "a 0..10 2", "b 0..10 2", "b 0..10 2"]);
    for line in ["a 10..20 2", "a 30..40 1", "a 5..15 3", "b 5..15 1", "a 25..35 1"] {
        assert!(expected.iter().any(|said| said == line), "{line} is not in {expected:?}");
    }
}

#[test]
fn a_crowd_of_windows_that_end_at_once_has_turns_of_its_own() {
    const KEYS: usize = 2_000;
    let mut expected = None;
    for batch in [50, 256] {
        let mut world = World::new();
        world.batch = batch;
        for key in 0..KEYS {
            world.put(&format!("{key:04}"), 1, "ten");
        }
        // Those in the middle bring the crowd, the others are to be in time for their own windows.
        world.put("x", 9, "ten").put("y", 12, "ten").put("y", 13, "ten").put("z", 30, "ten").put("y", 14, "ten");
        let said = world.run();
        assert_eq!(said.len(), KEYS + 2, "in batches of {batch}");
        // By the time, then by the length of the key, then by the key.
        assert_eq!(
            (&*said[0], &said[KEYS..]),
            ("x 0..10 1", &["1999 0..10 1".to_owned(), "y 10..20 2".to_owned()][..])
        );
        assert_eq!(&said, expected.get_or_insert_with(|| said.clone()), "batches of {batch}");
        let log = world.log.lock();
        let at_once = log.units.iter().map(|unit| unit.outputs.len()).max();
        assert!(at_once <= Some(256), "{at_once:?} at once");
        assert!(log.units.iter().all(|unit| unit.dead_letters.is_empty()));
        drop(log);
        assert_eq!(world.open().0.counters().traps, 0, "in batches of {batch}");
    }
}

#[test]
fn a_record_that_fails_moves_no_watermark_and_a_turn_in_pieces_is_as_good_as_a_whole_one() {
    let mut expected = None;
    for (batch, crashes) in [1, 2, 3, 4, 256].into_iter().flat_map(|batch| [(batch, false), (batch, true)]) {
        let mut world = World::new();
        world.batch = batch;
        world.put("a", 3, "ten").put("a", 100, "ten").put("a", 300, "add-then fail").put("b", 5, "ten");
        // What changes nothing else moves the watermark all the same.
        world.put("a", 200, "nothing").put("b", 150, "ten").put("a", 900, "add-then trap").put("a", 210, "ten");
        world.put("b", 205, "ten").put("z", 400, "ten");
        while world.turn() != Turn::Idle {
            if crashes {
                world.die();
                std::fs::remove_file(world.dir.path().join("state")).unwrap();
            }
        }
        let said = world.log.lock().said();
        let expected = expected.get_or_insert_with(|| said.clone());
        assert_eq!(&said, expected, "batches of {batch}, crashes: {crashes}");
    }
    assert_eq!(expected.unwrap(), ["a 0..10 1", "a 100..110 1", "a 210..220 1"]);
}

#[test]
fn one_record_from_the_far_future_ends_no_other_window() {
    const START: u64 = 1_000_000;
    let mut world = World::new();
    // Times of the producer and of the broker, behind the start.
    for (key, born, stored) in
        [("a", 1, 1), ("mad", u64::MAX - START, 2), ("a", 70_001, 70_001), ("a", 70_002, 70_003), ("z", 90_000, 90_000)]
    {
        world.put(key, START + born, "ten");
        world.log.lock().source.last_mut().unwrap().stored_at = START + stored;
    }
    assert_eq!(world.run(), ["a 1000000..1000010 1", "mad 1060000..1060010 1", "a 1070000..1070010 2"]);
}

#[test]
fn each_of_two_processors_has_seen_what_came_to_it() {
    let mut expected = None;
    for batch in [1, 2, 3, 256] {
        let mut world = World::new();
        (world.batch, world.steps, world.lateness) = (batch, 2, 10);
        for (born, value) in [
            (1, "relay ten"),
            (12, "relay ten"),
            (8, "relay ten"),
            (90, "nothing"),
            (15, "relay ten"),
            (40, "relay ten"),
        ] {
            world.put("a", born, value);
        }
        let said = world.run();
        assert_eq!(&said, expected.get_or_insert_with(|| said.clone()), "batches of {batch}");
    }
    assert_eq!(expected.unwrap(), ["a 0..10 2", "a 10..20 2"]);
}

#[test]
fn sessions_end_after_a_gap_and_a_record_may_join_two() {
    let mut world = World::new();
    world.lateness = 20;
    for (key, born) in [("a", 100), ("a", 105), ("a", 122), ("b", 100), ("a", 113), ("a", 200), ("z", 400)] {
        world.put(key, born, "visit");
    }
    assert_eq!(world.run(), ["b 100..100 1", "a 100..122 4", "a 200..200 1"]);
}

#[test]
fn joins_find_what_is_near_on_the_other_side() {
    let mut world = World::new();
    world.put("k", 100, "left l1").put("k", 105, "right r1").put("k", 120, "right r2").put("k", 112, "left l2");
    world.put("kk", 112, "right r3");
    assert_eq!(world.run(), ["r1 with l1", "l2 with r1", "l2 with r2"]);
}

#[test]
fn a_key_is_seen_once_until_it_is_forgotten() {
    let mut world = World::new();
    world.batch = 7;
    for _ in 0..60 {
        world.put("x", 0, "once");
    }
    // Records are stored 1 ms apart, and remembered for 50.
    world.run();
    let passed: Vec<u64> = world.log.lock().units.iter().flat_map(|u| &u.outputs).map(|o| o.record.offset).collect();
    assert_eq!(passed, [0, 50]);
}

#[test]
fn what_is_forgotten_does_not_become_more_than_what_is_remembered() {
    let mut world = World::new();
    world.batch = 512;
    // A new key with every record, each remembered for 50 of them.
    for at in 0..4_096 {
        world.put(&format!("k{at}"), 0, "once");
    }
    world.run();
    let mut place = world.open().1.lock();
    let partition = place.as_mut().unwrap();
    let (mut left, mut after) = (0, None);
    loop {
        let page = partition.look_through("seen", b"", after.as_deref(), (1_000, usize::MAX), 0).unwrap();
        let Some((last, _)) = page.entries.last() else { break };
        (left, after) = (left + page.entries.len(), Some(last.clone()));
    }
    assert!(left < 1_024, "{left} entries are left");
}

#[test]
fn what_has_expired_is_deleted_while_nothing_comes() {
    let mut world = World::new();
    for at in 0..1_000 {
        world.put(&format!("k{at}"), 0, "once");
    }
    // The last was stored at 1999, and is remembered for 50 ms, or a minute more while nothing comes.
    world.now = 62_048;
    world.run();
    assert!(world.look("seen", "k0").is_none() && world.look("seen", "k999").is_some());
    world.now = 62_049;
    world.run();
    assert!(world.look("seen", "k999").is_none());
    world.close();
    world.run();
    assert!(world.look("seen", "k999").is_none());
    let units = world.log.lock().units.len();
    world.run();
    assert_eq!(world.log.lock().units.len(), units, "there is nothing more to delete");
}

#[test]
fn timers_by_the_clock_fire_when_due_and_not_when_cancelled() {
    let mut world = World::new();
    world.put("a", 0, "wake-at 500").put("b", 0, "wake-at 500").put("c", 0, "wake-at 900").put("b", 0, "sleep-on");
    world.put("a", 0, "wake-at 600");
    assert_eq!(world.run(), Vec::<String>::new());
    assert_eq!(world.open().0.next_timer(), Some(600));
    world.now = 599;
    assert_eq!(world.run(), Vec::<String>::new());
    world.die();
    world.now = 600;
    assert_eq!(world.run(), ["woke at 600"]);
    world.close();
    world.now = 10_000;
    assert_eq!(world.run(), ["woke at 600", "woke at 900"]);
    assert_eq!(world.open().0.next_timer(), None);
    world.put("trap", 0, "wake-at 1");
    assert_eq!(world.run().len(), 2);
    assert_eq!(world.log.lock().dead().len(), 1);
    let outputs: Vec<_> = world.log.lock().units.iter().flat_map(|u| u.outputs.clone()).collect();
    assert_eq!(outputs[0].record.key.as_deref(), Some(&b"a"[..]));
}

#[test]
fn a_timer_that_sets_itself_is_fired_once_a_tick() {
    let mut world = World::new();
    world.now = 1_000;
    world.put("again 1", 0, "wake-at 5").put("again 2", 0, "wake-at 5");
    world.run();
    let mut units = world.log.lock().units.len();
    assert_eq!(world.open().0.next_timer(), Some(1_010));
    for (now, fires) in [(1_000, false), (1_009, false), (1_010, true), (1_019, false), (1_500, true)] {
        world.now = now;
        world.run();
        units += usize::from(fires);
        assert_eq!(world.log.lock().units.len(), units, "{now}");
    }
    assert_eq!(world.open().0.next_timer(), Some(1_510));
}

#[test]
fn a_timer_that_fails_is_tried_again_as_a_record_is() {
    let mut world = World::new();
    (world.retries, world.now) = (2, 1_000);
    world.put("a", 0, "wake-at 500").put("flaky", 0, "wake-at 501").put("b", 0, "wake-at 503");
    world.put("z", 0, "tell on time");
    assert_eq!(world.run(), ["on time", "woke at 500", "woke at 501", "woke at 503"]);
    world.put("trap", 0, "wake-at 504").put("b", 0, "wake-at 505");
    assert_eq!(world.run()[4..], ["woke at 505"]);
    let dead: Vec<_> = world.log.lock().units.iter().flat_map(|unit| unit.dead_letters.clone()).collect();
    assert_eq!(dead.len(), 1);
    assert_eq!((dead[0].timer.as_deref(), dead[0].tries), (Some("wake"), 3));
    // Those that an event brings as well, before which its record waits.
    world.put("trap", 1, "remind-at 10").put("z", 20, "tell late");
    assert_eq!(world.run().last().map(String::as_str), Some("late"));
    let tries: Vec<u32> =
        world.log.lock().units.iter().flat_map(|unit| &unit.dead_letters).map(|dead| dead.tries).collect();
    assert_eq!(tries, [3, 3]);
}

#[test]
fn a_clock_that_is_ahead_of_the_records_makes_none_of_them_late_and_forgets_nothing() {
    const HOUR: u64 = 3_600_000;
    for steps in [1, 2] {
        let mut world = World::new();
        (world.batch, world.steps, world.now) = (1, steps, 1_000 * HOUR);
        let relayed = |word: &str| if steps == 1 { word.to_owned() } else { format!("relay {word}") };
        // All of it was stored within an hour, and is read a thousand hours later.
        let (ten, once) = (relayed("ten"), relayed("once-an-hour"));
        for (key, born, value) in [
            ("a", 1, ten.as_str()),
            ("x", 2, &once),
            ("say ten", 3, "wake-at 500"),
            ("a", 4, &ten),
            ("x", 5, &once),
            ("a", 12, &ten),
            ("a", 30, &ten),
        ] {
            world.put(key, born, value);
        }
        let mut said = world.run();
        said.sort();
        // What the timer made is as old as the record before it, and counts in the second step's windows.
        let expected: &[&str] = match steps {
            1 => &["a 0..10 2", "a 10..20 1", "once-an-hour", "ten"],
            _ => &["a 0..10 2", "a 10..20 1", "once-an-hour", "say ten 0..10 1"],
        };
        assert_eq!(said, expected);
    }
}

#[test]
fn keys_are_scanned_in_order_in_memory_and_on_disk_alike() {
    let mut world = World::new();
    for key in ["user-2", "user-1", "shop-1", "user-3"] {
        world.put("v", 0, &format!("put {key}"));
    }
    world.run();
    world.close();
    world.put("v", 0, "delete user-1").put("v", 0, "put user-0").put("v", 0, "scan user-").put("v", 0, "get user-2");
    world.put("v", 0, "get user-1");
    assert_eq!(world.run(), ["user-0,user-2,user-3", "user-2 v", "user-1 nothing"]);
}
