use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use sluice_runtime::ports::{Hit, Http, HttpRequest, HttpResponse, Lookup, PortError, Secret, Secrets};
use sluice_runtime::{Level, LogLine, Observation, Observer, UrlGrant};

/// Topics that a plugin may look into.
#[derive(Clone, Debug, Default)]
pub struct Topics(Vec<(String, String, Hit)>);

impl Topics {
    /// Adds a message; later ones are newer.
    #[must_use]
    pub fn message(mut self, topic: &str, key: &str, body: &str) -> Topics {
        let offset = self.0.len() as u64;
        let hit = Hit { offset, body: Bytes::copy_from_slice(body.as_bytes()), ..Hit::default() };
        self.0.push((topic.to_owned(), key.to_owned(), hit));
        self
    }

    pub(crate) fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.0.iter().map(|(topic, _, _)| topic.clone()).collect();
        names.sort();
        names.dedup();
        names
    }
}

impl Lookup for Topics {
    fn by_key(&self, topic: &str, key: &str, limit: u32) -> Result<Vec<Hit>, PortError> {
        let newest_first = self.0.iter().rev().filter(|(t, k, _)| t == topic && k == key);
        Ok(newest_first.map(|(_, _, hit)| hit.clone()).take(limit as usize).collect())
    }
}

/// Secrets that a plugin may read.
#[derive(Clone, Debug, Default)]
pub(crate) struct Values(pub(crate) Vec<(String, Secret)>);

impl Secrets for Values {
    fn read(&self, name: &str) -> Result<Secret, PortError> {
        let found = self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone());
        found.ok_or_else(|| PortError::Failed(format!("secret \"{name}\" does not exist")))
    }
}

/// Servers that a plugin may ask: what is granted to it, what they answer, and what they were asked.
#[derive(Debug, Default)]
pub struct Servers {
    granted: Vec<UrlGrant>,
    answers: Vec<(String, String, HttpResponse)>,
    asked: Mutex<Vec<HttpRequest>>,
}

impl Servers {
    /// Grants these methods of what is below a URL, as a pipeline's `grants` do.
    ///
    /// # Panics
    /// It is no grant; the message says what was expected.
    #[must_use]
    pub fn grant(mut self, url: &str, methods: &[&str]) -> Servers {
        let methods: Vec<String> = methods.iter().map(|method| (*method).to_owned()).collect();
        self.granted.push(UrlGrant::parse(url, &methods).unwrap_or_else(|problem| panic!("{url}: {problem}")));
        self
    }

    /// Answers requests for exactly this URL. What nothing is said of cannot be reached.
    #[must_use]
    pub fn answer(mut self, method: &str, url: &str, status: u16, body: &str) -> Servers {
        let response = HttpResponse { status, headers: Vec::new(), body: body.as_bytes().to_vec() };
        self.answers.push((method.to_owned(), url.to_owned(), response));
        self
    }

    /// The requests that came, in order.
    #[must_use]
    pub fn asked(&self) -> Vec<HttpRequest> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn granted(&self) -> Vec<UrlGrant> {
        self.granted.clone()
    }
}

impl Http for Servers {
    fn send(&self, request: &HttpRequest, _: Duration) -> Result<HttpResponse, PortError> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).push(request.clone());
        let found = self.answers.iter().find(|(method, url, _)| (method, url) == (&request.method, &request.url));
        found
            .map(|(_, _, response)| response.clone())
            .ok_or_else(|| PortError::Failed(format!("{} {} cannot be reached", request.method, request.url)))
    }
}

/// Keeps what a plugin logs and measures.
#[derive(Debug, Default)]
pub struct Journal {
    lines: Mutex<Vec<String>>,
}

impl Journal {
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn add(&self, line: String) {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).push(line);
    }
}

impl Observer for Journal {
    fn enabled(&self, _: Level) -> bool {
        true
    }

    fn log(&self, line: &LogLine<'_>) {
        let fields: String = line.fields.iter().map(|(name, value)| format!(" {name}={value}")).collect();
        self.add(format!("{}{fields}", line.message));
    }

    fn metric(&self, observation: &Observation<'_>) {
        self.add(format!("{} {}", observation.name, observation.value));
    }
}
