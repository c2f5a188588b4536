//! Partitions against a plain map, over turns that stand and turns that do not, evictions, crashes and lost files.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;
use redb::{StorageBackend, backends::InMemoryBackend};

use super::{Domain, Engine, Partition, Timer};
use crate::ports::{Changelog, PortError};

/// Small numbers that are the same in every run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

/// Changes as they stand in a log, of which the newest are not on its disk yet, and the first are gone.
#[derive(Default)]
struct Log {
    changes: Vec<Bytes>,
    durable: usize,
    first: u64,
}

impl Changelog for &mut Log {
    fn bounds(&self) -> Result<(u64, u64), PortError> {
        Ok((self.first, self.changes.len() as u64))
    }

    fn read(&mut self, from: u64) -> Result<Vec<Bytes>, PortError> {
        assert!(from >= self.first, "{from} is gone");
        Ok(self.changes.iter().skip(usize::try_from(from).unwrap()).take(5).cloned().collect())
    }
}

/// What a partition must hold: values with their expiry, timers, and how far a step has seen.
#[derive(Clone, Default, PartialEq, Debug)]
struct Model {
    values: BTreeMap<(u16, Vec<u8>), (Vec<u8>, u64)>,
    timers: BTreeMap<(Vec<u8>, String), u64>,
    clock: u64,
    now: u64,
}

impl Model {
    fn get(&self, store: u16, key: &[u8]) -> Option<&Vec<u8>> {
        let found = self.values.get(&(store, key.to_vec()))?;
        (found.1 == 0 || found.1 > self.now).then_some(&found.0)
    }

    fn due(&mut self) -> Vec<(u64, Vec<u8>, String)> {
        let mut due: Vec<_> = self.timers.iter().map(|((key, name), at)| (*at, key.clone(), name.clone())).collect();
        due.retain(|(at, ..)| *at <= self.now);
        for (_, key, name) in &due {
            self.timers.remove(&(key.clone(), name.clone()));
        }
        due.sort();
        due
    }
}

const STORES: [&str; 2] = ["step/one", "step/two"];
const TIMERS: &str = "step\u{0}timers";
const CLOCK: &str = "step\u{0}clock";
/// So little memory that most of it is on disk.
const MEMORY: usize = 1;

fn open(path: &Path, log: &mut Log) -> Partition {
    let engine = Arc::new(Engine::open(path).unwrap());
    let mut partition = Partition::open(engine, 7, MEMORY, &mut &mut *log).unwrap();
    // Stores have the same numbers again only when they are asked for in the same order.
    for name in STORES.iter().chain([&TIMERS]) {
        partition.store(name);
    }
    partition
}

fn numbers(partition: &mut Partition) -> ([u16; 2], u16) {
    (STORES.map(|name| partition.store(name)), partition.store(TIMERS))
}

