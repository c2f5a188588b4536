//! What is written and waits for the disk, and the brake on it.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex};
use sluice_broker::Written;

use super::{Ack, others::Others};

/// Bytes that may wait for the disk.
const BYTES_LIMIT: usize = 32 * 1024 * 1024;
/// Batches that may wait for the disk: many, since each may be one message.
const BATCHES_LIMIT: usize = 4_096;
/// How long batches gather that nobody waits for: each sync costs the same, however little it brings to the disk.
const GATHER: Duration = Duration::from_millis(2);
/// Bytes that may wait for the disk when somebody brings more who gives way to others.
const CALM_BYTES: usize = 4 * 1024 * 1024;
/// How long he waits beside others for what he wrote last.
const OTHERS_FIRST: Duration = Duration::from_millis(10);
/// Bytes after which they do not gather any longer.
const GATHER_BYTES: usize = 1024 * 1024;

/// What one write brought to the log, and who waits for it to be on disk.
pub(super) struct Batch {
    pub written: Option<Written>,
    pub acks: Vec<Ack>,
}

impl Batch {
    fn bytes(&self) -> usize {
        self.written.as_ref().map_or(0, |written| written.bytes.len())
    }
}

pub(super) struct Backlog {
    state: Mutex<State>,
    others: Arc<Others>,
    /// There is something for the disk's thread.
    filled: Condvar,
    shrunk: Condvar,
    /// Little waits for the disk.
    calm: Condvar,
}

#[derive(Default)]
struct State {
    batches: Vec<Batch>,
    /// Bytes written and not yet visible, those that the disk's thread has in hand among them.
    bytes: usize,
    /// Bytes written since the start, and those of them that are on disk.
    written: u64,
    durable: u64,
    /// Somebody waits for one of the batches, or they are many.
    urgent: bool,
    /// No more come.
    closed: bool,
    /// Nobody takes them any more.
    abandoned: bool,
}

impl State {
    fn has_room(&self) -> bool {
        self.abandoned || (self.bytes <= BYTES_LIMIT && self.batches.len() < BATCHES_LIMIT)
    }
}

impl Backlog {
    pub fn new(others: Arc<Others>) -> Self {
        let (state, filled, shrunk, calm) = Default::default();
        Self { state, others, filled, shrunk, calm }
    }

    /// Whether another batch may be written now.
    pub fn has_room(&self) -> bool {
        self.state.lock().has_room()
    }

    pub fn is_abandoned(&self) -> bool {
        self.state.lock().abandoned
    }

    /// Waits until another batch may be written.
    pub fn wait_for_room(&self) {
        let mut state = self.state.lock();
        while !state.has_room() {
            self.shrunk.wait(&mut state);
        }
    }

    /// Bytes written since the start.
    pub fn written(&self) -> u64 {
        self.state.lock().written
    }

    /// Waits until little waits for the disk. While there are others, whose messages come behind all that waits, also until the first `last`
    /// bytes that were written are there, which is not for long.
    pub fn wait_for_calm(&self, last: u64) {
        let mut state = self.state.lock();
        let others_until = Instant::now() + OTHERS_FIRST;
        while !state.abandoned {
            let patient = state.durable < last && self.others.are_there() && Instant::now() < others_until;
            if state.bytes <= CALM_BYTES && !patient {
                break;
            }
            // Then what gathers is not to gather any longer.
            if !state.batches.is_empty() && !std::mem::replace(&mut state.urgent, true) {
                self.filled.notify_one();
            }
            if patient {
                self.calm.wait_until(&mut state, others_until);
            } else {
                self.calm.wait(&mut state);
            }
        }
    }

    /// Once the backlog is abandoned the batch is dropped, and its acks with it.
    pub fn push(&self, batch: Batch) {
        let mut state = self.state.lock();
        if state.abandoned {
            return;
        }
        state.bytes += batch.bytes();
        state.written += batch.bytes() as u64;
        let first = state.batches.is_empty();
        let urgent = !batch.acks.is_empty() || state.bytes >= GATHER_BYTES;
        let news = first || (urgent && !state.urgent);
        state.urgent |= urgent;
        state.batches.push(batch);
        drop(state);
        // Batches that nobody waits for do not wake the disk's thread each; it comes for them.
        if news {
            self.filled.notify_one();
        }
    }

    /// No more batches come.
    pub fn close(&self) {
        self.state.lock().closed = true;
        self.filled.notify_one();
    }

    /// Drops what waits and what comes: the disk's thread is gone.
    pub fn abandon(&self) {
        let mut state = self.state.lock();
        state.abandoned = true;
        let dropped = std::mem::take(&mut state.batches);
        drop(state);
        drop(dropped);
        self.shrunk.notify_all();
        self.calm.notify_all();
    }

