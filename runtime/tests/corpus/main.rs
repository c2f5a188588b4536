//! A corpus of hostile components: each one ends as it should, in time, and harms nobody beside it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod cases;
#[path = "../common/mod.rs"]
mod common;
mod guest;
mod stage;

use std::fs;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use cases::{Act, Case};
use common::{COMPONENT, records};
use sluice_runtime::ports::{Hit, Lookup, PortError};
use sluice_runtime::state::Partition;
use sluice_runtime::{
    Batch, Columns, Config, Error, Failure, Grants, HalfMessage, Instance, Level, Limits, LogLine, Observation,
    Observer, Plugin, Role, Runtime, Setup, processor_time,
};

const INSTANCES: u32 = 24;
const DEADLINE: Duration = Duration::from_millis(20);
/// For those who are to meet another limit first, however slow the machine is.
const PATIENCE: Duration = Duration::from_secs(10);
/// How much longer than its deadline an endless call may have the processor. Generous, as a tick comes late on a busy machine: docs/benchmarks.md says
/// what is usual, and more than [`USUAL`] is printed.
const OVERSHOOT: Duration = Duration::from_millis(250);
const USUAL: Duration = Duration::from_millis(10);
/// The same for any other call, half of what the patient have: a dev build on two busy processors took 2.2 s to set the timers that a call may set.
const LONGEST: Duration = Duration::from_secs(5);
/// What the corpus may leave behind in memory, having run once before.
const LEFT_BEHIND: u64 = 64 << 20;
/// Generous: a machine may be busy. A neighbour that waits for somebody else's call or compilation would need seconds.
const NEIGHBOUR_P99: Duration = Duration::from_millis(100);

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    let config = Config { instances: INSTANCES, compile_timeout: Duration::from_secs(20), ..Config::default() };
    Runtime::new(config).unwrap()
});

/// Keeps to its limits what reaches an observer.
struct Listening;

impl Observer for Listening {
    fn enabled(&self, _: Level) -> bool {
        true
    }
    fn log(&self, line: &LogLine<'_>) {
        let fields: usize = line.fields.iter().map(|(name, value)| name.len() + value.len()).sum();
        assert!(line.message.len() + fields <= 4096, "a line of {} bytes", line.message.len() + fields);
    }
    fn metric(&self, observation: &Observation<'_>) {
        assert!(observation.name.len() <= 64);
    }
}

/// Takes its time, and gives more than it was asked for.
struct SlowLookup;

impl Lookup for SlowLookup {
    fn by_key(&self, topic: &str, _: &str, limit: u32) -> Result<Vec<Hit>, PortError> {
        assert_eq!((topic, limit), ("ledger", 100));
        thread::sleep(Duration::from_micros(200));
        Ok(vec![Hit { body: Bytes::from_static(&[7; 1000]), ..Hit::default() }; 200])
    }
}

fn limits() -> Limits {
    Limits { deadline: DEADLINE, check_deadline: DEADLINE, ..Limits::default() }
}

fn limits_of(case: &Case) -> Limits {
    let deadline = if case.patient { PATIENCE } else { DEADLINE };
    let memory = if case.roomy { RUNTIME.config().memory } else { Limits::default().memory };
    Limits { deadline, check_deadline: deadline, memory, ..Limits::default() }
}

fn setup(limits: Limits) -> Setup {
    let grants = Grants { lookup: Some(Arc::new(SlowLookup)), topics: vec!["ledger".into()], ..Grants::default() };
    Setup { limits, grants, observer: Arc::new(Listening), ..Setup::default() }
}

/// What came of a case: a code, a message, and how long the processor was at its last call.
struct Came {
    code: String,
    says: String,
    busy: Duration,
    allowed: Duration,
}

fn timed<R>(f: impl FnOnce() -> R) -> (R, Duration) {
    let before = processor_time();
    let result = f();
    (result, Duration::from_nanos(processor_time() - before))
}

