use std::sync::mpsc;

use bytes::Bytes;
use sluice_broker::{Config, Filter, RealDisk, StoreConfig, open};
use sluice_model::{Host, Message, Properties, QueueId, QueueOffset, TopicName};

use super::*;

const THREADS: u64 = 8;
const EACH: u64 = 300;

pub(crate) fn start(dir: &std::path::Path) -> Shell {
    let store = StoreConfig { segment_len: 1 << 20, reserve_bytes: 0, ..StoreConfig::default() };
    let opened = open(Arc::new(RealDisk::open(dir).unwrap()), store, Config::default()).unwrap();
    Shell::start(opened, Retention::default(), Arc::new(|_| {})).unwrap()
}

pub(crate) fn topic() -> TopicName {
    TopicName::parse("t").unwrap()
}

pub(crate) fn make(shell: &Shell, durability: Durability) {
    let topic = sluice_broker::Topic { durability: Some(durability), ..sluice_broker::Topic::new(topic(), 1) };
    shell.ask_blocking(move |broker, now| broker.put_topic(topic, now)).unwrap();
}

pub(crate) fn one(body: String) -> Send {
    let message = Message {
        born_host: Host::LOCAL,
        ..Message::new(topic(), QueueId(0), Timestamp(1), Properties::default(), Bytes::from(body))
    };
    Send { messages: vec![message], queue: Some(QueueId(0)), template: None, max_reconsume_times: None }
}

/// Every thread's sends are answered with places of their own, in the order in which the thread sent them.
fn all_are_answered(durability: Durability) {
    let dir = tempfile::tempdir().unwrap();
    let shell = start(dir.path());
    make(&shell, durability);
    let (answers, received) = mpsc::channel();
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (shell, answers) = (shell.clone(), answers.clone());
            scope.spawn(move || {
                for n in 0..EACH {
                    let answers = answers.clone();
                    shell.send(one(format!("{thread} {n}")), move |sent, _| {
                        answers.send((thread, n, sent.unwrap().queue_offset.0)).unwrap();
                    });
                    // Some go alone, some together.
                    if n % 3 != 0 || n + 1 == EACH {
                        shell.work();
                    }
                }
            });
        }
    });
    drop(answers);
    let mut places: Vec<_> = (0..THREADS * EACH).map(|_| received.recv_timeout(PATIENCE).unwrap()).collect();
    places.sort_unstable();
    assert!(places.windows(2).all(|pair| pair[0].0 != pair[1].0 || pair[0].2 < pair[1].2), "a thread's order is kept");
    let mut offsets: Vec<u64> = places.iter().map(|place| place.2).collect();
    offsets.sort_unstable();
    assert!(offsets.into_iter().eq(0..THREADS * EACH), "offsets are dense");
    shell.stop();
    let refused = shell.ask_blocking(|_, _| Ok(())).unwrap_err();
    assert_eq!(refused.kind, Kind::Unavailable);
    drop(shell);
    let shell = start(dir.path());
    let fetch = sluice_broker::Fetch {
        topic: topic(),
        queue: QueueId(0),
        from: QueueOffset(0),
        max_messages: 1,
        max_bytes: 1,
        filter: Filter::All,
    };
    assert_eq!(shell.reader.fetch(&fetch).unwrap().max, QueueOffset(THREADS * EACH));
    shell.stop();
}

const PATIENCE: std::time::Duration = std::time::Duration::from_secs(20);

#[test]
fn all_are_answered_that_wait_for_the_disk() {
    all_are_answered(Durability::Sync);
}

#[test]
fn all_are_answered_that_do_not() {
    all_are_answered(Durability::Async);
}

#[test]
fn what_nobody_calls_for_is_done_with_the_next_tick() {
    let dir = tempfile::tempdir().unwrap();
    let shell = start(dir.path());
    make(&shell, Durability::Async);
    let (answer, answered) = mpsc::channel();
    shell.send(one("forgotten".to_owned()), move |sent, _| answer.send(sent.is_ok()).unwrap());
    assert_eq!(answered.recv_timeout(PATIENCE), Ok(true));
    shell.stop();
}

#[test]
fn what_is_too_old_at_a_start_is_gone_before_anybody_reads() {
    let dir = tempfile::tempdir().unwrap();
    let shell = start(dir.path());
    let short = sluice_broker::Topic { retention_ms: Some(1_000), ..sluice_broker::Topic::new(topic(), 1) };
    shell.ask_blocking(move |broker, now| broker.put_topic(short, now)).unwrap();
    let (answer, answered) = mpsc::channel();
    shell.send(one("old".to_owned()), move |sent, _| answer.send(sent.is_ok()).unwrap());
    shell.work();
    assert_eq!(answered.recv_timeout(PATIENCE), Ok(true));
    shell.stop();
    drop(shell);
    std::thread::sleep(std::time::Duration::from_millis(1_100));
    let shell = start(dir.path());
    assert_eq!(shell.reader.bounds(&topic(), QueueId(0)), (QueueOffset(1), QueueOffset(1)));
    shell.stop();
}

#[test]
fn after_a_panic_the_log_takes_nothing_more() {
    let dir = tempfile::tempdir().unwrap();
    let shell = start(dir.path());
    make(&shell, Durability::Async);
    let broken = shell.clone();
    // The verb runs here or on the writer's thread; either way its panic ends the use of the log.
    let panicked =
        std::thread::spawn(move || broken.ask_blocking(|_, _| -> sluice_broker::Result<()> { panic!("a bug") }));
    assert!(!matches!(panicked.join(), Ok(Ok(()))));
    let refused = shell.ask_blocking(|_, _| Ok(())).unwrap_err();
    assert_eq!((refused.kind, shell.is_writable()), (Kind::Unavailable, false));
    shell.stop();
}

#[test]
fn who_stands_back_leaves_the_write_to_the_writers_thread() {
    let dir = tempfile::tempdir().unwrap();
    let shell = start(dir.path());
    make(&shell, Durability::Async);
    let behind = shell.standing_back();
    for n in 0..20 {
        let (told, hear) = mpsc::channel();
        behind.send(one(n.to_string()), move |sent, _| {
            sent.unwrap();
            told.send(std::thread::current().name().map(str::to_owned)).unwrap();
        });
        behind.work();
        assert_eq!(hear.recv_timeout(PATIENCE).unwrap().as_deref(), Some("writer"));
    }
    shell.stop();
}
