//! Remoting connections: the framing loop, request and reply finding each other, and limits on everything in between.
//!
//! One task per connection reads and writes, so the answers to a burst of requests leave in one write, and so do answers
//! that other threads give in a burst. A [`Handler`] must not block; it gives its answer through a [`Responder`], at once or
//! later, from any thread.

mod calls;
mod connection;
mod error;
mod limits;
mod outbox;
mod peer;
mod responder;
mod server;
mod session;

pub use connection::{Connection, ConnectionConfig};
pub use error::Error;
pub use limits::Limits;
pub use responder::Responder;
pub use server::serve;
pub use session::Session;

use sluice_protocol::Frame;

/// What is done with requests. All calls come from the connection's task and must not block.
pub trait Handler: Send + Sync + 'static {
    /// A request came. Dropping `responder` unanswered answers with a system error.
    fn request(&self, session: &Session, frame: Frame, responder: Responder);

    /// All requests that came so far were handed on; the connection waits now. For work that is better done for many at once.
    fn caught_up(&self) {}

    /// A connection was made.
    fn opened(&self, session: &Session) {
        let _ = session;
    }

    /// A connection is gone; nothing that is sent to it arrives.
    fn closed(&self, session: &Session) {
        let _ = session;
    }
}