fn run(case: &Case) -> Came {
    let start = RUNTIME.config().start_deadline;
    let came = |code: &str, says: String, busy, allowed| Came { code: code.to_owned(), says, busy, allowed };
    let (loaded, busy) = timed(|| RUNTIME.load("x.wasm", &case.bytes));
    let plugin = match loaded {
        Ok((plugin, _)) => plugin,
        Err(refusal) => return came(refusal.code.as_str(), refusal.message, busy, start),
    };
    match case.act {
        Act::Load => came("fine", String::new(), busy, start),
        Act::Timers => {
            let (code, says) = stage::timers(plugin);
            came(&code, says, Duration::ZERO, DEADLINE)
        }
        Act::Storm => {
            let (code, says) = stage::storm(plugin);
            came(&code, says, Duration::ZERO, DEADLINE)
        }
        Act::Start | Act::Call(_) => {
            let (started, busy) = timed(|| plugin.instance(setup(limits_of(case))));
            let mut instance = match started {
                Ok(instance) => instance,
                Err(error) => {
                    let code = match &error {
                        Error::Start { failure, .. } => failure.code().to_owned(),
                        Error::Configure { .. } => "configure".to_owned(),
                        _ => "other".to_owned(),
                    };
                    return came(&code, error.to_string(), busy, start);
                }
            };
            let calls = if let Act::Call(calls) = case.act { calls } else { 0 };
            let mut last = Duration::ZERO;
            for _ in 0..calls {
                let (answer, busy) = timed(|| call(&plugin, &mut instance, calls > 1));
                last = busy;
                if let Err(failure) = answer {
                    let ends = !matches!(
                        failure,
                        Failure::Fault { .. } | Failure::Nonsense(_) | Failure::Check(_) | Failure::TooMuch { .. }
                    );
                    assert!(instance.is_dead() || !ends, "{}: {failure} does not end the instance", case.name);
                    return came(failure.code(), failure.to_string(), busy, DEADLINE);
                }
            }
            came("fine", String::new(), last, DEADLINE)
        }
    }
}

/// Four records, of kilobytes if they are `large`.
fn call(plugin: &Plugin, instance: &mut Instance, large: bool) -> Result<(), Failure> {
    let mut batch = Batch::new(Columns::VALUE, 3);
    let value = "x".repeat(if large { 10_000 } else { 4 });
    let records = records(&[value.as_str(); 4]);
    assert_eq!(batch.extend(records.iter().map(|record| (record, 0))), 4);
    let role = plugin.roles()[0];
    match role {
        Role::Filter => instance.filter(&batch).map(drop),
        Role::Transform => instance.transform(&batch, 2).map(drop),
        Role::Process => {
            let mut home = Some(Box::new(Partition::fresh().unwrap()));
            let done = instance.process_alone(&records, 2, &mut home).map(drop);
            assert!(home.is_some(), "the state did not come home");
            done
        }
        Role::CheckTransaction => {
            let message = HalfMessage { transaction_id: "t".into(), body: vec![1; 100], ..HalfMessage::default() };
            instance.check(&message).map(drop)
        }
    }
}

/// Runs the corpus once, and gives what went another way than it should.
fn pass(cases: &[Case], verbose: bool) -> Vec<String> {
    let mut wrong = Vec::new();
    for case in cases {
        let began = Instant::now();
        let came = run(case);
        let Came { code, says, busy, allowed } = &came;
        if verbose {
            let shown: String = says.chars().take(140).collect();
            println!(
                "{:>4} MiB {:>7.1?} {:>7.1?} {}: {code}: {shown}",
                resident() >> 20,
                began.elapsed(),
                busy,
                case.name
            );
        }
        if code != case.code || !says.contains(case.says) {
            let shown: String = says.chars().take(300).collect();
            wrong.push(format!("{}: expected {}: {:?}, got {code}: {shown}", case.name, case.code, case.says));
        }
        if says.len() > 8192 {
            wrong.push(format!("{}: a message of {} bytes", case.name, says.len()));
        }
        let over = busy.saturating_sub(*allowed);
        let over = if case.endless || over > LONGEST { over } else { Duration::ZERO };
        let text = format!("{}: {busy:?} on the processor, {allowed:?} allowed", case.name);
        if over > OVERSHOOT {
            wrong.push(text);
        } else if over > USUAL {
            println!("{text}");
        }
    }
    wrong
}

/// Asks a well-behaved filter again and again, and checks each answer.
struct Neighbour {
    stop: Arc<AtomicBool>,
    calls: Arc<AtomicU64>,
    thread: thread::JoinHandle<Vec<Duration>>,
}

