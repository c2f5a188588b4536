//! What every request passes: its id, a trace, limits of time and number, and panics that become answers.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use axum::{
    Router,
    extract::{Request, State},
    http::{HeaderName, HeaderValue, Method},
    middleware::{self, Next},
    response::{IntoResponse, Response},
};
use sluice_model::Kind;
use tower_http::{
    catch_panic::CatchPanicLayer,
    request_id::{MakeRequestId, PropagateRequestIdLayer, RequestId, SetRequestIdLayer},
    trace::TraceLayer,
};

use super::{Rest, problem::Problem};
use crate::{clock, failure::Failure};

/// Longest time until an answer begins; compiling a plugin takes up to 30 s of it.
const TIMEOUT: Duration = Duration::from_secs(60);
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Puts the guards around the routes.
pub fn guarded(router: Router, rest: Rest) -> Router {
    router
        .layer(CatchPanicLayer::custom(panicked))
        .layer(middleware::from_fn_with_state(rest, limited))
        .layer(middleware::from_fn(same_site))
        .layer(TraceLayer::new_for_http().make_span_with(span))
        .layer(PropagateRequestIdLayer::new(REQUEST_ID))
        .layer(SetRequestIdLayer::new(REQUEST_ID, Ids))
}

async fn limited(State(rest): State<Rest>, request: Request, next: Next) -> Response {
    let Ok(_permit) = rest.requests.try_acquire() else {
        return Problem::busy("too many requests are in work").into_response();
    };
    match tokio::time::timeout(TIMEOUT, next.run(request)).await {
        Ok(response) => response,
        Err(_) => {
            let text = format!("no answer within {} s; what was asked for may still happen", TIMEOUT.as_secs());
            Problem::from(Failure::new(Kind::Timeout, text)).into_response()
        }
    }
}

/// A page of another site may not change anything behind its reader's back: browsers say where a request comes from.
async fn same_site(request: Request, next: Next) -> Response {
    let reads = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
    let foreign = request.headers().get("sec-fetch-site").is_some_and(|site| site == "cross-site");
    if foreign && !reads {
        let text = "a page of another site may not change anything here";
        let problem = Problem::from(Failure::new(Kind::Denied, text));
        return problem.hint("Send it from a page of this server, or without a browser").into_response();
    }
    next.run(request).await
}

#[allow(clippy::needless_pass_by_value, reason = "the layer's signature")]
fn panicked(panic: Box<dyn std::any::Any + Send>) -> Response {
    let text = panic.downcast_ref::<String>().cloned();
    let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default();
    tracing::error!(panic = text, "a REST handler panicked");
    Problem::from(Failure::new(Kind::Internal, "the server failed; its log has the reason")).into_response()
}

fn span<B>(request: &axum::http::Request<B>) -> tracing::Span {
    let id = request.extensions().get::<RequestId>().and_then(|id| id.header_value().to_str().ok());
    tracing::debug_span!("rest", method = %request.method(), path = request.uri().path(), id)
}

/// Ids that no two requests of one server share.
#[derive(Clone, Copy)]
struct Ids;

static NEXT: AtomicU64 = AtomicU64::new(0);

impl MakeRequestId for Ids {
    fn make_request_id<B>(&mut self, _: &axum::http::Request<B>) -> Option<RequestId> {
        let count = NEXT.fetch_add(1, Ordering::Relaxed);
        HeaderValue::try_from(format!("{:x}-{count:x}", clock::now().0)).ok().map(RequestId::new)
    }
}
