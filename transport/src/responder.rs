use sluice_protocol::{Encoding, Header, Response, ResponseCode};

use crate::Session;

/// The right and the duty to answer one request, once, from any thread. Dropping it answers with a system error.
///
/// It counts as a request in work until it is gone.
#[derive(Debug)]
pub struct Responder {
    session: Session,
    opaque: i32,
    encoding: Encoding,
    /// Nobody waits for an answer: the request wanted none, or has it.
    silent: bool,
    counted: bool,
}

impl Responder {
    pub(crate) fn new(session: &Session, header: &Header) -> Self {
        session.0.enter();
        Self {
            session: session.clone(),
            opaque: header.opaque,
            encoding: header.encoding,
            silent: header.is_oneway(),
            counted: true,
        }
    }

    pub fn session(&self) -> &Session {
        &self.session
    }

    /// The number of the request, unique among those of its connection that are in work.
    pub fn opaque(&self) -> i32 {
        self.opaque
    }

    /// Whether the request wants no answer.
    pub fn is_oneway(&self) -> bool {
        self.silent
    }

    /// Answers; nothing is sent when the request wants no answer or the connection is gone.
    pub fn send(mut self, response: Response) {
        self.answer(response);
    }

    /// [`Self::send`] that writes to the socket from this thread if nothing waits to be written before: the connection's task
    /// need not be woken. Costs a system call, so it is for threads with few answers at a time.
    pub fn send_here(mut self, response: Response) {
        if !std::mem::replace(&mut self.silent, true) {
            self.session.0.outbox.write_response(response, self.opaque, self.encoding);
        }
    }

    /// No longer counts as a request in work: for requests that are kept waiting on purpose, whose number something else
    /// bounds. Otherwise a client that waits for many queues could not even send its heartbeat.
    pub fn park(&mut self) {
        if std::mem::replace(&mut self.counted, false) {
            self.session.0.leave();
        }
    }

    fn answer(&mut self, response: Response) {
        if !std::mem::replace(&mut self.silent, true) {
            self.session.0.outbox.put_response(response, self.opaque, self.encoding);
        }
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        self.answer(Response::error(ResponseCode::SystemError, "the request was dropped without an answer"));
        self.park();
    }
}
