//! `/metrics`, in the OpenMetrics text form that Prometheus reads. Names that RocketMQ 5 has are RocketMQ's.

use axum::{
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric, text::encode},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
    registry::Registry,
};
use sluice_model::QueueId;

use super::{Rest, groups, pipelines::Counts, problem::Answer};
use crate::{failure::Failure, pipelines::Status};

const MEDIA_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

pub async fn metrics(State(rest): State<Rest>) -> Answer {
    let text = super::blocking(move || {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Exposition { rest }));
        let mut text = String::new();
        encode(&mut text, &registry)
            .map_err(|error| Failure::new(sluice_model::Kind::Internal, format!("metrics: {error}")))?;
        Ok(text)
    });
    let response: Response = ([(header::CONTENT_TYPE, MEDIA_TYPE)], text.await?).into_response();
    Ok(response)
}

/// Everything is read when it is asked for; nothing is counted twice.
struct Exposition {
    rest: Rest,
}

impl std::fmt::Debug for Exposition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Exposition")
    }
}

/// One of a pipeline's counts.
type Count = fn(&Counts) -> u64;
type Labels<'a> = Vec<(&'static str, &'a str)>;

impl Collector for Exposition {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let mut out = Out { encoder };
        self.broker(&mut out)?;
        self.topics(&mut out)?;
        self.lags(&mut out)?;
        self.pipelines(&mut out)?;
        self.ingresses(&mut out)?;
        self.filters(&mut out)
    }
}

impl Exposition {
    fn broker(&self, out: &mut Out<'_>) -> std::fmt::Result {
        let parts = &self.rest.parts;
        let (store, counts) = (parts.shell.reader.store(), parts.metrics.counts());
        let started = parts.metrics.started_at().0 as f64 / 1000.0;
        out.gauge("process_start_time_seconds", "When the process started, seconds since 1970", started)?;
        out.counter("sluice_messages_received", "Messages taken since the start", counts.messages_in)?;
        out.counter("rocketmq_messages_out", "Messages given to consumers since the start", counts.messages_out)?;
        out.counter("sluice_bytes_received", "Bytes of bodies taken since the start", counts.bytes_in)?;
        let offsets = [
            ("sluice_log_start_offset", "Where the log begins", store.start()),
            ("sluice_log_appended_offset", "Where the log ends", store.appended()),
            ("sluice_log_durable_offset", "How far the log is on disk", store.durable()),
            ("sluice_log_readable_offset", "How far consumers see the log", store.readable()),
            ("sluice_log_checkpoint_offset", "How far the last checkpoint is", store.checkpoint()),
        ];
        for (name, help, offset) in offsets {
            out.gauge(name, help, offset.0 as f64)?;
        }
        if let Ok(free) = store.free_bytes() {
            out.gauge("sluice_disk_free_bytes", "Bytes that the disk has left", free as f64)?;
        }
        let writable = parts.shell.is_writable() && store.refusal().is_none();
        out.gauge("sluice_log_writable", "1 while the log takes messages", f64::from(u8::from(writable)))?;
        out.gauge("sluice_connections", "Connections of RocketMQ clients", parts.sessions.len() as f64)?;
        out.gauge("sluice_pulls_waiting", "Pulls and pops that wait for a message", parts.pulls.len() as f64)?;
        let leased = parts.shell.reader.leased() as f64;
        out.gauge("sluice_messages_leased", "Messages that are popped and not acknowledged", leased)?;
        let halves = parts.shell.reader.halves(usize::MAX).len();
        out.gauge("rocketmq_half_messages", "Half messages that are not decided", halves as f64)
    }

    fn topics(&self, out: &mut Out<'_>) -> std::fmt::Result {
        let reader = &self.rest.parts.shell.reader;
        let (_, mut topics) = reader.topics();
        topics.sort_by(|a, b| a.name.cmp(&b.name));
        let sent: Vec<(String, u64)> = topics
            .iter()
            .map(|topic| {
                let queues = 0..topic.read_queues.max(topic.write_queues);
                let sent = queues.map(|queue| reader.bounds(&topic.name, QueueId(queue)).1.0).sum();
                (topic.name.to_string(), sent)
            })
            .collect();
        let rows = sent.iter().map(|(topic, sent)| (vec![("topic", topic.as_str())], *sent));
        out.counters("rocketmq_messages_in", "Messages ever stored in a topic", rows)
    }

    fn lags(&self, out: &mut Out<'_>) -> std::fmt::Result {
        let lags = groups::lags(&self.rest);
        let rows = lags.iter().map(|(group, topic, lag)| {
            (vec![("consumer_group", group.as_str()), ("topic", topic.as_str())], *lag as f64)
        });
        out.gauges("rocketmq_consumer_lag_messages", "Messages that a group has not consumed yet", rows)
    }

