//! The one place where a failure becomes an HTTP answer: RFC 9457 `application/problem+json`.

use axum::{
    extract::rejection::{PathRejection, QueryRejection},
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value};
use sluice_model::Kind;

use crate::{failure::Failure, ingress};

/// Seconds after which a caller that was too fast may try again.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("1");

/// Why a request failed.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Problem {
    /// Names the sort of problem and never changes: `/problems/not-found`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    pub title: &'static str,
    pub status: u16,
    /// What exactly was wrong, and what was expected.
    pub detail: Box<str>,
    /// The field, parameter or header to blame, or the kind of thing that was not found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub field: Option<Box<str>>,
    /// What to do next.
    pub hint: Box<str>,
    /// More facts, by name.
    #[serde(flatten)]
    pub more: Map<String, Value>,
}

pub type Answer = Result<Response, Problem>;

impl Problem {
    /// `kind` is the type.
    pub fn new(
        status: StatusCode,
        (kind, title): (&'static str, &'static str),
        detail: impl Into<Box<str>>,
        hint: impl Into<Box<str>>,
    ) -> Self {
        let (status, detail, hint) = (status.as_u16(), detail.into(), hint.into());
        Self { kind, title, status, detail, field: None, hint, more: Map::new() }
    }

    pub fn field(self, field: impl Into<Box<str>>) -> Self {
        Self { field: Some(field.into()), ..self }
    }

    pub fn hint(self, hint: impl Into<Box<str>>) -> Self {
        Self { hint: hint.into(), ..self }
    }

    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.more.insert(name.to_owned(), value.into());
        self
    }

    /// A component that did not pass the gate; the failure's field is the gate's code.
    pub fn refused(failure: Failure) -> Self {
        let code = failure.field.unwrap_or_default();
        Self::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            ("/problems/component-refused", "The component was refused"),
            failure.text,
            "`sluice plugin check` says the same without uploading; sdk-wasm/README.md tells how plugins are built",
        )
        .field("body")
        .with("code", code)
    }

    pub fn too_large(limit: usize) -> Self {
        let detail = format!("body: expected at most {limit} bytes");
        let kind = ("/problems/body-too-large", "The body is too large");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, kind, detail, "Send less in one request").field("body")
    }

    pub fn busy(detail: impl Into<String>) -> Self {
        Failure::new(Kind::Busy, detail).into()
    }

    pub fn no_route(method: &str, path: &str) -> Self {
        let detail = format!("there is nothing to {method} at {path}");
        let kind = ("/problems/no-route", "There is no such route");
        Self::new(StatusCode::NOT_FOUND, kind, detail, "GET /api/v1/openapi.json lists every route")
    }
}

impl From<Failure> for Problem {
    fn from(failure: Failure) -> Self {
        let guard = matches!(failure.field.as_deref(), Some("If-Match" | "If-None-Match"));
        let refused = failure.field.as_deref() == Some(ingress::REFUSED);
        let (status, kind) = match failure.kind {
            Kind::Invalid if refused => {
                (StatusCode::UNPROCESSABLE_ENTITY, ("/problems/message-refused", "The message was refused"))
            }
            Kind::Invalid => (StatusCode::BAD_REQUEST, ("/problems/invalid-field", "The request is not valid")),
            Kind::NotFound => (StatusCode::NOT_FOUND, ("/problems/not-found", "It does not exist")),
            Kind::Conflict if guard => {
                (StatusCode::PRECONDITION_FAILED, ("/problems/precondition-failed", "It was changed meanwhile"))
            }
            Kind::Conflict => (StatusCode::CONFLICT, ("/problems/conflict", "It conflicts with what is there")),
            Kind::Denied => (StatusCode::FORBIDDEN, ("/problems/denied", "It is not allowed")),
            Kind::Full => (StatusCode::INSUFFICIENT_STORAGE, ("/problems/full", "There is no room")),
            Kind::Busy => (StatusCode::TOO_MANY_REQUESTS, ("/problems/busy", "There is too much to do")),
            Kind::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, ("/problems/unavailable", "It is not available")),
            Kind::Timeout => (StatusCode::GATEWAY_TIMEOUT, ("/problems/timeout", "It took too long")),
            Kind::Corrupt => (StatusCode::INTERNAL_SERVER_ERROR, ("/problems/corrupt", "Stored bytes are damaged")),
            Kind::Internal => (StatusCode::INTERNAL_SERVER_ERROR, ("/problems/internal", "The server failed")),
        };
        let hint = hint(&failure);
        Self { field: failure.field.map(Into::into), ..Self::new(status, kind, failure.text, hint) }
    }
}

