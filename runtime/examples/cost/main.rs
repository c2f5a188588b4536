//! What plugins cost for each record, beside the same logic in the broker's own language:
//! `cargo run --release -p sluice-runtime --example cost`, with a part of a plugin's name for that one only. Prints the table of
//! `docs/benchmarks.md`.

mod native;

use std::error::Error;
use std::hint::black_box;
use std::path::Path;
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde_json::Map;
use sluice_guest_build::Guests;
use sluice_runtime::ports::{PortError, Progress, Sink, Source, Unit};
use sluice_runtime::state::Partition;
use sluice_runtime::{
    Batch, Config, Decision, Grants, HalfMessage, Instance, Plan, Plugin, Policy, Record, Runtime, Setup, Silent,
    Stage, StatePlan, Step, Turn, processor_time,
};

/// The server's own.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type Done<T> = Result<T, Box<dyn Error>>;

/// Of each, one sample after the other in turn, so that a slow moment of the machine meets both.
const ROUNDS: usize = 15;
const SAMPLE: Duration = Duration::from_millis(40);
/// What a pipeline's stage reads at once where its queue has as much, and a quarter of it, where the call itself counts for more.
const BATCHES: [usize; 2] = [512, Plan::BATCH_RECORDS];
/// Records that a round goes through: more than the nearest cache holds.
const RECORDS: usize = 16_384;
const KEYS: usize = 1_000;

fn main() -> Done<()> {
    let wanted = std::env::args().nth(1).unwrap_or_default();
    let wants = |name: &str| name.contains(&wanted);
    let runtime = Runtime::new(Config::default())?;
    println!("| what | batch | plugin, ns | native, ns | ratio | plugin, million/s | aim |");
    println!("| --- | ---: | ---: | ---: | ---: | ---: | --- |");
    let trivial = plugin(&runtime, "trivial")?;
    let bodies = |i: usize| format!("{}{:099}", if i.is_multiple_of(2) { 'k' } else { 'd' }, i);
    let records_of_digits = records(bodies);
    let aim = "2.0, 80 million/s";
    if wants("trivial") {
        filter("trivial filter", aim, &trivial, &mut native::trivial(), &records_of_digits)?;
    }
    if wants("json") {
        let whole = plugin(&runtime, "json")?;
        filter("JSON-field filter, whole body parsed", "1.6", &whole, &mut native::json(), &records(order))?;
    }
    if wants("field") {
        filter("JSON-field filter", "1.6", &plugin(&runtime, "field")?, &mut native::field(), &records(order))?;
    }
    if wants("upper") {
        transform(&plugin(&runtime, "upper")?, &records_of_digits)?;
    }
    if wants("count") {
        count(&plugin(&runtime, "count")?, &records_of_digits)?;
    }
    if wants("check") {
        check(&plugin(&runtime, "check")?)?;
    }
    if wants("fresh") {
        fresh(&trivial, &records_of_digits)?;
    }
    if wants("threads") {
        threads(&trivial, &records_of_digits)?;
    }
    Ok(())
}

/// An order as JSON, 100 bytes.
fn order(i: usize) -> String {
    let (amount, customer) = (i % 1000, i % 9999);
    let order = format!("{{\"id\":1{i:06},\"amount\":{amount},\"currency\":\"EUR\",\"customer\":\"c{customer:05}\"");
    format!("{order},\"note\":\"{:>1$}\"}}", "x", 100 - order.len() - 11)
}

fn plugin(runtime: &Runtime, feature: &str) -> Done<Plugin> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/cost/guest");
    let built = Guests::at(dir).feature(feature).build()?;
    Ok(runtime.load(feature, &built[0].component)?.0)
}

fn records(body: impl Fn(usize) -> String) -> Vec<Record> {
    let record = |i: usize| {
        let value = body(i);
        assert_eq!(value.len(), 100, "{value}");
        let key = format!("key-{:04}", i * 7919 % KEYS);
        Record {
            offset: i as u64,
            key: Some(key.into()),
            value: value.into(),
            stored_at: 1,
            born_at: 1,
            ..Record::default()
        }
    };
    (0..RECORDS).map(record).collect()
}