    /// Moves all batches to `taken`, once somebody waits for one or they have gathered; none after `patience`. Answers
    /// whether more may come.
    pub fn take(&self, taken: &mut Vec<Batch>, patience: Duration) -> bool {
        let mut state = self.state.lock();
        let deadline = Instant::now() + patience;
        while state.batches.is_empty() && !state.closed {
            if self.filled.wait_until(&mut state, deadline).timed_out() {
                break;
            }
        }
        let deadline = Instant::now() + GATHER;
        while !state.batches.is_empty() && !state.urgent && !state.closed {
            if self.filled.wait_until(&mut state, deadline).timed_out() {
                break;
            }
        }
        std::mem::swap(&mut state.batches, taken);
        state.urgent = false;
        let more = !state.closed || !taken.is_empty();
        // The room for batches is there again; that for bytes not yet.
        self.shrunk.notify_one();
        more
    }

    /// Counts bytes out that are on disk and visible.
    pub fn shrink(&self, bytes: usize) {
        let mut state = self.state.lock();
        state.bytes = state.bytes.saturating_sub(bytes);
        state.durable += bytes as u64;
        self.shrunk.notify_one();
        self.calm.notify_all();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed test panics")]
mod tests {
    use std::sync::mpsc;

    use sluice_broker::Durability;
    use sluice_model::LogOffset;

    use super::*;

    fn batch(answered: &mpsc::Sender<()>) -> Batch {
        let answered = answered.clone();
        let ack = Ack::Other(Durability::Sync, Box::new(move |_| answered.send(()).unwrap()));
        Batch { written: None, acks: vec![ack] }
    }

    #[test]
    fn who_gives_way_waits_until_little_waits_for_the_disk() {
        let backlog = Arc::new(Backlog::new(Arc::default()));
        backlog.wait_for_calm(0);
        let large = || Written { base: LogOffset(0), end: LogOffset(0), bytes: vec![0; CALM_BYTES] };
        for _ in 0..2 {
            backlog.push(Batch { written: Some(large()), acks: Vec::new() });
        }
        let (told, tell) = mpsc::channel();
        let (waiting, calm) = (backlog.clone(), told.clone());
        let waiter = std::thread::spawn(move || {
            waiting.wait_for_calm(0);
            calm.send("calm").unwrap();
        });
        // It gathers no longer.
        let mut taken = Vec::new();
        assert!(backlog.take(&mut taken, Duration::from_secs(60)));
        assert_eq!(taken.len(), 2);
        told.send("taken").unwrap();
        backlog.shrink(CALM_BYTES);
        assert_eq!([tell.recv(), tell.recv()], [Ok("taken"), Ok("calm")]);
        waiter.join().unwrap();

        backlog.push(Batch { written: Some(large()), acks: Vec::new() });
        let waiting = backlog.clone();
        let waiter = std::thread::spawn(move || waiting.wait_for_calm(0));
        backlog.abandon();
        waiter.join().unwrap();
    }

    #[test]
    fn who_gives_way_has_his_last_write_on_disk_before_the_next_while_others_send() {
        let others = Arc::new(Others::default());
        let backlog = Backlog::new(others.clone());
        let write = |len| {
            let written = Written { base: LogOffset(0), end: LogOffset(0), bytes: vec![0; len] };
            backlog.push(Batch { written: Some(written), acks: Vec::new() });
        };
        write(300);
        let last = backlog.written();
        write(1 << 20);
        backlog.wait_for_calm(last);
        assert_eq!(backlog.state.lock().durable, 0, "nobody else sends");
        others.sent(1, 1);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut taken = Vec::new();
                assert!(backlog.take(&mut taken, Duration::from_secs(60)));
                backlog.shrink(300);
            });
            backlog.wait_for_calm(last);
        });
        let state = backlog.state.lock();
        assert_eq!((state.durable, state.bytes), (300, 1 << 20), "what others wrote behind it is not waited for");
    }

    #[test]
    fn who_gives_way_does_not_do_so_for_ever() {
        let others = Arc::new(Others::default());
        let backlog = Backlog::new(others.clone());
        let written = Written { base: LogOffset(0), end: LogOffset(0), bytes: vec![0; 300] };
        backlog.push(Batch { written: Some(written), acks: Vec::new() });
        others.sent(1, 1);
        backlog.wait_for_calm(300);
        assert_eq!(backlog.state.lock().durable, 0);
    }

    #[test]
    fn nobody_waits_on_a_backlog_that_is_abandoned() {
        let backlog = Arc::new(Backlog::new(Arc::default()));
        let (answered, answers) = mpsc::channel();
        (0..BATCHES_LIMIT).for_each(|_| backlog.push(batch(&answered)));
        assert!(!backlog.has_room() && !backlog.is_abandoned());
        let waiting = backlog.clone();
        let waiter = std::thread::spawn(move || waiting.wait_for_room());
        backlog.abandon();
        waiter.join().unwrap();
        backlog.push(batch(&answered));
        drop(answered);
        assert_eq!(answers.recv(), Err(mpsc::RecvError), "dropped, not answered");
    }
}
