//! What plugins measure themselves, each metric under the name that its plugin gave it, as a label.

use std::sync::Arc;

use super::out::{Distribution, Labels, Out};
use crate::{
    measures::{Histogram, Measure},
    observer::Logs,
    rest::Rest,
};

/// Where plugins run: the labels that name it.
type Place = (Vec<(&'static str, String)>, Arc<Logs>);

/// One metric of a step: its place, its step, its name, and what it stands at.
type Row<'a> = (&'a Labels<'a>, &'a str, &'a str, &'a Measure);

/// Everything that plugins measured, wherever they run.
pub fn encode(rest: &Rest, out: &mut Out<'_>) -> std::fmt::Result {
    let places = places(rest);
    let named: Vec<(Labels<'_>, &Logs)> = places
        .iter()
        .map(|(labels, logs)| (labels.iter().map(|(label, value)| (*label, value.as_str())).collect(), &**logs))
        .collect();
    let all: Vec<_> = named.iter().map(|(labels, logs)| (labels, logs.measures.all())).collect();
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
    let refused = named.iter().map(|(labels, logs)| (labels.clone(), logs.measures.refused()));
    let help = "Values that plugins measured and that were not taken: too many metrics, or no number for their kind";
    out.counters("sluice_plugin_metric_values_refused", help, refused)
}

fn places(rest: &Rest) -> Vec<Place> {
    let parts = &rest.parts;
    let pipelines = parts.pipelines.list().into_iter().map(|of| (vec![("pipeline", of.name)], of.logs));
    let ingresses = parts.ingresses.list().into_iter();
    let ingresses = ingresses.map(|(topic, of)| (vec![("ingress", topic.to_string())], of.logs));
    let filters = parts.filters.list().into_iter();
    let filters =
        filters.map(|(at, of)| (vec![("filter", at.group.to_string()), ("topic", at.topic.to_string())], of.logs));
    let checkers = parts.checkers.list().into_iter();
    let checkers = checkers.map(|(group, of)| (vec![("checker", group.to_string())], of.logs));
    pipelines.chain(ingresses).chain(filters).chain(checkers).collect()
}

fn labels<'a>((place, step, name, _): Row<'a>) -> Labels<'a> {
    [place.as_slice(), &[("step", step), ("name", name)]].concat()
}

fn distribution(histogram: &Histogram) -> Distribution {
    let bounds = Histogram::BOUNDS.iter().copied().chain([f64::INFINITY]);
    Distribution { buckets: bounds.zip(histogram.counts).collect(), sum: histogram.sum }
}