/// Nanoseconds of the processor for one of the `pieces` that a run of `work` does.
fn sample(pieces: usize, work: &mut dyn FnMut() -> Done<()>) -> Done<f64> {
    let (start, wall, mut runs) = (processor_time(), Instant::now(), 0_usize);
    while runs == 0 || wall.elapsed() < SAMPLE {
        work()?;
        runs += 1;
    }
    Ok((processor_time() - start) as f64 / (runs * pieces) as f64)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Medians of both sides, and of the ratio of neighbouring samples.
fn compare(
    pieces: usize,
    plugin: &mut dyn FnMut() -> Done<()>,
    native: &mut dyn FnMut() -> Done<()>,
) -> Done<(f64, f64, f64)> {
    let (mut ours, mut theirs, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let (native, plugin) = (sample(pieces, native)?, sample(pieces, plugin)?);
        ours.push(plugin);
        theirs.push(native);
        ratios.push(plugin / native);
    }
    Ok((median(ours), median(theirs), median(ratios)))
}

fn line(what: &str, batch: usize, (plugin, native, ratio): (f64, f64, f64), aim: &str) {
    println!("| {what} | {batch} | {plugin:.1} | {native:.1} | {ratio:.2} | {:.1} | {aim} |", 1000.0 / plugin);
}

fn filled(plugin: &Plugin, records: &[Record]) -> Batch {
    let mut batch = Batch::new(plugin.manifest().needs, 0);
    fill(&mut batch, records);
    batch
}

fn fill(batch: &mut Batch, records: &[Record]) {
    batch.clear();
    assert_eq!(batch.extend(records.iter().map(|record| (record, 0))), records.len(), "the batch is full");
}

fn filter(what: &str, aim: &str, plugin: &Plugin, native: &mut native::Filter, records: &[Record]) -> Done<()> {
    for size in BATCHES {
        let mut instance = plugin.instance(Setup::default())?;
        for part in records.chunks(size) {
            let (verdict, keep) = (instance.filter(&filled(plugin, part))?, native::kept(native, part));
            let kept = |i: usize| keep[i / 8] & (1 << (i % 8)) != 0;
            assert!((0..part.len()).all(|i| verdict.keeps(i) == kept(i)), "{what}");
            assert!((1..part.len()).contains(&(0..part.len()).filter(|i| kept(*i)).count()), "{what} is no test");
        }
        let mut own = || {
            records.chunks(size).for_each(|part| drop(black_box(native::kept(native, part))));
            Ok(())
        };
        let mut batch = Batch::new(plugin.manifest().needs, 0);
        let mut whole = || {
            for part in records.chunks(size) {
                fill(&mut batch, part);
                black_box(instance.filter(&batch)?);
            }
            Ok(())
        };
        line(what, size, compare(records.len(), &mut whole, &mut own)?, aim);
        let batches: Vec<Batch> = records.chunks(size).map(|part| filled(plugin, part)).collect();
        let mut calls = || {
            for batch in &batches {
                black_box(instance.filter(batch)?);
            }
            Ok(())
        };
        line(&format!("{what}, columns at hand"), size, compare(records.len(), &mut calls, &mut own)?, aim);
    }
    Ok(())
}

fn transform(plugin: &Plugin, records: &[Record]) -> Done<()> {
    let mut native = native::upper();
    for size in BATCHES {
        let mut instance = plugin.instance(Setup::default())?;
        let mut batch = Batch::new(plugin.manifest().needs, 0);
        let mut run = |part: &[Record]| -> Done<Vec<Record>> {
            fill(&mut batch, part);
            let output = instance.transform(&batch, 1)?;
            Ok(output
                .produced
                .into_iter()
                .map(|item| {
                    let input = &part[item.origin];
                    item.applied_to(input)
                })
                .collect())
        };
        let part = &records[..size];
        assert!(run(part)? == part.iter().map(&mut native).collect::<Vec<_>>(), "upper");
        let mut whole = || {
            for part in records.chunks(size) {
                black_box(run(part)?);
            }
            Ok(())
        };
        let mut own = || {
            for part in records.chunks(size) {
                black_box(part.iter().map(&mut native).collect::<Vec<_>>());
            }
            Ok(())
        };
        line("transform of the value", size, compare(records.len(), &mut whole, &mut own)?, "3.3");
    }
    Ok(())
}

/// A log that forgets what it is given.
struct Nowhere<'a> {
    records: &'a [Record],
}

