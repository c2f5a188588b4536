//! Latencies in buckets whose width grows with the value: at most 1.6 % off, in 30 KiB.

use std::time::Duration;

use crate::Latency;

/// Buckets of each power of two.
const FINE_BITS: u32 = 6;
const FINE: usize = 1 << FINE_BITS;
const BUCKETS: usize = (64 - FINE_BITS as usize + 1) * FINE;

pub struct Histogram {
    counts: Vec<u64>,
    total: u64,
    max: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: vec![0; BUCKETS], total: 0, max: 0 }
    }
}

impl Histogram {
    pub fn record(&mut self, latency: Duration) {
        let nanos = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        self.counts[bucket(nanos)] += 1;
        self.total += 1;
        self.max = self.max.max(nanos);
    }

    pub fn merge(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
        self.total += other.total;
        self.max = self.max.max(other.max);
    }

    /// The latency that this share of all (0 to 1) did not exceed.
    pub fn quantile(&self, share: f64) -> Duration {
        let wanted = (share * self.total as f64).ceil() as u64;
        let mut seen = 0;
        for (at, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= wanted && seen > 0 {
                return Duration::from_nanos(upper(at).min(self.max));
            }
        }
        Duration::ZERO
    }

    pub fn max(&self) -> Duration {
        Duration::from_nanos(self.max)
    }

    /// How many were recorded.
    pub fn total(&self) -> u64 {
        self.total
    }

    pub fn latency(&self) -> Latency {
        let us = |latency: Duration| latency.as_nanos() as f64 / 1e3;
        Latency {
            p50_us: us(self.quantile(0.5)),
            p99_us: us(self.quantile(0.99)),
            p999_us: us(self.quantile(0.999)),
            max_us: us(self.max()),
        }
    }
}

fn bucket(value: u64) -> usize {
    let shift = (64 - value.leading_zeros()).saturating_sub(FINE_BITS + 1);
    // Values below 2 * FINE have a bucket each; above, the top bits choose.
    shift as usize * FINE + (value >> shift) as usize
}

/// The largest value of a bucket.
fn upper(bucket: usize) -> u64 {
    if bucket < 2 * FINE {
        return bucket as u64;
    }
    let shift = bucket / FINE - 1;
    let top = (bucket - shift * FINE) as u64;
    ((top + 1) << shift).wrapping_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_is_within_its_bucket() {
        for value in
            (0..64).flat_map(|bits| [(1u64 << bits) - 1, 1 << bits, (1 << bits) + (1 << bits) / 3]).chain([u64::MAX])
        {
            let at = bucket(value);
            assert!(at < BUCKETS && value <= upper(at), "{value}");
            assert!(at == 0 || value > upper(at - 1), "{value}");
            assert!((upper(at) - value) as f64 <= value as f64 / 60.0, "{value}");
        }
    }

    #[test]
    fn quantiles_of_a_thousand_values() {
        let mut all = Histogram::default();
        for half in [1..=500u64, 501..=1000] {
            let mut part = Histogram::default();
            half.for_each(|ms| part.record(Duration::from_millis(ms)));
            all.merge(&part);
        }
        for (share, ms) in [(0.5, 500.0), (0.99, 990.0), (0.999, 999.0)] {
            let found = all.quantile(share).as_secs_f64() * 1e3;
            assert!((found - ms).abs() <= ms * 0.02, "{share}: {found}");
        }
        assert_eq!(all.max(), Duration::from_millis(1000));
        assert_eq!(Histogram::default().quantile(0.5), Duration::ZERO);
    }
}
