//! Time of a trivial filter for each record of 100 bytes, packing included: `cargo run --release -p sluice-runtime --example filter_cost`.

use std::error::Error;
use std::path::Path;
use std::time::{Duration, Instant};

use sluice_guest_build::Guests;
use sluice_runtime::{Batch, Config, Record, Runtime, Setup};

const ROUND: Duration = Duration::from_millis(200);

fn main() -> Result<(), Box<dyn Error>> {
    let guest = Guests::at(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/guest")).build()?;
    let started = Instant::now();
    let runtime = Runtime::new(Config::default())?;
    println!("runtime starts in {:?}", started.elapsed());
    let (plugin, report) = runtime.load("guest", &guest[0].component)?;
    println!("{} KiB compile in {} ms", report.size / 1024, report.compile_ms);
    let mut instance = plugin.instance(Setup::default())?;
    let record = Record { value: vec![b'x'; 100].into(), ..Record::default() };
    let mut batch = Batch::new(report.manifest.needs, 0);
    for size in [1, 16, 256, 1024] {
        let mut best = f64::MAX;
        for _ in 0..5 {
            let (start, mut calls) = (Instant::now(), 0);
            while start.elapsed() < ROUND {
                for _ in 0..16 {
                    batch.clear();
                    for _ in 0..size {
                        assert!(batch.push(&record, 0), "the batch is full");
                    }
                    let verdict = instance.filter(&batch)?;
                    assert!(verdict.keeps(0), "the filter keeps everything");
                    calls += 1;
                }
            }
            best = best.min(start.elapsed().as_nanos() as f64 / f64::from(calls * size));
        }
        println!("batches of {size}: {best:.1} ns a record");
    }
    Ok(())
}
