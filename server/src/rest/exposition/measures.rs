//! What plugins measure themselves, each metric under the name that its plugin gave it, as a label.

use super::out::{Distribution, Labels, Out};
use crate::measures::{Histogram, Measure, Measures};

/// One metric of a step: its step, its name, and what it stands at.
type Row<'a> = (&'a Labels<'a>, &'a str, &'a str, &'a Measure);

/// Everything that was measured somewhere, which the labels name.
pub fn encode(places: &[(Labels<'_>, &Measures)], out: &mut Out<'_>) -> std::fmt::Result {
    let all: Vec<_> = places.iter().map(|(labels, measures)| (labels, measures.all())).collect();
    let rows = || {
        all.iter().flat_map(|(labels, measures)| {
            measures.iter().map(|(step, name, measure)| (*labels, step.as_str(), name.as_str(), measure))
        })
    };
    let counters = rows().filter_map(|row| match row.3 {
        Measure::Counter(sum) => Some((labels(row), *sum)),
        _ => None,
    });
    out.sums("sluice_plugin_counter", "Counters of plugins, over all queues", counters)?;
    let gauges = rows().filter_map(|row| match row.3 {
        Measure::Gauge(by_queue) => Some((labels(row), by_queue.values().sum())),
        _ => None,
    });
    out.gauges("sluice_plugin_gauge", "Gauges of plugins, added up over all queues", gauges)?;
    let histograms = rows().filter_map(|row| match row.3 {
        Measure::Histogram(histogram) => Some((labels(row), distribution(histogram))),
        _ => None,
    });
    out.histograms("sluice_plugin_histogram", "Histograms of plugins, over all queues", histograms)?;
    let refused = places.iter().map(|(labels, measures)| (labels.clone(), measures.refused()));
    let help = "Values that plugins measured and that were not taken: too many metrics, or no number for their kind";
    out.counters("sluice_plugin_metric_values_refused", help, refused)
}

fn labels<'a>((place, step, name, _): Row<'a>) -> Labels<'a> {
    [place.as_slice(), &[("step", step), ("name", name)]].concat()
}

fn distribution(histogram: &Histogram) -> Distribution {
    let bounds = Histogram::BOUNDS.iter().copied().chain([f64::INFINITY]);
    Distribution { buckets: bounds.zip(histogram.counts).collect(), sum: histogram.sum }
}
