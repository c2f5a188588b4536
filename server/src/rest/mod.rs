//! The REST door: topics, messages, groups, plugins, pipelines, checkers, and what monitoring asks.

mod health;

use std::future::Future;

use axum::Router;
use tokio::net::TcpListener;

use crate::server::Parts;

/// Serves until `shutdown`; requests in work end.
pub async fn serve(listener: TcpListener, parts: Parts, shutdown: impl Future<Output = ()> + Send + 'static) {
    let router = Router::new().merge(health::router()).with_state(parts);
    if let Err(error) = axum::serve(listener, router).with_graceful_shutdown(shutdown).await {
        tracing::error!(%error, "the REST door closed");
    }
}
