//! How many records a second pipelines take in and put out.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use schemars::JsonSchema;
use serde::Serialize;
use tokio::sync::watch;

use crate::pipelines::{Description, Pipelines};

const PERIOD: Duration = Duration::from_secs(1);
/// Weight of the newest second.
const NEWEST: f64 = 0.2;

/// Records a second over about the last ten seconds.
#[derive(Clone, Copy, Debug, Default, Serialize, JsonSchema)]
pub struct Rates {
    pub in_per_second: f64,
    pub out_per_second: f64,
}

#[derive(Clone, Copy)]
struct Sample {
    at: Instant,
    version: u64,
    read: u64,
    sent: u64,
    rates: Rates,
}

/// The rates of all pipelines.
#[derive(Default)]
pub struct PipelineRates {
    by_name: Mutex<BTreeMap<String, Sample>>,
}

impl PipelineRates {
    pub fn of(&self, name: &str) -> Rates {
        self.by_name.lock().get(name).map(|sample| sample.rates).unwrap_or_default()
    }

    fn take(&self, pipelines: &[Description], now: Instant) {
        let mut by_name = self.by_name.lock();
        by_name.retain(|name, _| pipelines.iter().any(|of| of.name == *name));
        for of in pipelines {
            let read = of.queues.iter().map(|queue| queue.counters.read).sum();
            let sent = of.queues.iter().map(|queue| queue.counters.sent).sum();
            let fresh = Sample { at: now, version: of.version, read, sent, rates: Rates::default() };
            let sample = match by_name.get(&of.name) {
                // The counters of a replaced pipeline begin anew.
                Some(last) if last.version == of.version => last.followed_by(fresh),
                _ => fresh,
            };
            by_name.insert(of.name.clone(), sample);
        }
    }
}

impl Sample {
    fn followed_by(self, next: Self) -> Self {
        let seconds = next.at.duration_since(self.at).as_secs_f64().max(0.001);
        let smooth =
            |rate: f64, now: u64, before: u64| rate + NEWEST * (now.saturating_sub(before) as f64 / seconds - rate);
        let rates = Rates {
            in_per_second: smooth(self.rates.in_per_second, next.read, self.read),
            out_per_second: smooth(self.rates.out_per_second, next.sent, self.sent),
        };
        Self { rates, ..next }
    }
}

/// Samples once a second until the server stops.
pub async fn sample(rates: Arc<PipelineRates>, pipelines: Arc<Pipelines>, mut stopping: watch::Receiver<bool>) {
    let mut ticks = tokio::time::interval(PERIOD);
    loop {
        tokio::select! {
            _ = ticks.tick() => rates.take(&pipelines.list(), Instant::now()),
            _ = stopping.wait_for(|stop| *stop) => return,
        }
    }
}
