use std::{collections::VecDeque, io, io::IoSlice, sync::Arc};

use bytes::{Buf, Bytes, BytesMut};
use parking_lot::Mutex;
use sluice_protocol::{Encoding, Frame, Response};
use tokio::{net::tcp::OwnedWriteHalf, sync::Notify};

/// Bodies up to so many bytes are copied next to their heads; larger ones are sent from where they are.
const COPIED: usize = 512;
/// Most pieces in one write.
const PIECES: usize = 256;
/// A connection with so many times the bytes at which reading stops does not read its answers: it is closed.
const HOPELESS: usize = 8;

/// What is to be sent on a connection. Any thread may put something in; one task writes it.
pub(crate) struct Outbox {
    state: Mutex<State>,
    /// There is something to write, or no more will come.
    filled: Notify,
    /// There is room again.
    drained: Notify,
    /// It was closed.
    closing: Notify,
    limit: usize,
}

#[derive(Default)]
struct State {
    /// The socket, until the outbox is closed.
    to: Option<Arc<OwnedWriteHalf>>,
    pieces: VecDeque<Bytes>,
    /// Heads and small bodies behind the last piece.
    tail: BytesMut,
    /// Bytes put in and not yet written.
    waiting: usize,
    /// The writer was told and has not looked since.
    told: bool,
    /// Nothing more is taken; what is there is still written.
    finished: bool,
    /// Nothing more is taken or written.
    closed: bool,
}

impl State {
    fn put(&mut self, body: Bytes) {
        if body.len() <= COPIED {
            self.tail.extend_from_slice(&body);
        } else {
            self.cut();
            self.pieces.push_back(body);
        }
    }

    /// Writes what the socket takes without waiting; answers how many bytes. A failure is left for the connection's task to meet.
    fn write_now(&mut self) -> usize {
        self.cut();
        let Some(to) = self.to.clone() else { return 0 };
        let mut total = 0;
        while !self.pieces.is_empty() {
            let Ok(written @ 1..) = try_write(&to, &self.pieces) else { break };
            consume(&mut self.pieces, written);
            total += written;
        }
        total
    }

    fn cut(&mut self) {
        if !self.tail.is_empty() {
            self.pieces.push_back(self.tail.split().freeze());
        }
    }
}

impl Outbox {
    /// An outbox that is full at `limit` bytes.
    pub fn new(to: OwnedWriteHalf, limit: usize) -> Self {
        let (filled, drained, closing) = (Notify::new(), Notify::new(), Notify::new());
        let state = Mutex::new(State { to: Some(Arc::new(to)), ..State::default() });
        Self { state, filled, drained, closing, limit }
    }

    pub fn put_response(&self, response: Response, opaque: i32, encoding: Encoding) -> bool {
        self.put(|state| encode(response, opaque, encoding, state))
    }

    /// [`Self::put_response`] that writes at once what the socket takes, when nothing waits to be written before it.
    pub fn write_response(&self, response: Response, opaque: i32, encoding: Encoding) {
        self.put(|state| {
            let idle = state.waiting == 0;
            let len = encode(response, opaque, encoding, state);
            if idle { len - state.write_now() } else { len }
        });
    }

    pub fn put_frame(&self, frame: Frame) -> bool {
        self.put(|state| {
            let before = state.tail.len();
            frame.encode_head(&mut state.tail);
            let len = state.tail.len() - before + frame.body.len();
            state.put(frame.body);
            len
        })
    }

    /// Whether it was taken: not on a closed connection.
    fn put(&self, encode: impl FnOnce(&mut State) -> usize) -> bool {
        let mut state = self.state.lock();
        if state.finished || state.closed {
            return false;
        }
        let len = encode(&mut state);
        state.waiting += len;
        if state.waiting == 0 {
            return true;
        }
        if state.waiting > self.limit.saturating_mul(HOPELESS) {
            state.closed = true;
        }
        let (tell, closed) = (!std::mem::replace(&mut state.told, true), state.closed);
        drop(state);
        if closed {
            self.closing.notify_one();
        }
        if tell {
            self.filled.notify_one();
        }
        true
    }

    /// Takes nothing more; the writer ends when all is written.
    pub fn finish(&self) {
        self.state.lock().finished = true;
        self.filled.notify_one();
    }

    /// Takes nothing more and forgets what is there.
    pub fn close(&self) {
        let mut state = self.state.lock();
        *state = State { closed: true, ..State::default() };
        drop(state);
        self.closing.notify_one();
    }

    /// Waits until the outbox is closed.
    pub async fn closed(&self) {
        while !self.state.lock().closed {
            self.closing.notified().await;
        }
    }

    pub fn is_closed(&self) -> bool {
        let state = self.state.lock();
        state.closed || state.finished
    }

    pub fn has_room(&self) -> bool {
        self.state.lock().waiting < self.limit
    }

    pub fn is_empty(&self) -> bool {
        self.state.lock().waiting == 0
    }

    /// Waits until there is room.
    pub async fn room(&self) {
        while !self.has_room() {
            self.drained.notified().await;
        }
    }

    /// Writes all that is put in until the outbox is finished; calls `wrote` after every write.
    pub async fn write(&self, mut wrote: impl FnMut()) -> io::Result<()> {
        let Some(to) = self.state.lock().to.clone() else { return Ok(()) };
        let mut pieces = VecDeque::new();
        loop {
            let finished = {
                let mut state = self.state.lock();
                state.told = false;
                state.cut();
                std::mem::swap(&mut pieces, &mut state.pieces);
                state.finished
            };
            if pieces.is_empty() {
                if finished {
                    return Ok(());
                }
                self.filled.notified().await;
                continue;
            }
            while !pieces.is_empty() {
                match try_write(&to, &pieces) {
                    Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                    Ok(written) => {
                        consume(&mut pieces, written);
                        wrote();
                        self.written(written);
                    }
                    Err(full) if full.kind() == io::ErrorKind::WouldBlock => to.writable().await?,
                    Err(problem) => return Err(problem),
                }
            }
        }
    }

    fn written(&self, bytes: usize) {
        let mut state = self.state.lock();
        let was_full = state.waiting >= self.limit;
        state.waiting = state.waiting.saturating_sub(bytes);
        if was_full && state.waiting < self.limit {
            self.drained.notify_one();
        }
    }
}

/// Bytes that it comes to.
fn encode(response: Response, opaque: i32, encoding: Encoding, state: &mut State) -> usize {
    let len = response.body.len();
    let before = state.tail.len();
    response.encode_head(opaque, encoding, &mut state.tail);
    let head = state.tail.len() - before;
    response.body.into_parts().for_each(|part| state.put(part));
    head + len
}

fn try_write(to: &OwnedWriteHalf, pieces: &VecDeque<Bytes>) -> io::Result<usize> {
    if let [only] = pieces.as_slices().0 {
        return to.try_write(only);
    }
    let mut slices = [IoSlice::new(&[]); PIECES];
    let mut count = 0;
    for (slice, piece) in slices.iter_mut().zip(pieces) {
        *slice = IoSlice::new(piece);
        count += 1;
    }
    to.try_write_vectored(&slices[..count])
}

fn consume(pieces: &mut VecDeque<Bytes>, mut written: usize) {
    while let Some(piece) = pieces.front_mut() {
        if written < piece.len() {
            piece.advance(written);
            return;
        }
        written -= piece.len();
        pieces.pop_front();
    }
}
