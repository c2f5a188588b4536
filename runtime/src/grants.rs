//! What a plugin was given beyond its records: topics to look into, secrets, servers to ask. Nothing of it unless it is named.

use std::sync::Arc;
use std::time::{Duration, Instant};

use wasmtime::Result;

use crate::bindings::sluice::plugin::{http, lookup, secrets};
use crate::host::State;
use crate::output::short;
use crate::ports::{Audit, Http, HttpRequest, HttpResponse, Lookup, PortError, Secret, Secrets, Use};
use crate::urls::{self, UrlGrant};

/// Messages of one look-up.
const MAX_HITS: u32 = 100;
/// Look-ups of one call: four for each record of a large turn.
const MAX_LOOKUPS: u32 = 2048;
/// Requests of one call, with those that are refused: four for each record of a turn that asks servers.
const MAX_REQUESTS: u32 = 256;
/// All waiting of one call, for look-ups, secrets and requests.
const MAX_WAIT: Duration = Duration::from_secs(10);
/// Waiting for one request: a server that never answers leaves time for others.
const MAX_REQUEST_WAIT: Duration = Duration::from_secs(5);
/// Body of a request, bytes.
const MAX_REQUEST_BODY: usize = 1024 * 1024;
/// Headers of a request, and their bytes.
const MAX_HEADERS: usize = 64;
const MAX_HEADER_BYTES: usize = 16 * 1024;
/// Bytes of a refused name that are repeated in the error.
const MAX_NAME: usize = 256;

/// Requests and secrets of one call that came to nothing and that the audit hears of: a plugin that tries for ever shall not fill it.
const MAX_FAILURES_HEARD: u32 = 16;

