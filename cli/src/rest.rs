//! The REST API as the commands use it: JSON in, JSON out, problems as errors that say what to do next.

use std::{
    io::{BufRead, BufReader},
    time::Duration,
};

use anyhow::{Context, bail};
use serde_json::Value;
use ureq::{
    Agent, Body,
    http::{Request, Response, Uri},
};

/// Most bytes of an answer.
const ANSWER_LIMIT: u64 = 64 << 20;

/// A request's body with its content type.
pub enum Content {
    Json(Value),
    Yaml(Vec<u8>),
    Wasm(Vec<u8>),
    Text(Vec<u8>),
}

pub struct Rest {
    agent: Agent,
    base: String,
}

impl Rest {
    pub fn new(server: &str) -> Self {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_connect(Some(Duration::from_secs(5)))
            // A large component takes its time to be compiled.
            .timeout_recv_response(Some(Duration::from_secs(60)))
            .build();
        Self { agent: config.into(), base: server.trim_end_matches('/').to_owned() }
    }

    /// Where the server is, without its port.
    pub fn host(&self) -> Option<String> {
        let base: Uri = self.base.parse().ok()?;
        base.host().map(str::to_owned)
    }

    pub fn get(&self, path: &str) -> anyhow::Result<Value> {
        self.bare("GET", path)
    }

    pub fn delete(&self, path: &str) -> anyhow::Result<Value> {
        self.bare("DELETE", path)
    }

    pub fn put(&self, path: &str, content: Content) -> anyhow::Result<Value> {
        self.full("PUT", path, content)
    }

    /// Puts what must not be there yet.
    pub fn create(&self, path: &str, content: Content) -> anyhow::Result<Value> {
        self.full_with("PUT", path, content, &[("if-none-match", "*")])
    }

    pub fn patch(&self, path: &str, content: Value) -> anyhow::Result<Value> {
        self.full("PATCH", path, Content::Json(content))
    }

    pub fn post(&self, path: &str, content: Content) -> anyhow::Result<Value> {
        self.full("POST", path, content)
    }

    /// Gives every event of a stream to `each`, until the server ends it or `each` has had enough.
    pub fn follow(&self, path: &str, mut each: impl FnMut(Value) -> anyhow::Result<bool>) -> anyhow::Result<()> {
        let request = Request::get(self.url(path)).header("accept", "text/event-stream").body(())?;
        let response = self.reached(self.agent.run(request))?;
        if !response.status().is_success() {
            return answer(response).map(drop);
        }
        for line in BufReader::new(response.into_body().into_reader()).lines() {
            let line = line.context("the stream broke off; run the command again")?;
            let Some(event) = line.strip_prefix("data:") else { continue };
            let event = serde_json::from_str(event).unwrap_or_else(|_| Value::String(event.trim().to_owned()));
            if !each(event)? {
                break;
            }
        }
        Ok(())
    }

    fn bare(&self, method: &str, path: &str) -> anyhow::Result<Value> {
        let request = Request::builder().method(method).uri(self.url(path)).body(())?;
        answer(self.reached(self.agent.run(request))?)
    }

    fn full(&self, method: &str, path: &str, content: Content) -> anyhow::Result<Value> {
        self.full_with(method, path, content, &[])
    }

    fn full_with(&self, method: &str, path: &str, content: Content, headers: &[(&str, &str)]) -> anyhow::Result<Value> {
        let (kind, body) = match content {
            Content::Json(value) => ("application/json", serde_json::to_vec(&value)?),
            Content::Yaml(text) => ("application/yaml", text),
            Content::Wasm(component) => ("application/wasm", component),
            Content::Text(text) => ("text/plain", text),
        };
        let request = Request::builder().method(method).uri(self.url(path)).header("content-type", kind);
        let request =
            headers.iter().fold(request, |request, (name, value)| request.header(*name, *value)).body(body)?;
        answer(self.reached(self.agent.run(request))?)
    }

    fn url(&self, path: &str) -> String {
        format!("{}/api/v1{path}", self.base)
    }

    fn reached(&self, response: Result<Response<Body>, ureq::Error>) -> anyhow::Result<Response<Body>> {
        let hint = "is it running? `sluice dev` starts one here; --server or SLUICE_SERVER names another";
        response.with_context(|| format!("no answer from {} ({hint})", self.base))
    }
}

fn answer(mut response: Response<Body>) -> anyhow::Result<Value> {
    let status = response.status();
    let text = response.body_mut().with_config().limit(ANSWER_LIMIT).read_to_string()?;
    if status.is_success() {
        if text.trim().is_empty() {
            return Ok(Value::Null);
        }
        return serde_json::from_str(&text).with_context(|| format!("the server answered no JSON: {text:.200}"));
    }
    bail!("{}", problem(status.as_u16(), &text))
}

/// A problem's own words (RFC 9457), or what little there is.
fn problem(status: u16, text: &str) -> String {
    let Ok(problem) = serde_json::from_str::<Value>(text) else {
        return format!("the server answered {status} {}", text.trim()).trim_end().to_owned();
    };
    let word = |name: &str| problem.get(name).and_then(Value::as_str);
    let detail = word("detail").or(word("title")).unwrap_or("the server refused");
    let field = word("field").filter(|field| !detail.starts_with(*field)).map(|field| format!(" ({field})"));
    let hint = word("hint").map(|hint| format!("\nhint: {hint}"));
    format!("{detail}{} [{status}]{}", field.unwrap_or_default(), hint.unwrap_or_default())
}

/// A name as one segment of a path.
pub fn segment(name: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    name.bytes().map(|byte| if plain(byte) { (byte as char).to_string() } else { format!("%{byte:02X}") }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_told_with_its_hint() {
        let text = r#"{"detail":"topic \"x\" does not exist","hint":"create it","status":404}"#;
        assert_eq!(problem(404, text), "topic \"x\" does not exist [404]\nhint: create it");
        assert_eq!(problem(502, ""), "the server answered 502");
    }

    #[test]
    fn a_name_is_one_segment() {
        assert_eq!(segment("%DLQ%a/b"), "%25DLQ%25a%2Fb");
    }
}
