//! A group's own thread, on which its checker is asked: one that waits for others holds up no other group.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use sluice_broker::HalfCheck;
use sluice_model::{Kind, QueueOffset};

use crate::{
    failure::{Failure, Result},
    priority::Standing,
};

/// Half messages that may wait for one group's checker. The broker tells of the others again.
const WAITING_LIMIT: usize = 256;

/// Longest rest after a call that came to nothing: what is behind it waits.
pub const REST_LIMIT: Duration = Duration::from_secs(2);

/// What came of a half message.
pub enum Came {
    /// So much processor time came to nothing.
    Done { wasted: Duration },
    /// Nobody could be asked; again after this time.
    Later { wait: Duration },
}

/// Takes half messages one by one.
pub struct Lane {
    /// None: it is stopped.
    door: Mutex<Option<SyncSender<HalfCheck>>>,
    waiting: Arc<Mutex<HashSet<QueueOffset>>>,
    /// It was said already that there is no room.
    full: AtomicBool,
    stopping: Arc<AtomicBool>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Lane {
    /// Starts the thread. What it is doing when `stopping` becomes true should come to an end. `each` is called again while it says so.
    pub fn start(stopping: Arc<AtomicBool>, mut each: impl FnMut(&HalfCheck) -> Came + Send + 'static) -> Result<Self> {
        let (door, checks) = sync_channel(WAITING_LIMIT);
        let waiting = Arc::new(Mutex::new(HashSet::new()));
        let (its_waiting, its_stopping) = (waiting.clone(), stopping.clone());
        let mut run = move |checks: Receiver<HalfCheck>| {
            let mut standing = Standing::back();
            for check in checks {
                let mut wasted = Duration::ZERO;
                while !its_stopping.load(Ordering::Acquire) {
                    match each(&check) {
                        Came::Done { wasted: its } => {
                            wasted = its;
                            break;
                        }
                        Came::Later { wait } => rest(wait, &its_stopping),
                    }
                }
                its_waiting.lock().remove(&check.half.queue_offset);
                rest(standing.rest(wasted, REST_LIMIT), &its_stopping);
            }
        };
        let thread = thread::Builder::new()
            .name("checker".to_owned())
            .spawn(move || run(checks))
            .map_err(|error| Failure::new(Kind::Busy, format!("no thread for a checker: {error}")))?;
        let (door, thread) = (Mutex::new(Some(door)), Mutex::new(Some(thread)));
        Ok(Self { door, waiting, full: AtomicBool::new(false), stopping, thread })
    }

    /// Hands a half message in, unless it waits or is looked at already. Does not block; when there is no room it stays undecided.
    pub fn push(&self, check: HalfCheck) {
        let door = self.door.lock();
        let Some(door) = door.as_ref() else { return };
        let (offset, group) = (check.half.queue_offset, check.half.group.clone());
        if !self.waiting.lock().insert(offset) {
            return;
        }
        match door.try_send(check) {
            Ok(()) => self.full.store(false, Ordering::Relaxed),
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.waiting.lock().remove(&offset);
                if !self.full.swap(true, Ordering::Relaxed) {
                    tracing::warn!(%group, waiting = WAITING_LIMIT, "a checker is behind: half messages stay undecided for now");
                }
            }
        }
    }

    pub fn stopping(&self) -> &Arc<AtomicBool> {
        &self.stopping
    }

    /// Leaves what waits undecided, and waits for the thread: for as long as one request may take.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
        self.door.lock().take();
        let thread = self.thread.lock().take();
        thread.iter().for_each(|thread| thread.thread().unpark());
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread of a checker panicked");
        }
    }
}

/// Does nothing for a while, or until it is to stop.
fn rest(time: Duration, stopping: &AtomicBool) {
    let until = Instant::now() + time;
    while !stopping.load(Ordering::Acquire)
        && let Some(left) = until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())
    {
        thread::park_timeout(left);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use bytes::Bytes;
    use sluice_broker::Half;
    use sluice_model::{GroupName, LogOffset, Timestamp};

    use super::*;

    fn check(number: usize) -> HalfCheck {
        let half = Half {
            queue_offset: QueueOffset(number as u64),
            at: LogOffset(0),
            group: GroupName::parse("g").unwrap(),
            stored_at: Timestamp(0),
            checks: 0,
            due: Timestamp(0),
        };
        HalfCheck { half, record: Bytes::new() }
    }

    #[test]
    fn what_waits_is_bounded_asked_once_and_left_undecided_in_the_end() {
        let (tell, told) = channel();
        let (go, sign) = channel::<()>();
        let each = move |check: &HalfCheck| {
            tell.send(check.half.queue_offset.0).unwrap();
            let _ = sign.recv();
            Came::Done { wasted: Duration::ZERO }
        };
        let lane = Lane::start(Arc::default(), each).unwrap();
        lane.push(check(0));
        assert_eq!(told.recv(), Ok(0));
        // The first is looked at, so many wait, and there is no room for the last.
        (0..=WAITING_LIMIT + 1).for_each(|number| lane.push(check(number)));
        (0..=WAITING_LIMIT).for_each(|_| go.send(()).unwrap());
        let seen: Vec<u64> = told.iter().take(WAITING_LIMIT).collect();
        assert_eq!(seen, (1..=WAITING_LIMIT as u64).collect::<Vec<_>>());
        while !lane.waiting.lock().is_empty() {
            std::thread::yield_now();
        }
        lane.push(check(WAITING_LIMIT + 1));
        assert_eq!(told.recv(), Ok(WAITING_LIMIT as u64 + 1), "it is asked about when it comes again");
        lane.push(check(7));
        std::thread::scope(|scope| {
            scope.spawn(|| lane.stop());
            while !lane.stopping.load(Ordering::Acquire) {
                std::thread::yield_now();
            }
            go.send(()).unwrap();
        });
        assert!(told.try_recv().is_err(), "what waited is not asked about any more");
        lane.push(check(8));
        assert!(told.try_recv().is_err());
    }

    #[test]
    fn who_rests_for_long_is_stopped_at_once() {
        let (tell, told) = channel();
        let lane = Lane::start(Arc::default(), move |_| {
            tell.send(()).unwrap();
            Came::Done { wasted: REST_LIMIT }
        });
        let lane = lane.unwrap();
        lane.push(check(0));
        lane.push(check(1));
        told.recv().unwrap();
        let began = Instant::now();
        lane.stop();
        assert!(began.elapsed() < REST_LIMIT / 2, "{:?}", began.elapsed());
        assert!(told.try_recv().is_err(), "it rested");
    }
}
