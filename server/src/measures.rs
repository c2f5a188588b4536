//! What plugins measure: counters, gauges and histograms that they register themselves.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use sluice_runtime::{MetricKind, Observation};

/// Metrics kept of each pipeline; with 256 pipelines there are 65,536 at the most.
const METRICS_LIMIT: usize = 256;
const BUCKETS: usize = 28;

/// What the plugins of one pipeline or binding measured, over all its queues.
#[derive(Default)]
pub struct Measures {
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    /// By step, and by the name that its plugin gave.
    by_step: BTreeMap<String, BTreeMap<String, Measure>>,
    count: usize,
    refused: u64,
}

/// One metric.
#[derive(Clone, Debug, PartialEq)]
pub enum Measure {
    Counter(f64),
    /// By queue.
    Gauge(BTreeMap<u32, f64>),
    Histogram(Box<Histogram>),
}

/// Values in buckets.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Histogram {
    /// By [`Histogram::BOUNDS`]; the last is of what is larger than all.
    pub counts: [u64; BUCKETS + 1],
    pub sum: f64,
}

impl Histogram {
    /// The largest value of each bucket but the last. What plugins measure may be anything, so they go far.
    pub const BOUNDS: [f64; BUCKETS] = [
        0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0,
        1e3, 2.5e3, 5e3, 1e4, 2.5e4, 5e4, 1e5, 2.5e5, 5e5, 1e6,
    ];
}

impl Measure {
    fn new(kind: MetricKind) -> Self {
        match kind {
            MetricKind::Counter => Self::Counter(0.0),
            MetricKind::Gauge => Self::Gauge(BTreeMap::new()),
            MetricKind::Histogram => Self::Histogram(Box::default()),
        }
    }

    /// Whether the value fits here.
    fn take(&mut self, kind: MetricKind, queue: u32, value: f64) -> bool {
        match (self, kind) {
            (Self::Counter(sum), MetricKind::Counter) if value >= 0.0 => *sum += value,
            (Self::Gauge(by_queue), MetricKind::Gauge) => drop(by_queue.insert(queue, value)),
            (Self::Histogram(histogram), MetricKind::Histogram) => {
                histogram.counts[Histogram::BOUNDS.partition_point(|bound| *bound < value)] += 1;
                histogram.sum += value;
            }
            _ => return false,
        }
        true
    }
}

impl Measures {
    /// Takes a value. One that is not finite, a counter's that is negative, one under a name that has another kind already, and those of
    /// metrics beyond the limit are refused, and counted.
    pub fn take(&self, observation: &Observation<'_>) {
        let Observation { context, name, kind, value } = *observation;
        let mut kept = self.kept.lock();
        let room = kept.count < METRICS_LIMIT;
        if !value.is_finite() {
            kept.refused += 1;
            return;
        }
        if let Some(known) = kept.by_step.get_mut(context.step.as_str()).and_then(|step| step.get_mut(name)) {
            let fits = known.take(kind, context.queue, value);
            kept.refused += u64::from(!fits);
            return;
        }
        let mut measure = Measure::new(kind);
        if !room || !measure.take(kind, context.queue, value) {
            kept.refused += 1;
            return;
        }
        kept.by_step.entry(context.step.clone()).or_default().insert(name.to_owned(), measure);
        kept.count += 1;
    }

    /// Every metric, by step and name.
    pub fn all(&self) -> Vec<(String, String, Measure)> {
        let kept = self.kept.lock();
        let steps = kept.by_step.iter();
        let named = steps.flat_map(|(step, names)| names.iter().map(move |(name, measure)| (step, name, measure)));
        named.map(|(step, name, measure)| (step.clone(), name.clone(), measure.clone())).collect()
    }

    /// Values that were refused.
    pub fn refused(&self) -> u64 {
        self.kept.lock().refused
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sluice_runtime::Context;

    fn take(measures: &Measures, queue: u32, name: &str, kind: MetricKind, value: f64) {
        let context = Context { step: "s".to_owned(), queue, ..Context::default() };
        measures.take(&Observation { context: &context, name, kind, value });
    }

    #[test]
    fn counters_and_histograms_are_summed_over_queues_and_gauges_have_the_last_value_of_each() {
        let measures = Measures::default();
        for (queue, value) in [(0, 1.0), (1, 2.0), (1, 4.0)] {
            take(&measures, queue, "count", MetricKind::Counter, value);
            take(&measures, queue, "depth", MetricKind::Gauge, value);
            take(&measures, queue, "size", MetricKind::Histogram, value);
        }
        let all = measures.all();
        assert_eq!(all[0], ("s".into(), "count".into(), Measure::Counter(7.0)));
        assert_eq!(all[1].2, Measure::Gauge(BTreeMap::from([(0, 1.0), (1, 4.0)])));
        let Measure::Histogram(sizes) = &all[2].2 else { panic!("{all:?}") };
        assert_eq!((sizes.sum, sizes.counts[9], sizes.counts[10], sizes.counts[11]), (7.0, 1, 1, 1));
    }

    #[test]
    fn what_makes_no_sense_or_is_too_much_is_refused() {
        let measures = Measures::default();
        take(&measures, 0, "m0", MetricKind::Counter, 1.0);
        take(&measures, 0, "m0", MetricKind::Counter, -1.0);
        take(&measures, 0, "m0", MetricKind::Gauge, 1.0);
        take(&measures, 0, "m0", MetricKind::Counter, f64::NAN);
        assert_eq!((measures.refused(), measures.all()[0].2.clone()), (3, Measure::Counter(1.0)));
        for at in 0..=METRICS_LIMIT {
            take(&measures, 0, &format!("m{at}"), MetricKind::Counter, 1.0);
        }
        assert_eq!((measures.all().len(), measures.refused()), (METRICS_LIMIT, 4));
    }
}