fn hint(failure: &Failure) -> &'static str {
    match (failure.kind, failure.field.as_deref()) {
        (Kind::Invalid, Some(ingress::REFUSED)) => {
            "GET /api/v1/topics/{topic}/ingress says which plugins it has to pass"
        }
        (Kind::NotFound, Some("topic" | "topics" | "source.topic" | "sinks")) => {
            "Create the topic first: PUT /api/v1/topics/{topic}"
        }
        (Kind::NotFound, Some("plugin")) => {
            "Upload it first: PUT /api/v1/plugins/{name} with the component as the body"
        }
        (Kind::NotFound, Some(field)) if field.ends_with(".plugin") => {
            "Upload it first: PUT /api/v1/plugins/{name} with the component as the body"
        }
        (Kind::NotFound, Some(field)) if field.ends_with("grants.secrets") => {
            "Set it first: PUT /api/v1/secrets/{name} with the value as the body"
        }
        (Kind::NotFound, Some(field)) if field.ends_with("grants.topics") => {
            "Create the topic first: PUT /api/v1/topics/{topic}"
        }
        (Kind::NotFound, Some("secret")) => "GET /api/v1/secrets lists those that exist",
        (Kind::NotFound, Some("group")) => {
            "GET /api/v1/groups lists those that exist, PUT /api/v1/groups/{group} makes one"
        }
        (Kind::NotFound, Some("candidate")) => "PUT /api/v1/pipelines/{name}/candidate?mode=shadow has a version tried",
        (Kind::NotFound, Some("to")) => "GET /api/v1/pipelines/{name}/revisions lists those that are kept",
        (Kind::NotFound, Some("pipeline")) => "GET /api/v1/pipelines lists those that exist",
        (Kind::Conflict, Some("If-Match" | "If-None-Match")) => "GET it again, and repeat the change with its new ETag",
        (Kind::Busy, _) => "Wait for as long as Retry-After says, then send it again",
        (Kind::Full, _) => "Free space on the disk, or delete what is not needed any more",
        (Kind::Unavailable, _) => "GET /readyz says whether the server takes requests",
        (Kind::Corrupt | Kind::Internal, _) => "The server's log has more about it, under this answer's X-Request-Id",
        (Kind::Timeout, _) => "Send it again; GET /readyz says whether the server takes requests",
        (Kind::Denied, Some("secret")) => "Let the server's user own the folder of secrets",
        (Kind::Denied, _) => {
            "GET /api/v1/topics?system=true says what is the broker's own, and what each topic permits"
        }
        (Kind::Conflict, _) => "GET what is there, and change or delete what stands in the way",
        (Kind::NotFound, _) => "GET the list that it would be in; GET /api/v1/openapi.json names all of them",
        (Kind::Invalid, _) => "GET /api/v1/openapi.json says what each request takes",
    }
}

impl From<sluice_broker::Error> for Problem {
    fn from(error: sluice_broker::Error) -> Self {
        Failure::from(error).into()
    }
}

impl From<sluice_model::Error> for Problem {
    fn from(error: sluice_model::Error) -> Self {
        Failure::from(error).into()
    }
}

impl From<PathRejection> for Problem {
    fn from(rejection: PathRejection) -> Self {
        Failure::invalid("path", format!("path: {}", rejection.body_text())).into()
    }
}

impl From<QueryRejection> for Problem {
    fn from(rejection: QueryRejection) -> Self {
        let text = rejection.body_text();
        let text = text.strip_prefix("Failed to deserialize query string: ").unwrap_or(&text).to_owned();
        let field = named_field(&text).unwrap_or_else(|| "query".to_owned());
        Failure::invalid(&field, text).into()
    }
}

/// The field that a message of serde's is about: the name in backquotes, or what stands before the first colon.
pub fn named_field(text: &str) -> Option<String> {
    for marker in ["unknown field `", "missing field `", "duplicate field `"] {
        if let Some((_, rest)) = text.split_once(marker) {
            return rest.split('`').next().map(str::to_owned);
        }
    }
    let (before, _) = text.split_once(": ")?;
    let path = |c: char| c.is_ascii_alphanumeric() || "_.[]-".contains(c);
    (!before.is_empty() && before.chars().all(path)).then(|| before.to_owned())
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        if status.is_server_error() {
            tracing::warn!(status = self.status, detail = &*self.detail, "a REST request failed");
        }
        let body = serde_json::to_vec(&self).unwrap_or_default();
        let mut response = (status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
            headers.insert(header::RETRY_AFTER, RETRY_AFTER);
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_failure_has_its_own_status() {
        let status = |kind| Problem::from(Failure::new(kind, "why")).status;
        let kinds = [
            (Kind::Invalid, 400),
            (Kind::NotFound, 404),
            (Kind::Conflict, 409),
            (Kind::Denied, 403),
            (Kind::Full, 507),
            (Kind::Busy, 429),
            (Kind::Unavailable, 503),
            (Kind::Timeout, 504),
            (Kind::Corrupt, 500),
            (Kind::Internal, 500),
        ];
        for (kind, expected) in kinds {
            assert_eq!(status(kind), expected, "{kind:?}");
        }
        let guarded = Failure { field: Some("If-Match".to_owned()), ..Failure::new(Kind::Conflict, "changed") };
        assert_eq!(Problem::from(guarded).status, 412);
    }

    #[test]
    fn who_was_too_fast_is_told_when_to_come_back() {
        assert_eq!(Problem::busy("full").into_response().headers()[header::RETRY_AFTER], "1");
    }

    #[test]
    fn the_field_is_found_in_serdes_words() {
        assert_eq!(named_field("unknown field `colour`, expected `name`").as_deref(), Some("colour"));
        assert_eq!(named_field("messages[2].delay: expected a duration").as_deref(), Some("messages[2].delay"));
        assert_eq!(named_field("what a mess"), None);
    }
}
