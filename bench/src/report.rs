//! What came of a plan.

use std::{fmt, time::Duration};

use serde::Serialize;

use crate::{histogram::Histogram, process::Process};

const MIB: f64 = 1_048_576.0;

/// What came of a plan.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub messages: u64,
    /// Of bodies.
    pub bytes: u64,
    /// Requests that failed.
    pub failed: u64,
    pub seconds: f64,
    pub messages_per_second: f64,
    pub mib_per_second: f64,
    pub latency: Latency,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub process: Option<Process>,
}

/// Of requests, in microseconds.
#[derive(Clone, Debug, Serialize)]
pub struct Latency {
    pub p50_us: f64,
    pub p99_us: f64,
    pub p999_us: f64,
    pub max_us: f64,
}

/// What one worker did.
#[derive(Default)]
pub struct Tally {
    pub messages: u64,
    pub bytes: u64,
    pub failed: u64,
    pub latencies: Histogram,
}

impl Tally {
    pub fn merge(&mut self, other: &Self) {
        self.messages += other.messages;
        self.bytes += other.bytes;
        self.failed += other.failed;
        self.latencies.merge(&other.latencies);
    }

    pub fn report(&self, took: Duration, process: Option<Process>) -> Report {
        let seconds = took.as_secs_f64().max(1e-9);
        Report {
            messages: self.messages,
            bytes: self.bytes,
            failed: self.failed,
            seconds,
            messages_per_second: self.messages as f64 / seconds,
            mib_per_second: self.bytes as f64 / MIB / seconds,
            latency: self.latencies.latency(),
            process,
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Latency { p50_us, p99_us, p999_us, max_us } = &self.latency;
        writeln!(out, "messages    {} in {:.2} s, {} requests failed", self.messages, self.seconds, self.failed)?;
        writeln!(out, "throughput  {:.0} msg/s, {:.1} MiB/s", self.messages_per_second, self.mib_per_second)?;
        write!(out, "latency     p50 {p50_us:.0} us, p99 {p99_us:.0} us, p99.9 {p999_us:.0} us, max {max_us:.0} us")?;
        if let Some(Process { pid, cpu_seconds, peak_rss }) = &self.process {
            let rss = *peak_rss as f64 / MIB;
            write!(out, "\nprocess     {pid}: {cpu_seconds:.2} CPU seconds, at most {rss:.1} MiB of memory")?;
        }
        Ok(())
    }
}
