//! `/metrics`, in the OpenMetrics text form that Prometheus reads. Names that RocketMQ 5 has are RocketMQ's.

mod measures;
mod out;
mod pipelines;

use axum::{
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, text::encode},
    registry::Registry,
};
use sluice_model::QueueId;

use self::out::{Labels, Out};
use super::{Rest, groups, problem::Answer};
use crate::{chains::Counts, checkers::Answers, failure::Failure};

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

impl Collector for Exposition {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let mut out = Out { encoder };
        self.broker(&mut out)?;
        self.topics(&mut out)?;
        self.lags(&mut out)?;
        pipelines::encode(&self.rest, &mut out)?;
        self.ingresses(&mut out)?;
        self.filters(&mut out)?;
        self.checkers(&mut out)?;
        measures::encode(&self.rest, &mut out)
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
        let halves = parts.shell.reader.half_count();
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

    fn checkers(&self, out: &mut Out<'_>) -> std::fmt::Result {
        let bound = self.rest.parts.checkers.list();
        let answers = bound.iter().flat_map(|(group, of)| {
            let Answers { commit, rollback, unknown, later, failed, unasked, .. } = of.answers;
            [
                ("commit", commit),
                ("rollback", rollback),
                ("unknown", unknown),
                ("later", later),
                ("failed", failed),
                ("unasked", unasked),
            ]
            .map(|(answer, count)| (vec![("producer_group", group.as_str()), ("answer", answer)], count))
        });
        out.counters("sluice_checker_answers", "What a checker said of half messages since it was bound", answers)?;
        let cpu =
            bound.iter().map(|(group, of)| (vec![("producer_group", group.as_str())], of.answers.cpu.as_secs_f64()));
        out.sums("sluice_checker_cpu_seconds", "Processor time of a checker", cpu)
    }
}

/// Where a chain is bound, and what it did.
type ChainRow<'a> = (Labels<'a>, Counts);

fn chains(out: &mut Out<'_>, (word, place): (&str, &str), rows: &[ChainRow<'_>]) -> std::fmt::Result {
    let outcomes = rows.iter().flat_map(|(labels, counts)| {
        let Counts { sent, rejected, failed, unasked, .. } = *counts;
        let outcomes = [("sent", sent), ("rejected", rejected), ("failed", failed), ("unasked", unasked)];
        outcomes.map(|(outcome, count)| ([labels.as_slice(), &[("outcome", outcome)]].concat(), count))
    });
    let help = format!(
        "Messages that came to {place}; one that a plugin failed on, or that none was asked about, counts as such besides"
    );
    out.counters(&format!("sluice_{word}_messages"), &help, outcomes)?;
    let traps = rows.iter().map(|(labels, counts)| (labels.clone(), counts.traps));
    out.counters(&format!("sluice_{word}_traps"), "Calls that ended a plugin's instance", traps)?;
    let busy = rows.iter().map(|(labels, counts)| (labels.clone(), counts.busy_ms));
    out.counters(&format!("sluice_{word}_busy_milliseconds"), &format!("Time spent in the plugins of {place}"), busy)?;
    let cpu = rows.iter().map(|(labels, counts)| (labels.clone(), counts.cpu.as_secs_f64()));
    out.sums(&format!("sluice_{word}_cpu_seconds"), &format!("Processor time of the plugins of {place}"), cpu)
}
