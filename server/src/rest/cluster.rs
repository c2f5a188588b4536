//! `/cluster` and `/brokers`: who serves, and how it is.

use std::time::Duration;

use axum::{Json, extract::State, http::Method, response::IntoResponse};
use schemars::JsonSchema;
use serde::Serialize;
use sluice_broker::Durability;

use super::{
    Rest,
    input::{Path, time_text},
    page::Page,
    problem::Answer,
    routes::Routes,
};
use crate::{
    failure::Failure,
    units::{self, duration_text},
};

#[derive(Debug, Serialize, JsonSchema)]
struct ClusterView {
    name: String,
    version: &'static str,
    /// Name servers that its brokers register with, as host and port. One on loopback is on the broker's own machine.
    name_servers: Vec<String>,
    brokers: Vec<BrokerView>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct BrokerView {
    name: String,
    cluster: String,
    /// Where clients reach it.
    address: String,
    version: &'static str,
    started_at: String,
    uptime: String,
    /// Whether its log takes messages.
    writable: bool,
    /// Why it does not.
    #[serde(skip_serializing_if = "Option::is_none")]
    refusal: Option<String>,
    topics: usize,
    pipelines: usize,
    connections: usize,
    pulls_waiting: usize,
    messages: TrafficView,
    log: LogView,
    config: ConfigView,
}

/// Counts since the start, and rates over about ten seconds.
#[derive(Debug, Serialize, JsonSchema)]
struct TrafficView {
    #[serde(rename = "in")]
    taken: u64,
    #[serde(rename = "out")]
    given: u64,
    bytes_in: u64,
    in_per_second: f64,
    out_per_second: f64,
}

/// Offsets of the log, bytes.
#[derive(Debug, Serialize, JsonSchema)]
struct LogView {
    start: u64,
    appended: u64,
    durable: u64,
    readable: u64,
    checkpoint: u64,
    /// Bytes that the disk has left; null when it does not say.
    disk_free: Option<u64>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct ConfigView {
    auto_create_topics: bool,
    default_queues: u32,
    /// `sync` or `async`
    durability: &'static str,
    max_body: String,
    transaction_timeout: String,
    transaction_interval: String,
    transaction_checks: u32,
    member_timeout: String,
}

pub fn routes(routes: Routes) -> Routes {
    routes
        .serve(
            Method::GET,
            "/cluster",
            "Describe the cluster.",
            |o| o.answers::<ClusterView>(200, "The cluster as this broker sees it."),
            cluster,
        )
        .serve(Method::GET, "/brokers", "List brokers.", |o| o.lists::<BrokerView>("Brokers."), list)
        .serve(
            Method::GET,
            "/brokers/{name}",
            "Describe a broker.",
            |o| o.answers::<BrokerView>(200, "The broker."),
            one,
        )
}

async fn cluster(State(rest): State<Rest>) -> Answer {
    let name = rest.parts.shell.reader.config().cluster.clone();
    let name_servers = rest.parts.registrar.addresses.clone();
    let brokers = vec![view(&rest)];
    Ok(Json(ClusterView { name, version: env!("CARGO_PKG_VERSION"), name_servers, brokers }).into_response())
}

async fn list(State(rest): State<Rest>) -> Answer {
    Ok(Json(Page::whole(vec![view(&rest)])).into_response())
}

async fn one(State(rest): State<Rest>, Path(name): Path<String>) -> Answer {
    let view = view(&rest);
    if view.name != name {
        return Err(Failure::not_found("broker", name).into());
    }
    Ok(Json(view).into_response())
}

fn view(rest: &Rest) -> BrokerView {
    let (reader, metrics) = (&rest.parts.shell.reader, &rest.parts.metrics);
    let (config, store) = (reader.config(), reader.store());
    let (counts, rates) = (metrics.counts(), metrics.rates());
    let ms = |ms: i64| duration_text(Duration::from_millis(ms.max(0).unsigned_abs()));
    let refusal = store.poisoned().or_else(|| store.refusal().map(|refusal| refusal.to_string()));
    BrokerView {
        name: config.name.clone(),
        cluster: config.cluster.clone(),
        address: config.advertised.to_string(),
        version: env!("CARGO_PKG_VERSION"),
        started_at: time_text(metrics.started_at()),
        uptime: duration_text(Duration::from_secs(metrics.uptime_ms() / 1000)),
        writable: refusal.is_none() && rest.parts.shell.is_writable(),
        refusal,
        topics: reader.topics().1.len(),
        pipelines: rest.parts.pipelines.list().len(),
        connections: rest.parts.sessions.len(),
        pulls_waiting: rest.parts.pulls.len(),
        messages: TrafficView {
            taken: counts.messages_in,
            given: counts.messages_out,
            bytes_in: counts.bytes_in,
            in_per_second: rates.in_per_second,
            out_per_second: rates.out_per_second,
        },
        log: LogView {
            start: store.start().0,
            appended: store.appended().0,
            durable: store.durable().0,
            readable: store.readable().0,
            checkpoint: store.checkpoint().0,
            disk_free: store.free_bytes().ok(),
        },
        config: ConfigView {
            auto_create_topics: config.auto_create_topics,
            default_queues: config.default_queues,
            durability: match config.durability {
                Durability::Sync => "sync",
                Durability::Async => "async",
            },
            max_body: units::size_text(config.max_body as u64),
            transaction_timeout: ms(config.transaction_timeout_ms),
            transaction_interval: ms(config.transaction_interval_ms),
            transaction_checks: config.transaction_checks,
            member_timeout: ms(config.member_timeout_ms),
        },
    }
}
