use std::{
    collections::HashMap,
    sync::atomic::{AtomicI32, Ordering},
};

use parking_lot::Mutex;
use sluice_protocol::Frame;
use tokio::sync::oneshot;

/// Requests of ours that wait for the peer's answer, by opaque.
pub(crate) struct Calls {
    waiting: Mutex<Option<HashMap<i32, oneshot::Sender<Frame>>>>,
    next: AtomicI32,
    limit: usize,
}

/// Why a call cannot be made.
pub(crate) enum Refused {
    Full,
    Closed,
}

impl Calls {
    pub fn new(limit: usize) -> Self {
        Self { waiting: Mutex::new(Some(HashMap::new())), next: AtomicI32::new(1), limit }
    }

    pub fn opaque(&self) -> i32 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// Makes a place for the answer to `opaque`.
    pub fn open(&self, opaque: i32) -> Result<oneshot::Receiver<Frame>, Refused> {
        let mut waiting = self.waiting.lock();
        let waiting = waiting.as_mut().ok_or(Refused::Closed)?;
        if waiting.len() >= self.limit {
            return Err(Refused::Full);
        }
        let (to, from) = oneshot::channel();
        waiting.insert(opaque, to);
        Ok(from)
    }

    /// Forgets the place for an answer that nobody waits for any more.
    pub fn forget(&self, opaque: i32) {
        if let Some(waiting) = self.waiting.lock().as_mut() {
            waiting.remove(&opaque);
        }
    }

    /// Gives an answer to who waits for it; nobody may.
    pub fn answer(&self, frame: Frame) {
        let place = self.waiting.lock().as_mut().and_then(|waiting| waiting.remove(&frame.header.opaque));
        if let Some(place) = place {
            // Who waited may have gone.
            let _ = place.send(frame);
        }
    }

    /// The connection is gone: nobody will be answered.
    pub fn close(&self) {
        self.waiting.lock().take();
    }
}