impl Source for Nowhere<'_> {
    fn read(&mut self, at: u64, most: usize, _: usize, into: &mut Vec<Record>) -> Result<u64, PortError> {
        let from = usize::try_from(at).unwrap_or(usize::MAX) % self.records.len();
        let taken = self.records[from..].iter().take(most).enumerate();
        into.extend(taken.map(|(i, record)| Record { offset: at + i as u64, ..record.clone() }));
        Ok(at + into.len() as u64)
    }
}

/// The sink's side: all that is committed is on disk at once.
struct Gone(u64);

impl Sink for Gone {
    fn commit(&mut self, unit: Unit) -> Result<(), PortError> {
        self.0 += u64::from(unit.state.is_some());
        Ok(())
    }

    fn durable_changes(&self) -> u64 {
        self.0
    }
}

impl Progress for Gone {
    fn load(&mut self) -> Result<u64, PortError> {
        Ok(0)
    }
}

/// A count for each key, in a stage: state, journal and the change for the log included.
fn count(plugin: &Plugin, records: &[Record]) -> Done<()> {
    for size in BATCHES {
        let partition = Arc::new(Mutex::new(Some(Box::new(Partition::fresh()?))));
        let plan = Plan {
            pipeline: "cost".into(),
            queue: 0,
            input_topic: "in".into(),
            sinks: vec!["out".into()],
            steps: vec![Step {
                name: "count".into(),
                plugin: plugin.clone(),
                config: Map::new(),
                prefilter: None,
                grants: Grants::default(),
            }],
            policy: Policy::default(),
            limits: sluice_runtime::Limits::default(),
            batch_records: size,
            batch_bytes: 1 << 20,
            observer: Arc::new(Silent),
            state: Some(StatePlan { partition: partition.clone(), lateness: 0 }),
        };
        let (mut source, mut sink) = (Nowhere { records }, Gone(0));
        let mut stage = Stage::open(plan, &mut sink)?;
        let mut whole = || {
            let end = stage.position() + records.len() as u64;
            while stage.position() < end {
                match stage.turn(&mut source, &mut sink, 1) {
                    Turn::Progressed { .. } => {}
                    other => return Err(format!("{other:?}").into()),
                }
            }
            Ok(())
        };
        let mut totals = native::Count::default();
        whole()?;
        records.iter().for_each(|record| totals.add(record.key.as_deref().unwrap_or_default()));
        let found =
            |key: &[u8]| partition.lock().as_mut().and_then(|state| state.look("totals", key, 0).ok().flatten());
        assert!(totals.all(|key, total| found(key).is_some_and(|value| value == total.to_le_bytes())), "count");
        let mut own = || {
            records.iter().for_each(|record| totals.add(record.key.as_deref().unwrap_or_default()));
            black_box(&totals);
            Ok(())
        };
        line("count for each key, a whole stage", size, compare(records.len(), &mut whole, &mut own)?, "3 million/s");
    }
    Ok(())
}

fn check(plugin: &Plugin) -> Done<()> {
    let message = HalfMessage {
        transaction_id: "7F0000010001".into(),
        topic: "orders".into(),
        producer_group: "shop".into(),
        body: vec![b'k'; 100],
        ..HalfMessage::default()
    };
    let mut instance = plugin.instance(Setup::default())?;
    assert!(instance.check(&message) == Ok(Decision::Commit), "check");
    let other = HalfMessage { body: b"other".to_vec(), ..message.clone() };
    assert!(instance.check(&other) != Ok(Decision::Commit), "check");
    let mut whole = || {
        for _ in 0..100 {
            black_box(instance.check(black_box(&message))?);
        }
        Ok(())
    };
    let mut own = || {
        for _ in 0..100 {
            black_box(black_box(&message).body.first() == Some(&b'k'));
        }
        Ok(())
    };
    line("transaction check", 1, compare(100, &mut whole, &mut own)?, "2 µs more");
    Ok(())
}

