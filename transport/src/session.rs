use std::{
    fmt,
    future::Future,
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use sluice_protocol::Frame;
use tokio::{
    net::{TcpStream, tcp::OwnedReadHalf},
    sync::Notify,
};

use crate::{
    Error,
    calls::{Calls, Refused},
    outbox::Outbox,
};

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

/// One connection, as a cheap handle.
#[derive(Clone)]
pub struct Session(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    id: u64,
    peer: SocketAddr,
    local: SocketAddr,
    pub outbox: Outbox,
    pub calls: Calls,
    /// Requests of the peer that are in work.
    in_flight: AtomicUsize,
    in_flight_limit: usize,
    /// No more requests are read; who waits for the last answer is told of each.
    draining: AtomicBool,
    /// The number of requests in work fell.
    freed: Notify,
}

impl Session {
    /// A session on a connected stream, and the stream's other half, to be read.
    pub(crate) fn new(
        stream: TcpStream,
        in_flight: usize,
        calls: usize,
        outgoing: usize,
    ) -> io::Result<(Self, OwnedReadHalf)> {
        stream.set_nodelay(true)?;
        let (peer, local) = (stream.peer_addr()?, stream.local_addr()?);
        let (from, to) = stream.into_split();
        let session = Self(Arc::new(Inner {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            peer,
            local,
            outbox: Outbox::new(to, outgoing),
            calls: Calls::new(calls),
            in_flight: AtomicUsize::new(0),
            in_flight_limit: in_flight,
            draining: AtomicBool::new(false),
            freed: Notify::new(),
        }));
        Ok((session, from))
    }

    /// A number that no other connection of this process has or had.
    pub fn id(&self) -> u64 {
        self.0.id
    }

    pub fn peer(&self) -> SocketAddr {
        self.0.peer
    }

    /// The address of ours that the peer is connected to.
    pub fn local(&self) -> SocketAddr {
        self.0.local
    }

    /// Closes the connection; what waits to be sent is not sent.
    pub fn close(&self) {
        self.0.outbox.close();
    }

    pub fn is_closed(&self) -> bool {
        self.0.outbox.is_closed()
    }

    /// Sends a request that wants no answer. Fails when the connection is closed or its peer does not read.
    pub fn send_oneway(&self, request: Frame) -> Result<(), Error> {
        if !self.0.outbox.has_room() {
            return Err(Error::Busy { peer: self.peer() });
        }
        let mut request = request.oneway();
        request.header.opaque = self.0.calls.opaque();
        if self.0.outbox.put_frame(request) { Ok(()) } else { Err(Error::Closed { peer: self.peer() }) }
    }

    /// Sends a request and waits for its answer. It is sent by this call; the future only waits.
    ///
    /// Fails when the connection is closed, when nothing comes in time, or when too much waits already.
    pub fn invoke(
        &self,
        mut request: Frame,
        timeout: Duration,
    ) -> impl Future<Output = Result<Frame, Error>> + Send + 'static {
        let place = Place { session: self.clone(), opaque: self.0.calls.opaque() };
        request.header.opaque = place.opaque;
        let opened = self.0.calls.open(place.opaque).and_then(|answer| {
            if !self.0.outbox.has_room() {
                return Err(Refused::Full);
            }
            self.0.outbox.put_frame(request).then_some(answer).ok_or(Refused::Closed)
        });
        async move {
            let peer = place.session.peer();
            let answer = opened.map_err(|refused| match refused {
                Refused::Full => Error::Busy { peer },
                Refused::Closed => Error::Closed { peer },
            })?;
            match tokio::time::timeout(timeout, answer).await {
                Ok(Ok(frame)) => Ok(frame),
                Ok(Err(_)) => Err(Error::Closed { peer }),
                Err(_) => Err(Error::Timeout { peer: peer.to_string(), after: timeout }),
            }
        }
    }
}

/// The place for an answer, given back however the waiting ends.
struct Place {
    session: Session,
    opaque: i32,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.session.0.calls.forget(self.opaque);
    }
}

impl Inner {
    /// Counts a request in.
    pub fn enter(&self) {
        self.in_flight.fetch_add(1, Ordering::SeqCst);
    }

    /// Counts a request out.
    pub fn leave(&self) {
        // Sequentially consistent with `drained`: one of the two sees the other.
        let before = self.in_flight.fetch_sub(1, Ordering::SeqCst);
        if before == self.in_flight_limit || self.draining.load(Ordering::SeqCst) {
            self.freed.notify_one();
        }
    }

    pub fn may_enter(&self) -> bool {
        self.in_flight.load(Ordering::Acquire) < self.in_flight_limit
    }

    /// Waits until another request may enter.
    pub async fn wait_to_enter(&self) {
        while !self.may_enter() {
            self.freed.notified().await;
        }
    }

    /// Waits until no request is in work.
    pub async fn drained(&self) {
        self.draining.store(true, Ordering::SeqCst);
        while self.in_flight.load(Ordering::SeqCst) > 0 {
            self.freed.notified().await;
        }
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Session({}, {})", self.0.id, self.0.peer)
    }
}
