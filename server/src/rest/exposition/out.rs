//! Families of metrics.

use prometheus_client::{
    encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder, NoLabelSet},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
};

pub type Labels<'a> = Vec<(&'static str, &'a str)>;

/// Writes families of metrics.
pub struct Out<'a> {
    pub encoder: DescriptorEncoder<'a>,
}

/// How often values fell into buckets.
pub struct Distribution {
    /// The largest value of each bucket, and how many fell into it.
    pub buckets: Vec<(f64, u64)>,
    pub sum: f64,
}

impl Out<'_> {
    pub fn gauge(&mut self, name: &str, help: &str, value: f64) -> std::fmt::Result {
        self.gauges(name, help, std::iter::once((Labels::new(), value)))
    }

    pub fn counter(&mut self, name: &str, help: &str, value: u64) -> std::fmt::Result {
        self.counters(name, help, std::iter::once((Labels::new(), value)))
    }

    pub fn gauges<'l>(
        &mut self,
        name: &str,
        help: &str,
        rows: impl Iterator<Item = (Labels<'l>, f64)>,
    ) -> std::fmt::Result {
        self.family(name, help, MetricType::Gauge, rows.map(|(labels, value)| (labels, ConstGauge::new(value))))
    }

    /// The encoder adds `_total` to the name.
    pub fn counters<'l>(
        &mut self,
        name: &str,
        help: &str,
        rows: impl Iterator<Item = (Labels<'l>, u64)>,
    ) -> std::fmt::Result {
        self.family(name, help, MetricType::Counter, rows.map(|(labels, value)| (labels, ConstCounter::new(value))))
    }

    /// Counters of what comes in parts.
    pub fn sums<'l>(
        &mut self,
        name: &str,
        help: &str,
        rows: impl Iterator<Item = (Labels<'l>, f64)>,
    ) -> std::fmt::Result {
        self.family(name, help, MetricType::Counter, rows.map(|(labels, value)| (labels, ConstCounter::new(value))))
    }

    pub fn histograms<'l>(
        &mut self,
        name: &str,
        help: &str,
        rows: impl Iterator<Item = (Labels<'l>, Distribution)>,
    ) -> std::fmt::Result {
        self.family(name, help, MetricType::Histogram, rows)
    }

    fn family<'l, M: EncodeMetric>(
        &mut self,
        name: &str,
        help: &str,
        kind: MetricType,
        rows: impl Iterator<Item = (Labels<'l>, M)>,
    ) -> std::fmt::Result {
        let mut metrics = self.encoder.encode_descriptor(name, help, None, kind)?;
        for (labels, metric) in rows {
            if labels.is_empty() {
                // A family of one: an empty set of labels would be written as `{}`.
                return metric.encode(metrics);
            }
            metric.encode(metrics.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

impl EncodeMetric for Distribution {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> std::fmt::Result {
        let count = self.buckets.iter().map(|(_, count)| count).sum();
        encoder.encode_histogram::<NoLabelSet>(self.sum, count, &self.buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Histogram
    }
}
