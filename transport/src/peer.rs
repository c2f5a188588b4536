//! One connection from its start to its end.

use std::{
    future::Future,
    io,
    pin::pin,
    sync::atomic::{AtomicU64, Ordering},
    task::Poll,
    time::Duration,
};

use bytes::BytesMut;
use sluice_protocol::{Encoding, FrameError, Response, ResponseCode, decode};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    net::tcp::OwnedReadHalf,
    time::{Instant, sleep_until},
};
use tracing::debug;

use crate::{Handler, Responder, Session};

/// Bytes for which room is made for reading: at first, and at most. Larger frames make their own room.
const READ: (usize, usize) = (8 * 1024, 64 * 1024);
/// Room is made when less than this is left, bytes.
const SCARCE: usize = 2 * 1024;

pub(crate) struct Terms {
    pub frame_bytes: usize,
    pub idle: Duration,
    pub drain: Duration,
}

/// Tells the handler that the connection is gone, however it ended.
struct Closing<'a, H: Handler>(&'a H, &'a Session);

impl<H: Handler> Drop for Closing<'_, H> {
    fn drop(&mut self) {
        self.1.close();
        self.1.0.calls.close();
        self.0.closed(self.1);
    }
}

/// Serves the connection until the peer or we close it, or until `stop` and then the end of all requests in work.
pub(crate) async fn run<H: Handler>(
    mut from: OwnedReadHalf,
    session: &Session,
    handler: &H,
    terms: &Terms,
    stop: impl Future<Output = ()>,
) {
    handler.opened(session);
    let _closing = Closing(handler, session);
    let alive = Alive::new();
    let ended = tokio::select! {
        biased;
        ended = read(&mut from, session, handler, terms, &alive, stop) => ended,
        ended = session.0.outbox.write(|| alive.touch()) => ended,
        () = session.0.outbox.closed() => Ok(()),
        () = alive.dead(terms.idle) => Err(io::Error::new(io::ErrorKind::TimedOut, "nothing came or went")),
    };
    match ended {
        Ok(()) => debug!(?session, "connection closed"),
        Err(problem) => debug!(?session, %problem, "connection lost"),
    }
}

/// When something last came or went.
struct Alive {
    start: Instant,
    last_ms: AtomicU64,
}

impl Alive {
    fn new() -> Self {
        Self { start: Instant::now(), last_ms: AtomicU64::new(0) }
    }

    fn touch(&self) {
        self.last_ms.store(self.start.elapsed().as_millis() as u64, Ordering::Relaxed);
    }

    /// Waits until nothing has come or gone for `idle`.
    async fn dead(&self, idle: Duration) {
        loop {
            let last = self.start + Duration::from_millis(self.last_ms.load(Ordering::Relaxed));
            if last.elapsed() >= idle {
                return;
            }
            sleep_until(last + idle).await;
        }
    }
}

async fn read<H: Handler>(
    from: &mut (impl AsyncRead + Unpin),
    session: &Session,
    handler: &H,
    terms: &Terms,
    alive: &Alive,
    stop: impl Future<Output = ()>,
) -> io::Result<()> {
    let mut stop = pin!(stop);
    let mut buffer = BytesMut::new();
    let mut room = READ.0;
    loop {
        while let Some(()) = take_one(&mut buffer, session, handler, terms)? {
            if !session.0.may_enter() {
                handler.caught_up();
                session.0.wait_to_enter().await;
            }
            if !session.0.outbox.has_room() {
                handler.caught_up();
                session.0.outbox.room().await;
            }
        }
        handler.caught_up();
        if !session.0.outbox.is_empty() {
            let_write().await;
        }
        if buffer.capacity() - buffer.len() < SCARCE {
            buffer.reserve(room);
        }
        let free = buffer.capacity() - buffer.len();
        let got = tokio::select! {
            biased;
            got = from.read_buf(&mut buffer) => got?,
            () = &mut stop => return drain(session, terms).await,
        };
        if got == 0 {
            return Ok(());
        }
        alive.touch();
        if got == free {
            room = (room * 2).min(READ.1);
        }
    }
}

/// Takes one frame and hands it on; `None` when there is no whole one.
fn take_one<H: Handler>(
    buffer: &mut BytesMut,
    session: &Session,
    handler: &H,
    terms: &Terms,
) -> io::Result<Option<()>> {
    match decode(buffer, terms.frame_bytes) {
        Ok(None) => return Ok(None),
        Ok(Some(frame)) if frame.header.is_response() => session.0.calls.answer(frame),
        Ok(Some(frame)) => {
            let responder = Responder::new(session, &frame.header);
            handler.request(session, frame, responder);
        }
        Err(problem @ FrameError::Length { .. }) => return Err(io::Error::new(io::ErrorKind::InvalidData, problem)),
        Err(problem @ FrameError::Header { opaque, oneway, .. }) => {
            debug!(?session, %problem, "a frame was passed over");
            if let (Some(opaque), false) = (opaque, oneway) {
                let answer = Response::error(ResponseCode::SystemError, problem.to_string());
                session.0.outbox.put_response(answer, opaque, Encoding::Json);
            }
        }
    }
    Ok(Some(()))
}

/// Gives way once, so that the answers to what was just read are written before more is read.
async fn let_write() {
    let mut given = false;
    std::future::poll_fn(|cx| {
        if std::mem::replace(&mut given, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Lets requests in work end, and their answers be written; the writing side then ends the connection.
async fn drain(session: &Session, terms: &Terms) -> io::Result<()> {
    let end = async {
        session.0.drained().await;
        session.0.outbox.finish();
        std::future::pending::<()>().await;
    };
    let _ = tokio::time::timeout(terms.drain, end).await;
    Ok(())
}