/// From a trap to the first answer of the next instance.
fn fresh(plugin: &Plugin, records: &[Record]) -> Done<()> {
    let good = filled(plugin, &records[..1]);
    let bad = filled(plugin, &[Record { value: "!".into(), ..Record::default() }]);
    let start = |plugin: &Plugin| -> Done<Instance> { Ok(plugin.instance(Setup::default())?) };
    let mut instance = start(plugin)?;
    let mut whole = || {
        assert!(instance.filter(&bad).is_err(), "no trap");
        instance = start(plugin)?;
        black_box(instance.filter(&good)?);
        Ok(())
    };
    let mut beside = start(plugin)?;
    let mut own = || {
        black_box(beside.filter(&good)?);
        Ok(())
    };
    line("trap, new instance, its first call (beside: a call)", 1, compare(1, &mut whole, &mut own)?, "60 µs");
    Ok(())
}

/// What four threads do beside one, each with an instance of its own, and the same of the native filter: what the machine itself gives.
fn threads(plugin: &Plugin, records: &[Record]) -> Done<()> {
    const THREADS: usize = 4;
    let ours = |threads: usize| -> Done<Rate> {
        let instances = (0..threads).map(|_| plugin.instance(Setup::default())).collect::<Result<Vec<_>, _>>()?;
        let workers = instances.into_iter().map(|mut instance| {
            let mut batch = Batch::new(plugin.manifest().needs, 0);
            move |part: &[Record]| {
                fill(&mut batch, part);
                black_box(instance.filter(&batch)).map_or(0, |_| part.len())
            }
        });
        Ok(rate(records, workers))
    };
    let theirs = |threads: usize| {
        let workers = (0..threads).map(|_| {
            let mut native = native::trivial();
            move |part: &[Record]| {
                black_box(native::kept(&mut native, part));
                part.len()
            }
        });
        rate(records, workers)
    };
    let (mut one, mut four, mut plugins, mut native) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let (single, many) = (ours(1)?, ours(THREADS)?);
        one.push(single.wall);
        four.push(many.wall);
        plugins.push((many.wall / single.wall, many.processor / single.processor));
        let (single, many) = (theirs(1), theirs(THREADS));
        native.push((many.wall / single.wall, many.processor / single.processor));
    }
    let (one, four) = (median(one) / 1e6, median(four) / 1e6);
    println!("\n{THREADS} threads: {four:.1} million records a second, one thread {one:.1} (aim: 3.6 times)");
    for (what, times) in [("plugins", plugins), ("the native filter", native)] {
        let (wall, processor) = times.into_iter().unzip();
        let (wall, processor) = (median(wall), median(processor) * THREADS as f64);
        println!("{what}: {wall:.2} times by the clock on the wall, {processor:.2} times by the time on the processor");
    }
    Ok(())
}

/// Records a second: of the wall's clock, and of the processors' time.
struct Rate {
    wall: f64,
    processor: f64,
}

/// Lets as many threads as there are workers go through the records, all at once.
fn rate<W: FnMut(&[Record]) -> usize + Send>(records: &[Record], workers: impl ExactSizeIterator<Item = W>) -> Rate {
    let barrier = Barrier::new(workers.len() + 1);
    let run = |mut work: W| -> (usize, Duration) {
        barrier.wait();
        let (processor, start, mut done) = (processor_time(), Instant::now(), 0);
        while start.elapsed() < SAMPLE {
            done += records.chunks(BATCHES[0]).map(&mut work).sum::<usize>();
        }
        (done, Duration::from_nanos(processor_time() - processor))
    };
    let run = &run;
    thread::scope(|scope| {
        let running: Vec<_> = workers.map(|work| scope.spawn(move || run(work))).collect();
        barrier.wait();
        let start = Instant::now();
        let sum = |(done, time): (usize, Duration), (more, longer): (usize, Duration)| (done + more, time + longer);
        let (done, time) = running.into_iter().filter_map(|thread| thread.join().ok()).fold(Default::default(), sum);
        Rate { wall: done as f64 / start.elapsed().as_secs_f64(), processor: done as f64 / time.as_secs_f64() }
    })
}
