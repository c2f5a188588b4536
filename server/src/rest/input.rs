//! What comes in: bodies under a limit, parameters without unknown ones, guards.

use std::time::Duration;

use axum::{
    body::{Body, Bytes, to_bytes},
    extract::FromRequestParts,
    http::{HeaderMap, header},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use http_body_util::BodyExt;
use jiff::Timestamp as Time;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use sluice_model::{Kind, Timestamp};

use super::problem::{Problem, named_field};
use crate::failure::{Failure, Result};
pub use crate::units::time_text;

/// Largest body of a request that says nothing else, bytes.
pub const BODY_LIMIT: usize = 1024 * 1024;

/// Bytes of a body that is too large which are read all the same.
const DRAIN_LIMIT: usize = 64 * 1024 * 1024;
const DRAIN_TIME: Duration = Duration::from_secs(5);

/// Parameters of the path.
#[derive(FromRequestParts)]
#[from_request(via(axum::extract::Path), rejection(Problem))]
pub struct Path<T>(pub T);

/// Parameters of the query.
#[derive(FromRequestParts)]
#[from_request(via(axum::extract::Query), rejection(Problem))]
pub struct Query<T>(pub T);

/// The whole body. Fails with 413 when it is larger than `limit`.
pub async fn body(body: Body, headers: &HeaderMap, limit: usize) -> std::result::Result<Bytes, Problem> {
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|len| len.to_str().ok()?.parse::<usize>().ok());
    if announced.is_some_and(|len| len > limit) {
        drain(body).await;
        return Err(Problem::too_large(limit));
    }
    to_bytes(body, limit).await.map_err(|error| {
        let source = std::error::Error::source(&error);
        if source.is_some_and(|source| source.is::<http_body_util::LengthLimitError>()) {
            Problem::too_large(limit)
        } else {
            Failure::invalid("body", format!("body: {error}")).into()
        }
    })
}

/// Reads away what a client is still sending, within bounds: one that is cut off while it writes never sees the answer.
async fn drain(mut body: Body) {
    let mut left = DRAIN_LIMIT;
    let read = async {
        while left > 0
            && let Some(Ok(frame)) = body.frame().await
        {
            left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
        }
    };
    // Too slow is too late.
    let _ = tokio::time::timeout(DRAIN_TIME, read).await;
}

/// The bytes of a message's body, which is in one of two fields: a text or any other JSON, which is taken as it is written, or
/// Base64. `None` when it is in neither. The failure names the field.
pub fn body_bytes(
    (plain, json): (&str, Option<&RawValue>),
    (coded, base64): (&str, Option<&str>),
) -> Result<Option<Bytes>> {
    match (json.map(RawValue::get), base64) {
        (None, None) => Ok(None),
        (Some(_), Some(_)) => Err(Failure::invalid(plain, format!("{plain}: expected it or {coded}, got both"))),
        (Some(text), None) if text.starts_with('"') => {
            let text = serde_json::from_str::<String>(text);
            text.map(|text| Some(text.into())).map_err(|error| Failure::invalid(plain, format!("{plain}: {error}")))
        }
        (Some(json), None) => Ok(Some(json.to_owned().into())),
        (None, Some(text)) => {
            let wrong = |error| Failure::invalid(coded, format!("{coded}: expected Base64 with padding: {error}"));
            BASE64_STANDARD.decode(text).map(|bytes| Some(bytes.into())).map_err(wrong)
        }
    }
}

/// Reads JSON; nothing at all is read as `{}`. The failure names the field.
pub fn json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    let bytes = if bytes.iter().all(u8::is_ascii_whitespace) { b"{}" } else { bytes };
    let mut from = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut from).map_err(|error| {
        let (path, text) = (error.path().to_string(), error.inner().to_string());
        if !error.inner().is_data() {
            return Failure::invalid("body", format!("body: {text}"));
        }
        misread(path, &text)
    })?;
    from.end().map_err(|error| Failure::invalid("body", format!("body: {error}")))?;
    Ok(value)
}

/// Reads what begins with `{` as JSON and anything else as YAML. The failure names the field.
pub fn json_or_yaml<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    if bytes.iter().find(|byte| !byte.is_ascii_whitespace()).is_none_or(|first| *first == b'{') {
        return json(bytes);
    }
    let from = serde_norway::Deserializer::from_slice(bytes);
    serde_path_to_error::deserialize(from)
        .map_err(|error| misread(error.path().to_string(), &error.inner().to_string()))
}

fn misread(path: String, text: &str) -> Failure {
    let field = match named_field(text) {
        Some(name) if path == "." => name,
        Some(name) if text.starts_with("missing") => format!("{path}.{name}"),
        _ if path == "." => "body".to_owned(),
        _ => path,
    };
    Failure::invalid(&field, format!("{field}: {text}"))
}

