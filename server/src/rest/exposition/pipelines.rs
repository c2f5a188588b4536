//! What pipelines and their steps did.

use sluice_broker::Reader;
use sluice_runtime::Latency;

use super::out::{Distribution, Labels, Out};
use crate::{
    pipelines::{Description, Status},
    rest::{
        Rest,
        logs::{self, LineCounts},
        pipelines::{Counts, lags},
        usage::{self, Usage},
    },
};

/// Digits of a plugin's digest in a label.
const DIGEST_LEN: usize = 12;

/// One of a pipeline's counts.
type Count = fn(&Counts) -> u64;

/// A pipeline with the sums over its queues.
struct Sums {
    of: Description,
    counts: Counts,
    steps: Vec<Usage>,
    latency: Latency,
    /// By queue of the source.
    lags: Vec<(String, u64)>,
}

pub fn encode(rest: &Rest, out: &mut Out<'_>) -> std::fmt::Result {
    let reader = &rest.parts.shell.reader;
    let sums: Vec<Sums> = rest.parts.pipelines.list().into_iter().map(|of| Sums::of(reader, of)).collect();
    pipelines(&sums, out)?;
    steps(&sums, out)?;
    lines(&sums, out)
}

impl Sums {
    fn of(reader: &Reader, of: Description) -> Self {
        let mut latency = Latency::default();
        of.queues.iter().for_each(|queue| latency.add(&queue.counters.latency));
        let lags = lags(reader, &of).into_iter().map(|(queue, lag)| (queue.to_string(), lag)).collect();
        Self { counts: Counts::sum(&of.queues), steps: usage::of(&of.queues), latency, lags, of }
    }

    fn name(&self) -> Labels<'_> {
        vec![("pipeline", self.of.name.as_str())]
    }
}

fn pipelines(sums: &[Sums], out: &mut Out<'_>) -> std::fmt::Result {
    let outcomes = |counts: &Counts| {
        [
            ("read", counts.read),
            ("sent", counts.sent),
            ("dropped", counts.dropped),
            ("dead_lettered", counts.dead_lettered),
            ("skipped", counts.skipped),
        ]
    };
    let rows = sums.iter().flat_map(|of| {
        outcomes(&of.counts)
            .into_iter()
            .map(|(outcome, count)| ([of.name(), vec![("outcome", outcome)]].concat(), count))
    });
    out.counters("sluice_pipeline_records", "Records of a pipeline since its stages were started", rows)?;
    let events: [(&str, &str, Count); 2] = [
        ("sluice_pipeline_retries", "Records tried again", |counts| counts.retries),
        ("sluice_pipeline_traps", "Calls that ended a plugin's instance", |counts| counts.traps),
    ];
    for (metric, help, count) in events {
        out.counters(metric, help, sums.iter().map(|of| (of.name(), count(&of.counts))))?;
    }
    let lost = |of: &Sums| of.of.queues.iter().map(|queue| queue.lost).sum::<u64>();
    let help = "Messages of the source that retention took before a pipeline read them";
    out.counters("sluice_pipeline_lost_messages", help, sums.iter().map(|of| (of.name(), lost(of))))?;
    let lag = |of: &Sums| of.lags.iter().map(|(_, lag)| lag).sum::<u64>() as f64;
    let rows = sums.iter().map(|of| (of.name(), lag(of)));
    out.gauges("sluice_pipeline_lag", "Messages that a pipeline has not read yet, whether it runs or not", rows)?;
    let rows = sums.iter().flat_map(|of| {
        of.lags.iter().map(|(queue, lag)| ([of.name(), vec![("queue", queue.as_str())]].concat(), *lag as f64))
    });
    out.gauges("sluice_pipeline_queue_lag", "The same by queue of its source", rows)?;
    let rows = sums.iter().map(|of| (of.name(), f64::from(u8::from(of.of.status == Status::Running))));
    out.gauges("sluice_pipeline_running", "1 while a pipeline runs", rows)?;
    let rows = sums.iter().map(|of| (of.name(), distribution(&of.latency)));
    let help = "From a record's storing in the source to the commit of what came of it, in whole milliseconds";
    out.histograms("sluice_pipeline_latency_seconds", help, rows)
}

fn steps(sums: &[Sums], out: &mut Out<'_>) -> std::fmt::Result {
    // The name alone does not tell two steps apart that run the same plugin.
    let places: Vec<(Vec<String>, &Sums)> =
        sums.iter().map(|of| (of.steps.iter().map(|step| step.position.to_string()).collect(), of)).collect();
    let each = || {
        places.iter().flat_map(|(positions, of)| {
            positions.iter().zip(&of.steps).map(|(position, step)| {
                let digest = step.digest.get(..DIGEST_LEN).unwrap_or(&step.digest);
                let own = vec![("step", step.name.as_str()), ("position", position.as_str()), ("plugin", digest)];
                ([of.name(), own].concat(), &step.counters)
            })
        })
    };
    let rows = each().flat_map(|(labels, counters)| {
        let outcomes = [("in", counters.read), ("out", counters.sent), ("failed", counters.failed)];
        outcomes.map(|(outcome, count)| ([labels.as_slice(), &[("outcome", outcome)]].concat(), count))
    });
    let help = "Records that came to a step, left it, and that it failed on; what is tried again counts again";
    out.counters("sluice_pipeline_step_records", help, rows)?;
    let rows = each().map(|(labels, counters)| (labels, counters.traps));
    out.counters("sluice_pipeline_step_traps", "Calls that ended an instance of a step", rows)?;
    let rows = each().map(|(labels, counters)| (labels, counters.cpu.as_secs_f64()));
    out.sums("sluice_pipeline_step_cpu_seconds", "Processor time of a step's plugin", rows)?;
    let rows = each().map(|(labels, counters)| (labels, counters.memory as f64));
    out.gauges("sluice_pipeline_step_memory_bytes", "Memory of a step's instances, one for each queue", rows)?;
    let rows = each().map(|(labels, counters)| (labels, distribution(&counters.calls)));
    out.histograms("sluice_pipeline_step_call_seconds", "Calls of a step's plugin, each with a batch of records", rows)
}

fn lines(sums: &[Sums], out: &mut Out<'_>) -> std::fmt::Result {
    let rows = sums.iter().flat_map(|of| {
        let LineCounts { written, sent, lost } = logs::line_counts(&of.of.logs);
        [("written", written), ("sent", sent), ("lost", lost)]
            .map(|(outcome, count)| ([of.name(), vec![("outcome", outcome)]].concat(), count))
    });
    let help = "Lines of a pipeline's plugins: written, sent to the topic of its logs, and lost on the way there";
    out.counters("sluice_pipeline_log_lines", help, rows)
}

fn distribution(latency: &Latency) -> Distribution {
    let bounds = Latency::BOUNDS.iter().map(std::time::Duration::as_secs_f64).chain([f64::INFINITY]);
    Distribution { buckets: bounds.zip(latency.counts().iter().copied()).collect(), sum: latency.sum().as_secs_f64() }
}