    fn pipelines(&self, out: &mut Out<'_>) -> std::fmt::Result {
        let pipelines = self.rest.parts.pipelines.list();
        let name = |at: usize| pipelines[at].spec.name.as_str();
        let sums: Vec<Counts> = pipelines.iter().map(|of| Counts::sum(&of.queues)).collect();
        let outcomes = |counts: &Counts| {
            [
                ("read", counts.read),
                ("sent", counts.sent),
                ("dropped", counts.dropped),
                ("dead_lettered", counts.dead_lettered),
                ("skipped", counts.skipped),
            ]
        };
        let rows = sums.iter().enumerate().flat_map(|(at, counts)| {
            outcomes(counts)
                .into_iter()
                .map(move |(outcome, count)| (vec![("pipeline", name(at)), ("outcome", outcome)], count))
        });
        out.counters("sluice_pipeline_records", "Records of a pipeline since its stages were started", rows)?;
        let events: [(&str, &str, Count); 2] = [
            ("sluice_pipeline_retries", "Records tried again", |counts| counts.retries),
            ("sluice_pipeline_traps", "Calls that ended a plugin's instance", |counts| counts.traps),
        ];
        for (metric, help, of) in events {
            let rows = sums.iter().enumerate().map(|(at, counts)| (vec![("pipeline", name(at))], of(counts)));
            out.counters(metric, help, rows)?;
        }
        let lags = pipelines.iter().map(|of| of.queues.iter().map(|queue| queue.lag).sum::<u64>());
        let rows = lags.enumerate().map(|(at, lag)| (vec![("pipeline", name(at))], lag as f64));
        out.gauges("sluice_pipeline_lag", "Messages that a pipeline has not read yet", rows)?;
        let running = pipelines.iter().map(|of| f64::from(u8::from(of.status == Status::Running)));
        let rows = running.enumerate().map(|(at, on)| (vec![("pipeline", name(at))], on));
        out.gauges("sluice_pipeline_running", "1 while a pipeline runs", rows)
    }

    fn ingresses(&self, out: &mut Out<'_>) -> std::fmt::Result {
        let bound = self.rest.parts.ingresses.list();
        let topics: Vec<String> = bound.iter().map(|(topic, _)| topic.to_string()).collect();
        let rows: Vec<ChainRow<'_>> =
            topics.iter().zip(&bound).map(|(topic, (_, of))| (vec![("topic", topic.as_str())], of.counts)).collect();
        chains(out, ("ingress", "a topic's ingress"), &rows)
    }

    fn filters(&self, out: &mut Out<'_>) -> std::fmt::Result {
        let bound = self.rest.parts.filters.list();
        let rows: Vec<ChainRow<'_>> = bound
            .iter()
            .map(|(of, it)| (vec![("consumer_group", of.group.as_str()), ("topic", of.topic.as_str())], it.counts))
            .collect();
        chains(out, ("filter", "a group's filter"), &rows)
    }
}

/// Where a chain is bound, and what it did.
type ChainRow<'a> = (Labels<'a>, crate::chains::Counts);

fn chains(out: &mut Out<'_>, (word, place): (&str, &str), rows: &[ChainRow<'_>]) -> std::fmt::Result {
    let outcomes = rows.iter().flat_map(|(labels, counts)| {
        let outcomes = [("sent", counts.sent), ("rejected", counts.rejected), ("failed", counts.failed)];
        outcomes.map(|(outcome, count)| ([labels.as_slice(), &[("outcome", outcome)]].concat(), count))
    });
    let help = format!("Messages that came to {place}; one that a plugin failed on counts as failed besides");
    out.counters(&format!("sluice_{word}_messages"), &help, outcomes)?;
    let traps = rows.iter().map(|(labels, counts)| (labels.clone(), counts.traps));
    out.counters(&format!("sluice_{word}_traps"), "Calls that ended a plugin's instance", traps)?;
    let busy = rows.iter().map(|(labels, counts)| (labels.clone(), counts.busy_ms));
    out.counters(&format!("sluice_{word}_busy_milliseconds"), &format!("Time spent in the plugins of {place}"), busy)
}

/// Writes families of metrics.
struct Out<'a> {
    encoder: DescriptorEncoder<'a>,
}

impl Out<'_> {
    fn gauge(&mut self, name: &str, help: &str, value: f64) -> std::fmt::Result {
        self.gauges(name, help, std::iter::once((Labels::new(), value)))
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) -> std::fmt::Result {
        self.counters(name, help, std::iter::once((Labels::new(), value)))
    }

    fn gauges<'l>(
        &mut self,
        name: &str,
        help: &str,
        rows: impl Iterator<Item = (Labels<'l>, f64)>,
    ) -> std::fmt::Result {
        self.family(name, help, MetricType::Gauge, rows.map(|(labels, value)| (labels, ConstGauge::new(value))))
    }

    /// The encoder adds `_total` to the name.
    fn counters<'l>(
        &mut self,
        name: &str,
        help: &str,
        rows: impl Iterator<Item = (Labels<'l>, u64)>,
    ) -> std::fmt::Result {
        self.family(name, help, MetricType::Counter, rows.map(|(labels, value)| (labels, ConstCounter::new(value))))
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