/// Reads the body and the JSON in it.
pub async fn json_body<T: DeserializeOwned>(from: Body, headers: &HeaderMap) -> std::result::Result<T, Problem> {
    Ok(json(&body(from, headers, BODY_LIMIT).await?)?)
}

/// What a request demands of the thing it changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Guard {
    None,
    /// `If-None-Match: *`
    Absent,
    /// `If-Match: *`
    Present,
    /// `If-Match`: one of these, without quotes.
    Tags(Vec<String>),
}

impl Guard {
    /// Fails with `Invalid` for forms that are not served.
    pub fn of(headers: &HeaderMap) -> Result<Self> {
        if let Some(value) = headers.get(header::IF_NONE_MATCH) {
            if value == "*" {
                return Ok(Self::Absent);
            }
            return Err(Failure::invalid("If-None-Match", "If-None-Match: expected * (create, do not replace)"));
        }
        let Some(value) = headers.get(header::IF_MATCH) else { return Ok(Self::None) };
        let bad = || Failure::invalid("If-Match", "If-Match: expected * or an ETag in double quotes");
        let text = value.to_str().map_err(|_| bad())?;
        if text.trim() == "*" {
            return Ok(Self::Present);
        }
        let tags = text.split(',').map(|tag| Some(tag.trim().strip_prefix('"')?.strip_suffix('"')?.to_owned()));
        Ok(Self::Tags(tags.collect::<Option<_>>().ok_or_else(bad)?))
    }

    /// Fails with `Conflict`, to be answered with 412, unless what is known under the name meets the guard.
    pub fn check(&self, name: &str, known: Option<&str>) -> Result<()> {
        let (field, text) = match (self, known) {
            (Self::Absent, Some(_)) => ("If-None-Match", format!("\"{name}\" exists already")),
            (Self::Present | Self::Tags(_), None) => ("If-Match", format!("\"{name}\" does not exist")),
            (Self::Tags(tags), Some(known)) if !tags.iter().any(|tag| tag == known) => {
                ("If-Match", format!("\"{name}\" is at ETag \"{known}\", not at {tags:?}"))
            }
            _ => return Ok(()),
        };
        Err(Failure { field: Some(field.to_owned()), ..Failure::new(Kind::Conflict, text) })
    }
}

/// Splits `name:verb` at the last colon.
pub fn verb(segment: &str) -> Option<(&str, &str)> {
    segment.rsplit_once(':')
}

/// Reads `2026-01-31T12:00:00Z`, with or without an `@` in front.
pub fn time(field: &str, text: &str) -> Result<Timestamp> {
    let plain = text.strip_prefix('@').unwrap_or(text);
    plain
        .parse::<Time>()
        .map(|time| Timestamp(time.as_millisecond()))
        .map_err(|_| Failure::invalid(field, format!("{field}: expected a time as 2026-01-31T12:00:00Z, got {text:?}")))
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Outer {
        #[serde(default)]
        inner: Vec<Inner>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Inner {
        #[allow(dead_code, reason = "only its type matters")]
        count: u32,
    }

    #[test]
    fn a_json_failure_names_the_field() {
        let field = |text: &str| json::<Outer>(text.as_bytes()).unwrap_err().field.unwrap();
        assert_eq!(field(r#"{"outer": 1}"#), "outer");
        assert_eq!(field(r#"{"inner": [{"count": 1}, {"count": "x"}]}"#), "inner[1].count");
        assert_eq!(field(r#"{"inner": [{"coutn": 1}]}"#), "inner[0].coutn");
        assert_eq!(field(r#"{"inner": [{}]}"#), "inner[0].count");
        assert_eq!(field("{"), "body");
        assert_eq!(field("{} {}"), "body");
        assert!(json::<Outer>(b" \n").unwrap().inner.is_empty());
    }

    #[test]
    fn guards_hold() {
        let guard = |name, value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(name, HeaderValue::from_static(value));
            Guard::of(&headers)
        };
        let absent = guard(header::IF_NONE_MATCH, "*").unwrap();
        assert!(absent.check("x", None).is_ok() && absent.check("x", Some("1")).is_err());
        let one = guard(header::IF_MATCH, "\"1\", \"2\"").unwrap();
        assert!(
            one.check("x", Some("2")).is_ok() && one.check("x", Some("3")).is_err() && one.check("x", None).is_err()
        );
        assert!(guard(header::IF_MATCH, "1").is_err() && guard(header::IF_NONE_MATCH, "\"1\"").is_err());
    }

    #[test]
    fn a_time_is_read_and_written() {
        assert_eq!(time_text(time("from", "@1970-01-01T00:00:01.5Z").unwrap()), "1970-01-01T00:00:01.500Z");
        assert_eq!(time("from", "noon").unwrap_err().field.as_deref(), Some("from"));
    }
}