impl Neighbour {
    fn start(plugin: &Plugin) -> Self {
        let (stop, calls) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (theirs, count) = (stop.clone(), calls.clone());
        let limits = Limits { deadline: Duration::from_secs(10), ..Limits::default() };
        let mut instance = plugin.instance(Setup { limits, ..Setup::default() }).unwrap();
        let values: Vec<&str> = (0..64).map(|i| if i % 3 == 0 { "drop" } else { "keep" }).collect();
        let mut batch = Batch::new(plugin.manifest().needs, 0);
        assert!(records(&values).iter().all(|record| batch.push(record, 0)));
        let thread = thread::spawn(move || {
            let mut took = Vec::new();
            while !theirs.load(Ordering::SeqCst) {
                let start = Instant::now();
                let verdict = instance.filter(&batch).unwrap();
                took.push(start.elapsed());
                assert!((0..64).all(|i| verdict.keeps(i) == (i % 3 != 0)), "a wrong answer");
                count.fetch_add(1, Ordering::SeqCst);
                thread::sleep(Duration::from_millis(1));
            }
            took
        });
        Self { stop, calls, thread }
    }

    /// How long 99 of 100 calls took at most.
    fn stop(self) -> Duration {
        self.stop.store(true, Ordering::SeqCst);
        let mut took = self.thread.join().unwrap();
        took.sort_unstable();
        took[took.len() * 99 / 100]
    }
}

fn threads() -> usize {
    fs::read_dir("/proc/self/task").unwrap().count()
}

fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

/// Waits until it holds, for a while.
fn soon(holds: impl Fn() -> bool) -> bool {
    let start = Instant::now();
    while !holds() {
        if start.elapsed() > Duration::from_secs(20) {
            return false;
        }
        thread::sleep(Duration::from_millis(10));
    }
    true
}

#[test]
fn no_component_of_the_corpus_harms_anybody() {
    let cases = cases::all();
    assert!(cases.len() >= 40);
    let (plugin, _) = RUNTIME.load("neighbour", &COMPONENT).unwrap();

    let alone = Neighbour::start(&plugin);
    assert!(soon(|| alone.calls.load(Ordering::SeqCst) > 300));
    let alone = alone.stop();
    // What is made once stays: the threads that compile, and the memory they and the pool keep.
    let wrong = pass(&cases, true);
    assert!(wrong.is_empty(), "{} of {} cases:\n{}", wrong.len(), cases.len(), wrong.join("\n"));

    let (threads_before, memory_before) = (threads(), resident());
    let neighbour = Neighbour::start(&plugin);
    let began = Instant::now();
    let wrong = pass(&cases, false);
    println!("{} components in {:?}", cases.len(), began.elapsed());
    let beside = neighbour.stop();
    assert!(wrong.is_empty(), "the second time:\n{}", wrong.join("\n"));

    println!("the neighbour's p99: {alone:?} alone, {beside:?} beside the corpus");
    assert!(beside < NEIGHBOUR_P99, "the neighbour's p99 is {beside:?}, {alone:?} alone");
    assert!(soon(|| threads() <= threads_before), "{} threads, {threads_before} before", threads());
    let memory = resident();
    println!("resident memory: {} MiB before, {} MiB after", memory_before >> 20, memory >> 20);
    assert!(memory <= memory_before + LEFT_BEHIND, "{memory} bytes, {memory_before} before");

    let all: Vec<Instance> = (0..INSTANCES).map(|_| plugin.instance(Setup::default()).unwrap()).collect();
    assert!(matches!(plugin.instance(Setup::default()), Err(Error::Full(INSTANCES))));
    drop(all);
}

/// Damage at each place, in turn: whatever comes of it, it is an answer.
#[test]
fn a_damaged_component_is_answered() {
    let bytes = guest::filter().build();
    for at in (8..bytes.len()).step_by(bytes.len() / 150) {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x55;
        if let Ok((plugin, _)) = RUNTIME.load("damaged", &damaged)
            && let Ok(mut instance) = plugin.instance(setup(limits()))
        {
            // Good or bad: it came back.
            let _ = call(&plugin, &mut instance, false);
        }
    }
}
