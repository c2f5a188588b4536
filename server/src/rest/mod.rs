//! The REST door: topics, messages, groups, plugins, pipelines, checkers, and what monitoring asks.

mod audit;
mod bench;
mod bindings;
mod browse;
mod checkers;
mod cluster;
mod dead_letters;
mod explanation;
mod exposition;
mod filters;
mod follow;
mod groups;
mod guard;
mod health;
mod ingress;
mod input;
mod logs;
mod message;
mod page;
mod pipelines;
mod plugins;
mod probe;
mod problem;
mod produce;
mod rates;
mod revisions;
mod routes;
mod secrets;
mod state;
mod tail;
mod topics;
mod trace;
mod transactions;
mod trial;
mod usage;

use std::{
    future::Future,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use axum::{
    Json, Router,
    extract::State,
    http::{Method, Uri},
    response::{IntoResponse, Response},
    routing::get,
};
use serde::Serialize;
use serde_json::Value;
use tokio::{
    net::TcpListener,
    sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch},
};

use crate::{
    failure::{Failure, Result},
    priority,
    server::Parts,
};
use problem::Problem;
use rates::PipelineRates;
use routes::Routes;

/// Requests in work at one time.
const REQUESTS_LIMIT: usize = 1_024;
/// Open event streams.
const STREAMS_LIMIT: usize = 256;
/// Requests that run plugins at one time; others wait.
const GUESTS_LIMIT: usize = 8;

/// What the handlers share. Cheap to clone.
#[derive(Clone)]
struct Rest {
    parts: Parts,
    document: Arc<Value>,
    rates: Arc<PipelineRates>,
    requests: Arc<Semaphore>,
    streams: Arc<Semaphore>,
    /// For requests that run plugins.
    guests: Arc<Semaphore>,
    /// For the one that measures a plugin.
    measuring: Arc<Semaphore>,
    /// True when event streams are to end.
    stopping: watch::Receiver<bool>,
    /// The same for requests that run plugins: those ask no other servers any more.
    stopped: Arc<AtomicBool>,
}

/// Serves until `shutdown`; requests in work end, event streams are cut.
pub async fn serve(listener: TcpListener, parts: Parts, shutdown: impl Future<Output = ()> + Send + 'static) {
    let (stop, stopping) = watch::channel(false);
    let stopped = Arc::new(AtomicBool::new(false));
    let (routes, document) = api();
    let rest = Rest {
        rates: Arc::new(PipelineRates::default()),
        document: Arc::new(document),
        requests: Arc::new(Semaphore::new(REQUESTS_LIMIT)),
        streams: Arc::new(Semaphore::new(STREAMS_LIMIT)),
        guests: Arc::new(Semaphore::new(GUESTS_LIMIT)),
        measuring: Arc::new(Semaphore::new(1)),
        stopping: stopping.clone(),
        stopped: stopped.clone(),
        parts,
    };
    let sampler = tokio::spawn(rates::sample(rest.rates.clone(), rest.parts.pipelines.clone(), stopping));
    let shutdown = async move {
        shutdown.await;
        stop.send_replace(true);
        stopped.store(true, Ordering::Release);
    };
    let service = app(routes, rest).into_make_service_with_connect_info::<SocketAddr>();
    if let Err(error) = axum::serve(listener, service).with_graceful_shutdown(shutdown).await {
        tracing::error!(%error, "the REST door closed");
    }
    sampler.abort();
}

fn app(routes: Router<Rest>, rest: Rest) -> Router {
    let router = routes
        .route("/api/v1/openapi.json", get(document))
        .route("/metrics", get(exposition::metrics))
        .merge(health::router())
        .fallback(no_route)
        .method_not_allowed_fallback(no_method)
        .with_state(rest.clone());
    guard::guarded(router, rest)
}

/// Every route of the API and the document about them.
fn api() -> (Router<Rest>, Value) {
    let routes = Routes::new();
    let routes = topics::routes(routes);
    let routes = ingress::routes(routes);
    let routes = produce::routes(routes);
    let routes = browse::routes(routes);
    let routes = tail::routes(routes);
    let routes = groups::routes(routes);
    let routes = filters::routes(routes);
    let routes = checkers::routes(routes);
    let routes = plugins::routes(routes);
    let routes = trial::routes(routes);
    let routes = bench::routes(routes);
    let routes = pipelines::routes(routes);
    let routes = revisions::routes(routes);
    let routes = dead_letters::routes(routes);
    let routes = state::routes(routes);
    let routes = logs::routes(routes);
    let routes = trace::routes(routes);
    let routes = transactions::routes(routes);
    let routes = secrets::routes(routes);
    let routes = audit::routes(routes);
    cluster::routes(routes).finish()
}

async fn document(State(rest): State<Rest>) -> Json<Value> {
    Json((*rest.document).clone())
}

async fn no_route(method: Method, uri: Uri) -> Problem {
    Problem::no_route(method.as_str(), uri.path())
}

