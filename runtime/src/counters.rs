//! What a stage and its steps did since the stage was opened.

use std::time::{Duration, Instant};

use crate::watch::processor_time;

/// Sums over a stage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Source records that were done with.
    pub read: u64,
    pub sent: u64,
    /// Source records that became no output without a failure.
    pub dropped: u64,
    pub dead_lettered: u64,
    /// Source records skipped after a failure.
    pub skipped: u64,
    pub retries: u64,
    /// Calls that ended an instance.
    pub traps: u64,
    /// Time in plugins, by the clock on the wall.
    pub busy: Duration,
    /// Time on the processor of all steps.
    pub cpu: Duration,
    /// Of the records that were done with: from their storing to the commit of what came of them. Counted in whole milliseconds.
    pub latency: Latency,
}

/// Sums over one step of a stage. What is tried again counts again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StepCounters {
    /// Records that came to it, and timers that fired.
    pub read: u64,
    /// Records that left it.
    pub sent: u64,
    /// Records that it failed on.
    pub failed: u64,
    /// Calls that ended an instance.
    pub traps: u64,
    /// Time on the processor: of its calls, and of starting instances in the place of those that ended.
    pub cpu: Duration,
    /// What of it calls had that ended their instance.
    pub wasted: Duration,
    /// Memory of its instance, bytes; 0 while it has none.
    pub memory: u64,
    /// Of its calls, by the clock on the wall.
    pub calls: Latency,
}

/// One step of a stage, and what it did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepStatus {
    pub name: String,
    /// Lower-case hexadecimal SHA-256 of the plugin.
    pub digest: String,
    pub counters: StepCounters,
}

const BUCKETS: usize = 18;

/// How often something took how long.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Latency {
    /// By [`Latency::BOUNDS`]; the last of them is of what took longer than all.
    counts: [u64; BUCKETS + 1],
    sum: Duration,
}

impl Latency {
    /// The longest time of each bucket but the last.
    pub const BOUNDS: [Duration; BUCKETS] = [
        Duration::from_micros(10),
        Duration::from_micros(25),
        Duration::from_micros(50),
        Duration::from_micros(100),
        Duration::from_micros(250),
        Duration::from_micros(500),
        Duration::from_millis(1),
        Duration::from_micros(2_500),
        Duration::from_millis(5),
        Duration::from_millis(10),
        Duration::from_millis(25),
        Duration::from_millis(50),
        Duration::from_millis(100),
        Duration::from_millis(250),
        Duration::from_secs(1),
        Duration::from_secs(5),
        Duration::from_secs(30),
        Duration::from_secs(300),
    ];

    /// So many took so long, each of them.
    pub fn record(&mut self, took: Duration, count: u64) {
        self.counts[Self::BOUNDS.partition_point(|bound| *bound < took)] += count;
        self.sum = self.sum.saturating_add(took.saturating_mul(u32::try_from(count).unwrap_or(u32::MAX)));
    }

    pub fn add(&mut self, other: &Latency) {
        for (count, more) in self.counts.iter_mut().zip(other.counts) {
            *count += more;
        }
        self.sum = self.sum.saturating_add(other.sum);
    }

    /// How many fell into each bucket; one more than there are bounds.
    #[must_use]
    pub fn counts(&self) -> &[u64] {
        &self.counts
    }

    #[must_use]
    pub fn sum(&self) -> Duration {
        self.sum
    }
}

impl std::iter::Sum for Counters {
    fn sum<I: Iterator<Item = Counters>>(all: I) -> Counters {
        all.fold(Counters::default(), |mut sum, of| {
            sum.latency.add(&of.latency);
            Counters {
                read: sum.read + of.read,
                sent: sum.sent + of.sent,
                dropped: sum.dropped + of.dropped,
                dead_lettered: sum.dead_lettered + of.dead_lettered,
                skipped: sum.skipped + of.skipped,
                retries: sum.retries + of.retries,
                traps: sum.traps + of.traps,
                busy: sum.busy + of.busy,
                cpu: sum.cpu + of.cpu,
                latency: sum.latency,
            }
        })
    }
}

impl StepCounters {
    pub fn add(&mut self, other: &StepCounters) {
        self.read += other.read;
        self.sent += other.sent;
        self.failed += other.failed;
        self.traps += other.traps;
        self.cpu = self.cpu.saturating_add(other.cpu);
        self.wasted = self.wasted.saturating_add(other.wasted);
        self.memory += other.memory;
        self.calls.add(&other.calls);
    }

    /// A call that began with `meter` is over; `ended`: and its instance with it, by its own fault.
    pub(crate) fn spent(&mut self, meter: &Meter, ended: bool) {
        let cpu = Duration::from_nanos(processor_time().saturating_sub(meter.processor));
        self.cpu = self.cpu.saturating_add(cpu);
        if ended {
            self.traps += 1;
            self.wasted = self.wasted.saturating_add(cpu);
        }
        self.calls.record(meter.wall.elapsed(), 1);
    }
}

impl Counters {
    /// Records with these times of storing are done with at `now`, milliseconds since 1970.
    pub(crate) fn done(&mut self, stored_at: impl Iterator<Item = u64>, now: u64) {
        // Neighbours were often stored at the same time.
        let mut run = (0, 0);
        for at in stored_at.chain([u64::MAX]) {
            if at == run.0 {
                run.1 += 1;
                continue;
            }
            if run.1 > 0 {
                self.latency.record(Duration::from_millis(now.saturating_sub(run.0)), run.1);
            }
            run = (at, 1);
        }
    }
}

/// What the clocks said when a call began. Reading them costs some hundred nanoseconds.
pub(crate) struct Meter {
    wall: Instant,
    processor: u64,
}

impl Meter {
    pub(crate) fn start() -> Self {
        Self { wall: Instant::now(), processor: processor_time() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_falls_into_the_first_bucket_that_holds_it() {
        let mut latency = Latency::default();
        latency.record(Duration::from_micros(10), 1);
        latency.record(Duration::from_micros(11), 2);
        latency.record(Duration::from_secs(301), 1);
        assert_eq!((latency.counts()[..3].to_vec(), latency.counts()[BUCKETS]), (vec![1, 2, 0], 1));
        assert_eq!(latency.sum(), Duration::from_micros(32) + Duration::from_secs(301));
    }

    #[test]
    fn neighbours_with_one_time_are_counted_together_and_none_is_lost() {
        let mut counters = Counters::default();
        counters.done([1000, 1000, 1003, 1000].into_iter(), 1004);
        let counts = counters.latency.counts();
        assert_eq!((counts[6], counts[8], counts.iter().sum::<u64>()), (1, 3, 4));
        assert_eq!(counters.latency.sum(), Duration::from_millis(13));
    }
}
