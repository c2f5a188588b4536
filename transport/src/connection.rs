use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use sluice_protocol::Frame;
use tokio::{net::TcpStream, sync::Semaphore, time::timeout_at};

use crate::{
    Error, Handler, Session,
    peer::{Terms, run},
};

/// Limits of a connection that we make.
#[derive(Clone, Debug)]
pub struct ConnectionConfig {
    /// How long making the connection may take.
    pub connect_timeout: Duration,
    /// After a failed attempt, how long the next one waits at first and at most; it doubles with each failure.
    pub backoff: (Duration, Duration),
    /// Most requests that wait for an answer at a time; more wait to be sent.
    pub in_flight: usize,
    /// Most bytes waiting to be sent.
    pub outgoing_bytes: usize,
    /// Longest frame, bytes.
    pub frame_bytes: usize,
    /// The connection is closed when nothing comes or goes for so long.
    pub idle: Duration,
}

impl Default for ConnectionConfig {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(3),
            backoff: (Duration::from_millis(50), Duration::from_secs(2)),
            in_flight: 65_535,
            outgoing_bytes: 64 * 1024 * 1024,
            frame_bytes: sluice_model::limits::FRAME_LEN,
            idle: Duration::from_secs(120),
        }
    }
}

/// A connection to one address: made when it is first used, and again when it was lost. Cheap to clone; it is closed when the
/// last clone is gone.
pub struct Connection<H: Handler> {
    shared: Arc<Shared<H>>,
}

struct Shared<H> {
    address: String,
    config: ConnectionConfig,
    handler: Arc<H>,
    session: Mutex<Option<Session>>,
    /// Held by who connects; remembers the last failure.
    connecting: tokio::sync::Mutex<Failures>,
    in_flight: Semaphore,
}

#[derive(Default)]
struct Failures {
    count: u32,
    retry_at: Option<Instant>,
    last: String,
}

impl<H> Drop for Shared<H> {
    fn drop(&mut self) {
        if let Some(session) = self.session.get_mut() {
            session.close();
        }
    }
}

impl<H: Handler> Clone for Connection<H> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone() }
    }
}

impl<H: Handler> fmt::Debug for Connection<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Connection({})", self.shared.address)
    }
}

impl<H: Handler> Connection<H> {
    /// A connection to `address` (`host:port`), not made yet. `handler` gets the requests that the peer sends.
    pub fn new(address: impl Into<String>, handler: Arc<H>, config: ConnectionConfig) -> Self {
        let in_flight = Semaphore::new(config.in_flight);
        let (session, connecting) = (Mutex::new(None), tokio::sync::Mutex::default());
        Self { shared: Arc::new(Shared { address: address.into(), config, handler, session, connecting, in_flight }) }
    }

    pub fn address(&self) -> &str {
        &self.shared.address
    }

    /// Sends a request and waits for its answer; `timeout` is for everything, connecting included.
    pub async fn invoke(&self, request: Frame, timeout: Duration) -> Result<Frame, Error> {
        let shared = &self.shared;
        let until = Instant::now() + timeout;
        let late = || Error::Timeout { peer: shared.address.clone(), after: timeout };
        let begin = async {
            let permit = shared.in_flight.acquire().await;
            (permit, self.session().await)
        };
        let (_permit, session) = timeout_at(until.into(), begin).await.map_err(|_| late())?;
        session?.invoke(request, until.saturating_duration_since(Instant::now())).await.map_err(|problem| match problem
        {
            Error::Timeout { .. } => late(),
            other => other,
        })
    }

    /// Sends a request that wants no answer; connects if need be.
    pub async fn send_oneway(&self, request: Frame) -> Result<(), Error> {
        self.session().await?.send_oneway(request)
    }

    /// The living connection; makes it if there is none.
    ///
    /// Soon after a failed attempt it fails at once with that failure.
    pub async fn session(&self) -> Result<Session, Error> {
        if let Some(session) = self.living() {
            return Ok(session);
        }
        let shared = &self.shared;
        let mut failures = shared.connecting.lock().await;
        if let Some(session) = self.living() {
            return Ok(session);
        }
        let fail = |problem: String| Error::Connect { address: shared.address.clone(), problem };
        if failures.retry_at.is_some_and(|at| at > Instant::now()) {
            return Err(fail(format!("{} (a moment ago)", failures.last)));
        }
        match self.connect().await {
            Ok(session) => {
                *failures = Failures::default();
                *shared.session.lock() = Some(session.clone());
                Ok(session)
            }
            Err(problem) => {
                let (first, most) = shared.config.backoff;
                let wait = first.saturating_mul(1 << failures.count.min(16)).min(most);
                let count = failures.count.saturating_add(1);
                *failures = Failures { count, retry_at: Some(Instant::now() + wait), last: problem.clone() };
                Err(fail(problem))
            }
        }
    }

    /// Closes the connection; the next use makes it anew.
    pub fn close(&self) {
        if let Some(session) = self.shared.session.lock().take() {
            session.close();
        }
    }

    fn living(&self) -> Option<Session> {
        self.shared.session.lock().as_ref().filter(|session| !session.is_closed()).cloned()
    }

    async fn connect(&self) -> Result<Session, String> {
        let config = &self.shared.config;
        let connect = TcpStream::connect(&self.shared.address);
        let stream = tokio::time::timeout(config.connect_timeout, connect)
            .await
            .map_err(|_| format!("no connection within {:?}", config.connect_timeout))?
            .map_err(|problem| problem.to_string())?;
        let (session, from) = Session::new(stream, config.in_flight, config.in_flight, config.outgoing_bytes)
            .map_err(|problem| problem.to_string())?;
        let terms = Terms { frame_bytes: config.frame_bytes, idle: config.idle, drain: Duration::ZERO };
        let (handler, task) = (self.shared.handler.clone(), session.clone());
        tokio::spawn(async move { run(from, &task, &*handler, &terms, std::future::pending()).await });
        Ok(session)
    }
}