/// Headers that say how a request travels, not what it asks: they are the host's own.
const OWN_HEADERS: [&str; 13] = [
    "connection",
    "content-length",
    "expect",
    "host",
    "http2-settings",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// What a plugin was given beyond its records; nothing by default.
#[derive(Clone, Default)]
pub struct Grants {
    pub lookup: Option<Arc<dyn Lookup>>,
    /// Topics that the lookup may read.
    pub topics: Vec<String>,
    pub http: Option<Arc<dyn Http>>,
    /// Where requests may go to.
    pub urls: Vec<UrlGrant>,
    pub secrets: Option<Arc<dyn Secrets>>,
    /// Names of the secrets that may be read.
    pub secret_names: Vec<String>,
    /// Hears of what it does with them, as [`Use`] says.
    pub audit: Option<Arc<dyn Audit>>,
}

impl Grants {
    /// Whether it may send requests.
    #[must_use]
    pub fn asks_servers(&self) -> bool {
        !self.urls.is_empty()
    }
}

/// Ends a call whose time has not come.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct NotNow(pub(crate) String);

/// What an instance has used of its grants.
#[derive(Default)]
pub(crate) struct Uses {
    lookups: u32,
    /// Look-ups that were refused.
    refused: u32,
    requests: u32,
    /// Requests and secrets that came to nothing.
    failures: u32,
    /// Time waited in this call.
    waited: Duration,
    /// Secrets that the instance has read, over all its calls.
    secrets: Vec<(String, Secret)>,
}

impl Uses {
    /// Resets what is counted for each call.
    pub(crate) fn begin(&mut self) {
        let secrets = std::mem::take(&mut self.secrets);
        *self = Self { secrets, ..Self::default() };
    }

    /// The text with their names in the place of the secrets that the instance has read: some services have theirs in the path of a URL.
    fn redacted(&self, text: &str) -> String {
        let mut secrets: Vec<_> = self.secrets.iter().map(|(name, secret)| (name, secret.reveal())).collect();
        // One may be a part of another.
        secrets.sort_by_key(|(_, value)| std::cmp::Reverse(value.len()));
        secrets
            .iter()
            .fold(text.to_owned(), |text, (name, value)| urls::without(&text, value, &format!("[secret {name}]")))
    }
}

impl State {
    /// Runs what takes its time outside of the guest; that counts for what a call may wait, and not for its deadline. It is told how long
    /// it may take.
    fn wait<R>(&mut self, work: impl FnOnce(Duration) -> R) -> std::result::Result<R, String> {
        let left = MAX_WAIT.saturating_sub(self.uses.waited);
        if left.is_zero() {
            return Err(format!("this call has waited for {} s already, which is all that it may", MAX_WAIT.as_secs()));
        }
        let began = Instant::now();
        let done = self.watch.waiting(|| work(left));
        self.uses.waited += began.elapsed();
        Ok(done)
    }

    fn audit(&mut self, of: &Use<'_>) {
        let failed = matches!(of, Use::Request { outcome: Err(_), .. } | Use::Secret { outcome: Err(_), .. });
        self.uses.failures = self.uses.failures.saturating_add(u32::from(failed));
        if let Some(audit) = self.grants.audit.as_ref().filter(|_| !failed || self.uses.failures <= MAX_FAILURES_HEARD)
        {
            audit.used(&self.context, of);
        }
    }

    /// Tells how often the call that ended has looked something up.
    pub(crate) fn audit_lookups(&mut self) {
        let Uses { lookups: count, refused, .. } = self.uses;
        if count > 0 {
            self.audit(&Use::Lookups { count, refused });
        }
    }

    fn look(&mut self, topic: &str, key: &str, limit: u32) -> std::result::Result<Vec<lookup::Hit>, String> {
        self.uses.lookups = self.uses.lookups.saturating_add(1);
        if self.uses.lookups > MAX_LOOKUPS {
            return Err(format!("more than {MAX_LOOKUPS} lookups in one call"));
        }
        let granted = self.grants.topics.iter().any(|granted| granted == topic);
        let Some(port) = self.grants.lookup.clone().filter(|_| granted) else {
            let topic = short(topic.to_owned(), MAX_NAME);
            return Err(not_granted(&format!("topic {topic}"), &self.grants.topics));
        };
        let limit = limit.min(MAX_HITS);
        let hits = self.wait(|_| port.by_key(topic, key, limit))?.map_err(|error| error.to_string())?;
        let hit = |hit: crate::ports::Hit| lookup::Hit {
            queue: hit.queue,
            offset: hit.offset,
            stored_at: hit.stored_at,
            headers: hit.headers,
            body: hit.body.to_vec(),
        };
        Ok(hits.into_iter().take(limit as usize).map(hit).collect())
    }

    fn secret(&mut self, name: &str) -> std::result::Result<Secret, String> {
        if let Some((_, secret)) = self.uses.secrets.iter().find(|(known, _)| known == name) {
            return Ok(secret.clone());
        }
        let granted = self.grants.secret_names.iter().any(|granted| granted == name);
        let read = match self.grants.secrets.clone().filter(|_| granted) {
            Some(port) => self.wait(|_| port.read(name)).and_then(|read| read.map_err(|error| error.to_string())),
            None => {
                let name = short(name.to_owned(), MAX_NAME);
                Err(not_granted(&format!("secret {name}"), &self.grants.secret_names))
            }
        };
        let outcome = read.as_ref().map(drop).map_err(String::as_str);
        self.audit(&Use::Secret { name: &short(name.to_owned(), MAX_NAME), outcome });
        if let Ok(secret) = &read {
            self.uses.secrets.push((name.to_owned(), secret.clone()));
        }
        read
    }

    /// The request as it is to be sent, and who sends it.
    fn check_request(&self, request: http::Request) -> std::result::Result<(Arc<dyn Http>, HttpRequest), String> {
        let http::Request { method, url, headers, body } = request;
        let parsed = urls::parse(&url)?;
        let granted = self.grants.urls.iter().any(|grant| grant.allows(&method, &parsed));
        let Some(port) = self.grants.http.clone().filter(|_| granted) else {
            let (method, url) = (short(method, 16), self.uses.redacted(&urls::without_query(&parsed)));
            let url = short(url, MAX_NAME);
            return Err(not_granted(&format!("{method} {url}"), &self.grants.urls));
        };
        if body.len() > MAX_REQUEST_BODY {
            return Err(format!("a request's body has at most {MAX_REQUEST_BODY} bytes, got {}", body.len()));
        }
        let bytes: usize = headers.iter().map(|(name, value)| name.len() + value.len()).sum();
        if headers.len() > MAX_HEADERS || bytes > MAX_HEADER_BYTES {
            let got = format!("{} of {bytes} bytes", headers.len());
            return Err(format!("a request has at most {MAX_HEADERS} headers of {MAX_HEADER_BYTES} bytes, got {got}"));
        }
        let own = |name: &str| OWN_HEADERS.iter().any(|own| own.eq_ignore_ascii_case(name));
        if let Some((name, _)) = headers.iter().find(|(name, _)| own(name)) {
            return Err(format!("the header {name} is set by the host alone"));
        }
        Ok((port, HttpRequest { method, url: parsed.into(), headers, body }))
    }

    fn request(&mut self, request: http::Request) -> std::result::Result<HttpResponse, PortError> {
        let method = short(self.uses.redacted(&request.method), 16);
        let place = urls::parse(&request.url).map(|url| urls::without_query(&url)).unwrap_or_default();
        let place = self.uses.redacted(&place);
        let (began, sent) = (Instant::now(), request.body.len() as u64);
        let answered = self.check_request(request).map_err(PortError::Failed).and_then(|(port, request)| {
            let answered = self.wait(|left| port.send(&request, left.min(MAX_REQUEST_WAIT)));
            answered.unwrap_or_else(|text| Err(PortError::Failed(text))).and_then(check_response)
        });
        let reason = answered.as_ref().err().map(|error| self.uses.redacted(&error.to_string())).unwrap_or_default();
        self.audit(&Use::Request {
            method: &method,
            url: &short(place, 2 * MAX_NAME),
            outcome: answered.as_ref().map(|answer| answer.status).map_err(|_| reason.as_str()),
            took: began.elapsed(),
            sent,
            received: answered.as_ref().map_or(0, |answer| answer.body.len() as u64),
        });
        answered
    }
}

/// A port that gives more than it should gives nothing.
fn check_response(answer: HttpResponse) -> std::result::Result<HttpResponse, PortError> {
    let bytes: usize = answer.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
    let (many, long) = (answer.headers.len() > HttpResponse::MAX_HEADERS, bytes > HttpResponse::MAX_HEADER_BYTES);
    if many || long || answer.body.len() > HttpResponse::MAX_BODY {
        return Err(PortError::Failed("the answer is larger than it may be".to_owned()));
    }
    Ok(answer)
}

fn not_granted(what: &str, granted: &[impl ToString]) -> String {
    let granted: Vec<String> = granted.iter().map(ToString::to_string).collect();
    let granted = if granted.is_empty() { "none".to_owned() } else { granted.join(", ") };
    format!("{what} is not granted to this plugin; granted: {granted}")
}

impl lookup::Host for State {
    fn by_key(
        &mut self,
        topic: String,
        key: String,
        limit: u32,
    ) -> Result<std::result::Result<Vec<lookup::Hit>, String>> {
        let found = self.look(&topic, &key, limit);
        self.uses.refused += u32::from(found.is_err());
        Ok(found)
    }
}

impl secrets::Host for State {
    fn get(&mut self, name: String) -> Result<std::result::Result<String, String>> {
        Ok(self.secret(&name).map(|secret| secret.reveal().to_owned()))
    }
}

impl http::Host for State {
    fn send(&mut self, request: http::Request) -> Result<std::result::Result<http::Response, String>> {
        self.uses.requests = self.uses.requests.saturating_add(1);
        if self.uses.requests > MAX_REQUESTS {
            return Ok(Err(format!("more than {MAX_REQUESTS} requests in one call")));
        }
        match self.request(request) {
            Ok(HttpResponse { status, headers, body }) => Ok(Ok(http::Response { status, headers, body })),
            Err(PortError::Failed(text)) => Ok(Err(text)),
            Err(PortError::Busy(reason)) => Err(NotNow(reason).into()),
        }
    }
}