/// One call's worth of random writes and reads, on both sides alike.
fn play(dice: &mut Dice, partition: &mut Partition, model: &mut Model, large: bool) {
    let (stores, timers) = numbers(partition);
    for _ in 0..dice.roll(12) {
        let at = usize::try_from(dice.roll(2)).unwrap();
        let (store, slot) = (stores[at], u16::try_from(at).unwrap());
        let key = format!("key-{}", dice.roll(60)).into_bytes();
        let expires = if dice.roll(4) == 0 { model.now + 1 + dice.roll(40) } else { 0 };
        match dice.roll(8) {
            0 | 1 => {
                let value = vec![b'v'; usize::try_from(dice.roll(if large { 20_000 } else { 40 })).unwrap()];
                partition.put(store, &key, &value, expires).unwrap();
                model.values.insert((slot, key), (value, expires));
            }
            2 => {
                partition.delete(store, &key).unwrap();
                model.values.remove(&(slot, key));
            }
            3 | 4 => {
                let before = model.get(slot, &key).and_then(|v| <[u8; 8]>::try_from(v.as_slice()).ok());
                let sum = before.map_or(0, i64::from_le_bytes) + 3;
                assert_eq!(partition.add(store, &key, 3, model.now, expires).unwrap(), sum);
                model.values.insert((slot, key), (sum.to_le_bytes().to_vec(), expires));
            }
            5 => {
                let due = model.now + dice.roll(50);
                let name = format!("t{}", dice.roll(2));
                let timer = Timer { domain: Domain::EventTime, key: key.clone(), name: name.clone(), due };
                partition.set_timer(timers, &timer).unwrap();
                model.timers.insert((key, name), due);
            }
            6 => {
                partition.cancel_timer(timers, Domain::EventTime, &key, "t1").unwrap();
                model.timers.remove(&(key, "t1".to_owned()));
            }
            _ => assert_eq!(partition.get(store, &key, model.now).unwrap(), model.get(slot, &key).map(Vec::as_slice)),
        }
    }
    if dice.roll(4) == 0 {
        let mut taken = partition.take_timers(timers, Domain::EventTime, model.now, usize::MAX).unwrap();
        taken.sort_by(|a, b| (a.due, &a.key, &a.name).cmp(&(b.due, &b.key, &b.name)));
        let taken: Vec<_> = taken.into_iter().map(|t| (t.due, t.key, t.name)).collect();
        assert_eq!(taken, model.due());
    }
    let next = partition.next_due(timers, Domain::EventTime).unwrap();
    assert_eq!(next, model.timers.values().min().copied());
    let (clock, seen) = (partition.store(CLOCK), dice.roll(10_000));
    partition.advance(clock, seen).unwrap();
    model.clock = model.clock.max(seen);
}

fn check(partition: &mut Partition, model: &Model) {
    let (stores, clock) = (numbers(partition).0, partition.store(CLOCK));
    assert_eq!(partition.clock(clock).unwrap(), model.clock);
    for (slot, store) in (0..).zip(stores) {
        let found = partition.scan(store, b"key-", None, (1_000, usize::MAX), model.now).unwrap();
        let wanted = model.values.range((slot, Vec::new())..(slot + 1, Vec::new()));
        let wanted: Vec<_> = wanted
            .filter(|(_, (_, expires))| *expires == 0 || *expires > model.now)
            .map(|((_, key), (value, _))| (key.clone(), value.clone()))
            .collect();
        assert_eq!((&found.entries, found.more), (&wanted, false));
        // Page by page it is the same, whether entries or bytes make a page full.
        for most in [(7, usize::MAX), (1_000, 100), (1, 0)] {
            let (mut paged, mut after) = (Vec::new(), None);
            loop {
                let page = partition.scan(store, b"key-", after.as_deref(), most, model.now).unwrap();
                let Some((last, _)) = page.entries.last() else { break };
                let size: usize = page.entries.iter().map(|(key, value)| key.len() + value.len()).sum();
                assert!(page.entries.len() == 1 || page.entries.len() <= most.0 && size <= most.1);
                after = Some(last.clone());
                paged.extend(page.entries);
                assert_eq!(page.more, paged.len() < wanted.len());
            }
            assert_eq!(paged, wanted);
        }
    }
}

