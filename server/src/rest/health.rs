//! Whether the process lives, and whether it can take messages.

use axum::{Router, extract::State, http::StatusCode, routing::get};

use super::Rest;

pub fn router() -> Router<Rest> {
    Router::new().route("/healthz", get(healthz)).route("/readyz", get(readyz))
}

async fn healthz() -> &'static str {
    "ok\n"
}

/// 503 when the log takes no messages, with the reason.
async fn readyz(State(rest): State<Rest>) -> (StatusCode, String) {
    let store = rest.parts.shell.reader.store();
    if let Some(reason) = store.poisoned() {
        return (StatusCode::SERVICE_UNAVAILABLE, format!("the log failed: {reason}\n"));
    }
    match store.refusal() {
        Some(refusal) => (StatusCode::SERVICE_UNAVAILABLE, format!("{refusal}\n")),
        None => (StatusCode::OK, "ready\n".to_owned()),
    }
}