async fn no_method(method: Method, uri: Uri) -> Problem {
    let detail = format!("{} does not take {method}", uri.path());
    let status = axum::http::StatusCode::METHOD_NOT_ALLOWED;
    let kind = ("/problems/method-not-allowed", "There is no such method here");
    Problem::new(status, kind, detail, "The header Allow and /api/v1/openapi.json say what it takes")
}

/// Runs what blocks where it may.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(panic) => Err(Failure::new(sluice_model::Kind::Internal, panic.to_string())),
    }
}

impl Rest {
    /// [`standing_back`], when its turn comes.
    async fn run_guest<T: Send + 'static>(&self, work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
        let turn = self.guests.clone().acquire_owned().await;
        standing_back(turn.map_err(|closed| Failure::new(sluice_model::Kind::Unavailable, closed.to_string()))?, work)
            .await
    }
}

/// Runs what runs plugins, on a thread of its own that stands back. It has `turn` until it is done, even when its client has hung up.
async fn standing_back<T: Send + 'static>(
    turn: OwnedSemaphorePermit,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let (tell, told) = oneshot::channel();
    let run = move || {
        priority::Standing::back();
        let result = work();
        // Who is told may ask again at once.
        drop(turn);
        let _ = tell.send(result);
    };
    let thread = std::thread::Builder::new().name("request".to_owned()).spawn(run);
    thread.map_err(|error| Failure::new(sluice_model::Kind::Busy, format!("no thread for a plugin: {error}")))?;
    told.await.unwrap_or_else(|_| Err(Failure::new(sluice_model::Kind::Internal, "the thread of a request panicked")))
}

/// A tag of what `value` says, for `ETag`.
fn tag_of(value: &impl Serialize) -> String {
    use sha2::{Digest, Sha256};
    let digest = Sha256::digest(serde_json::to_vec(value).unwrap_or_default());
    digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

/// JSON with an `ETag`; 201 when it was made just now.
fn tagged(created: bool, tag: &str, value: &impl Serialize) -> Response {
    use axum::http::{HeaderValue, StatusCode, header};
    let status = if created { StatusCode::CREATED } else { StatusCode::OK };
    let mut response = (status, Json(value)).into_response();
    if let Ok(tag) = HeaderValue::try_from(format!("\"{tag}\"")) {
        response.headers_mut().insert(header::ETAG, tag);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_runs_plugins_stands_back_and_has_its_turn_until_it_is_done() {
        let turns = Arc::new(Semaphore::new(1));
        let turn = || turns.clone().try_acquire_owned().unwrap();
        let priority = || rustix::process::getpriority_process(None).unwrap();
        let before = priority();
        assert!(standing_back(turn(), move || Ok(priority())).await.unwrap() > before);
        assert_eq!(priority(), before);

        let (begun, begins) = std::sync::mpsc::channel();
        let (end, ends) = std::sync::mpsc::channel::<()>();
        let work = move || {
            begun.send(()).unwrap();
            ends.recv().unwrap();
            Ok(())
        };
        let request = tokio::spawn(standing_back(turn(), work));
        tokio::task::spawn_blocking(move || begins.recv().unwrap()).await.unwrap();
        request.abort();
        assert!(request.await.unwrap_err().is_cancelled());
        assert_eq!(turns.available_permits(), 0, "nobody waits for it, and it runs");
        end.send(()).unwrap();
        drop(turns.acquire().await.unwrap());

        let failure = standing_back(turn(), || -> Result<()> { panic!("it ends") }).await.unwrap_err();
        assert_eq!(failure.kind, sluice_model::Kind::Internal);
        assert_eq!(turns.available_permits(), 1);
    }

    #[test]
    fn the_document_describes_what_is_promised_and_every_reference_in_it_resolves() {
        let (_, document) = api();
        let paths = document["paths"].as_object().unwrap();
        for path in [
            "/topics/{topic}",
            "/topics/{topic}/messages",
            "/topics/{topic}/tail",
            "/topics/{topic}/ingress",
            "/groups/{group}/offsets:reset",
            "/groups/{group}/filters/{topic}",
            "/producer-groups/{group}/checker",
            "/plugins/{name}:try",
            "/plugins/{name}:bench",
            "/plugins/{name}/versions/{version}",
            "/pipelines/{name}:pause",
            "/pipelines/{name}/candidate",
            "/pipelines/{name}:rollback",
            "/pipelines/{name}/dlq",
            "/pipelines/{name}/trace",
            "/pipelines/{name}/dlq:replay",
            "/pipelines/{name}/dlq:purge",
            "/transactions",
            "/secrets/{name}",
            "/audit",
            "/brokers/{name}",
        ] {
            assert!(paths.contains_key(path), "{path}");
        }
        let text = document.to_string();
        let schemas = document["components"]["schemas"].as_object().unwrap();
        for reference in text.split("#/components/schemas/").skip(1) {
            let name = reference.split('"').next().unwrap();
            assert!(schemas.contains_key(name), "{name}");
        }
    }
}