#[test]
fn a_partition_is_its_log_whatever_is_evicted_lost_or_taken_back() {
    for seed in 0..6 {
        let mut dice = Dice(seed);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        let mut log = Log::default();
        let mut model = Model::default();
        let mut partition = open(&path, &mut log);
        let mut rounds = 0;
        for turn in 0..400_u64 {
            model.now += dice.roll(4);
            let before = model.clone();
            for _ in 0..=dice.roll(3) {
                let mark = partition.begin_call();
                let kept = model.clone();
                play(&mut dice, &mut partition, &mut model, seed % 2 == 0);
                if dice.roll(5) == 0 {
                    partition.take_back(mark).unwrap();
                    model = kept;
                }
            }
            if dice.roll(6) == 0 {
                // The log refuses the turn.
                partition.roll_back().unwrap();
                model = Model { now: model.now, ..before };
            } else {
                partition.expire(model.now).unwrap();
                let carried = partition.carried().unwrap();
                let page = dice.roll(if seed % 2 == 0 { 200_000 } else { 2_000 });
                partition.carry(usize::try_from(page).unwrap()).unwrap();
                let change = partition.changes();
                if dice.roll(8) == 0 {
                    // It does not get that far: what was to be carried is carried with the next one.
                    partition.roll_back().unwrap();
                    model = Model { now: model.now, ..before };
                    continue;
                }
                log.changes.extend(change.clone());
                partition.committed(change.is_some());
                rounds += u64::from(partition.carried().unwrap() > carried);
                if dice.roll(2) == 0 {
                    log.durable = log.changes.len();
                }
                partition.tidy(log.durable as u64).unwrap();
                if dice.roll(20) == 0 {
                    partition.save(log.durable as u64).unwrap();
                }
                if dice.roll(10) == 0 {
                    partition.begin_round(log.durable as u64).unwrap();
                }
                if dice.roll(10) == 0 {
                    // The log lets go of what it does not need for the state.
                    log.first = partition.carried().unwrap();
                }
            }
            match dice.roll(40) {
                0 => {
                    drop(partition);
                    partition = open(&path, &mut log);
                }
                1 => {
                    drop(partition);
                    std::fs::remove_file(&path).unwrap();
                    partition = open(&path, &mut log);
                }
                _ => {}
            }
            if turn % 20 == 0 {
                check(&mut partition, &model);
            }
        }
        check(&mut partition, &model);
        assert!(rounds >= 3 && log.first > 0, "seed {seed}: {rounds} rounds, from {}", log.first);
    }
}

#[test]
fn what_expires_goes_even_when_no_step_has_its_store_any_more() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state");
    let mut log = Log::default();
    let mut partition = open(&path, &mut log);
    let (gone, here) = (partition.store("gone/old"), partition.store(STORES[0]));
    for at in 0..300_u64 {
        partition.put(gone, &at.to_be_bytes(), b"1", 10).unwrap();
        partition.put(here, &at.to_be_bytes(), b"1", 11).unwrap();
    }
    log.changes.extend(partition.changes());
    partition.committed(true);
    partition.save(1).unwrap();
    drop(partition);

    let mut partition = open(&path, &mut log);
    loop {
        partition.expire(11).unwrap();
        let Some(change) = partition.changes() else { break };
        log.changes.push(change);
        partition.committed(true);
    }
    // Nothing of it is in the file either.
    partition.save(log.changes.len() as u64).unwrap();
    drop(partition);
    let mut partition = open(&path, &mut log);
    let store = partition.store("gone/old");
    for store in [store, partition.store(STORES[0])] {
        assert_eq!(partition.scan(store, b"", None, (10, usize::MAX), 0).unwrap().entries, []);
    }
}

#[test]
fn a_file_that_is_ahead_of_the_log_is_made_anew() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state");
    let mut log = Log::default();
    let mut partition = open(&path, &mut log);
    for key in ["a", "b"] {
        let store = partition.store(STORES[0]);
        partition.put(store, key.as_bytes(), b"1", 0).unwrap();
        let change = partition.changes();
        log.changes.extend(change);
        partition.committed(true);
    }
    partition.save(2).unwrap();
    drop(partition);
    log.changes.pop();
    let mut partition = open(&path, &mut log);
    assert_eq!(partition.look("one", b"a", 0).unwrap().as_deref(), Some(&b"1"[..]));
    assert_eq!(partition.look("one", b"b", 0).unwrap(), None);
}

#[test]
fn what_has_expired_is_not_seen_from_outside() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = Log::default();
    let mut partition = open(&dir.path().join("state"), &mut log);
    let store = partition.store(STORES[0]);
    partition.put(store, b"a", b"1", 10).unwrap();
    partition.put(store, b"b", b"2", 0).unwrap();
    let mut seen = |at: u64| {
        let page = partition.look_through("one", b"", None, (9, 1_000), at).unwrap();
        let keys: Vec<_> = page.entries.into_iter().map(|(key, _)| key).collect();
        (keys, partition.look("one", b"a", at).unwrap())
    };
    assert_eq!(seen(9), (vec![b"a".to_vec(), b"b".to_vec()], Some(b"1".to_vec())));
    assert_eq!(seen(10), (vec![b"b".to_vec()], None));
}

#[test]
fn changes_that_the_log_no_longer_holds_are_missed_only_without_the_file() {
    struct Cut(Vec<Bytes>, u64);
    impl Changelog for Cut {
        fn bounds(&self) -> Result<(u64, u64), PortError> {
            Ok((self.1, self.0.len() as u64))
        }
        fn read(&mut self, from: u64) -> Result<Vec<Bytes>, PortError> {
            Ok(self.0.iter().skip(usize::try_from(from).unwrap()).cloned().collect())
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state");
    let mut log = Log::default();
    let mut partition = open(&path, &mut log);
    let store = partition.store(STORES[0]);
    partition.put(store, b"a", b"1", 0).unwrap();
    let change = partition.changes().unwrap();
    partition.committed(true);
    partition.save(1).unwrap();
    drop(partition);
    let engine = |path: &Path| Arc::new(Engine::open(path).unwrap());
    assert!(Partition::open(engine(&path), 7, MEMORY, &mut Cut(vec![change.clone()], 1)).is_ok());
    let lost = Partition::open(engine(&dir.path().join("other")), 7, MEMORY, &mut Cut(vec![change], 1));
    assert!(lost.err().unwrap().to_string().contains("reset the pipeline"));
}

#[test]
fn a_state_is_made_from_what_was_carried_forward_and_only_from_a_whole_round() {
    const ENTRIES: u64 = 50;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state");
    let mut log = Log::default();
    let mut partition = open(&path, &mut log);
    let store = partition.store(STORES[0]);
    let end_turn = |partition: &mut Partition, log: &mut Log, carried: usize| {
        partition.carry(carried).unwrap();
        let change = partition.changes();
        log.changes.extend(change.clone());
        partition.committed(change.is_some());
    };
    for at in 0..ENTRIES {
        partition.put(store, &at.to_be_bytes(), b"old", 0).unwrap();
    }
    partition.put(store, b"gone", b"old", 0).unwrap();
    end_turn(&mut partition, &mut log, 0);
    partition.delete(store, b"gone").unwrap();
    end_turn(&mut partition, &mut log, 0);
    // Nothing is to be carried while the log has it all, nor before it is on its disk.
    assert!(!partition.is_to_be_carried(|| 0).unwrap());
    partition.begin_round(1).unwrap();
    end_turn(&mut partition, &mut log, 1_000);
    assert_eq!((log.changes.len(), partition.page_bytes()), (2, 0));
    partition.begin_round(2).unwrap();

    let opened = |log: &Log, first: u64, file_has: usize| {
        let engine = Arc::new(Engine::in_memory().unwrap());
        let mut before = Log { changes: log.changes[..file_has].to_vec(), ..Log::default() };
        Partition::open(engine.clone(), 7, MEMORY, &mut &mut before).unwrap().save(file_has as u64).unwrap();
        let mut cut = Log { changes: log.changes.clone(), first, ..Log::default() };
        Partition::open(engine, 7, MEMORY, &mut &mut cut)
    };
    let mut turns = 0_u64;
    while partition.carried().unwrap() == 0 {
        partition.put(store, &turns.to_be_bytes(), b"new", 0).unwrap();
        partition.delete(store, &(ENTRIES - 1 - turns).to_be_bytes()).unwrap();
        end_turn(&mut partition, &mut log, 300);
        turns += 1;
        assert_eq!(opened(&log, 2, 0).is_ok(), partition.carried().unwrap() > 0, "after {turns} turns");
    }
    assert!(turns > 5, "{turns} turns");
    assert_eq!(partition.carried().unwrap(), 2);
    assert!(opened(&log, 3, 2).is_err(), "the round began before");
    // A file that is lost, one that stands before what the log has, and one that goes on from there.
    for file_has in [0, 1, 2, 5] {
        let mut partition = opened(&log, 2, file_has).unwrap();
        let store = partition.store(STORES[0]);
        let found = partition.scan(store, b"", None, (1_000, usize::MAX), 0).unwrap().entries;
        let value = |at: u64| if at < turns { b"new".to_vec() } else { b"old".to_vec() };
        let expected: Vec<_> = (0..ENTRIES - turns).map(|at| (at.to_be_bytes().to_vec(), value(at))).collect();
        assert_eq!(found, expected, "a file with {file_has} changes");
    }
}

#[test]
fn a_damaged_file_is_made_anew_and_one_that_is_in_use_stays() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state");
    let mut log = Log::default();
    let mut partition = open(&path, &mut log);
    let store = partition.store(STORES[0]);
    partition.put(store, b"a", &[7; 100_000], 0).unwrap();
    log.changes.extend(partition.changes());
    partition.committed(true);
    partition.save(1).unwrap();
    assert!(Engine::open(&path).is_err(), "it is open already");
    drop(partition);
    assert_eq!(open(&path, &mut log).applied(), 1);
    let whole = std::fs::read(&path).unwrap();
    let value = whole.windows(64).rposition(|bytes| bytes == [7; 64]).unwrap();
    for damaged in [b"no database".to_vec(), [&whole[..value], b"x", &whole[value + 1..]].concat()] {
        std::fs::write(&path, damaged).unwrap();
        let mut partition = open(&path, &mut log);
        assert_eq!(partition.look("one", b"a", 0).unwrap().as_deref(), Some(&[7; 100_000][..]));
        partition.save(1).unwrap();
    }
}

/// A disk that can be made to take nothing more.
#[derive(Debug, Default)]
struct Disk {
    memory: InMemoryBackend,
    full: Arc<AtomicBool>,
}

impl Disk {
    fn check(&self) -> std::io::Result<()> {
        if self.full.load(Ordering::Acquire) {
            return Err(std::io::Error::from(std::io::ErrorKind::StorageFull));
        }
        Ok(())
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> std::io::Result<u64> {
        self.memory.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> std::io::Result<()> {
        self.memory.read(offset, out)
    }

    fn set_len(&self, len: u64) -> std::io::Result<()> {
        self.check()?;
        self.memory.set_len(len)
    }

    fn sync_data(&self) -> std::io::Result<()> {
        self.check()?;
        self.memory.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> std::io::Result<()> {
        self.check()?;
        self.memory.write(offset, data)
    }
}

#[test]
fn a_file_that_failed_says_so_until_it_is_opened_anew() {
    let disk = Disk::default();
    let full = disk.full.clone();
    let engine = Arc::new(Engine::with(redb::Database::builder().create_with_backend(disk).unwrap()).unwrap());
    let mut partition = Partition::without_log(engine.clone(), 0, 1 << 20).unwrap();
    let store = partition.store("s/a");
    partition.put(store, b"k", b"v", 0).unwrap();
    partition.keep(0).unwrap();
    partition.save(1).unwrap();
    assert!(!engine.has_failed());

    full.store(true, Ordering::Release);
    partition.put(store, b"l", b"w", 0).unwrap();
    partition.keep(0).unwrap();
    assert!(partition.save(2).unwrap_err().to_string().contains("the state's file"));
    assert!(engine.has_failed());
    full.store(false, Ordering::Release);
    assert!(partition.save(2).is_err() && engine.has_failed(), "the library takes nothing more");
}
