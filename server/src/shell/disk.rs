//! The thread that owns the disk's side of the broker.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, RecvTimeoutError, SyncSender},
    },
    time::{Duration, Instant},
};

use sluice_broker::{Applier, Retention};

use super::{Effects, backlog::Backlog, writer::Batch};
use crate::{
    clock,
    failure::{Failure, Result},
};

/// Batches brought to the disk with one sync, at the most.
const SYNC_BATCHES: usize = 4_096;
/// How long batches gather that nobody waits for: each sync costs the same, however little it brings to the disk.
const GATHER: Duration = Duration::from_millis(2);
/// Time between two notes of how far the log is durable.
const MARK: Duration = Duration::from_secs(1);
/// Time between two looks for segments to delete.
const RETAIN: Duration = Duration::from_secs(60);

pub(super) struct Disk {
    applier: Applier,
    retention: Retention,
    buffers: SyncSender<Vec<u8>>,
    backlog: Arc<Backlog>,
    effects: Effects,
    failed: Arc<AtomicBool>,
}

impl Disk {
    pub fn new(
        applier: Applier,
        retention: Retention,
        buffers: SyncSender<Vec<u8>>,
        backlog: Arc<Backlog>,
        effects: Effects,
        failed: Arc<AtomicBool>,
    ) -> Self {
        Self { applier, retention, buffers, backlog, effects, failed }
    }

    pub fn run(mut self, batches: Receiver<Batch>) {
        let (mut mark, mut retain) = (Instant::now() + MARK, Instant::now() + RETAIN);
        loop {
            match batches.recv_timeout(MARK) {
                Ok(first) => {
                    self.settle(gather(first, &batches));
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            if self.applier.checkpoint_due() {
                self.checkpoint();
            }
            if Instant::now() >= mark {
                mark = Instant::now() + MARK;
                self.report("noting how far the log is durable", |disk| disk.applier.mark_durable());
                self.report("writing what had no room", |disk| disk.applier.retry());
            }
            if Instant::now() >= retain {
                retain = Instant::now() + RETAIN;
                self.report("deleting old segments", |disk| {
                    let start = disk.applier.retain(clock::now(), &disk.retention)?;
                    tracing::debug!(%start, "looked for old segments");
                    Ok(())
                });
            }
        }
        self.checkpoint();
    }

    /// Makes batches durable, then visible, then answers those who waited for it.
    fn settle(&mut self, batches: Vec<Batch>) {
        let mut outcome = self.sync();
        for batch in batches {
            if let Some(written) = batch.written {
                self.backlog.shrink(written.bytes.len());
                if outcome.is_ok() {
                    outcome = self.apply(written);
                }
            }
            for ack in batch.acks {
                ack.give(outcome.clone());
            }
        }
    }

    fn sync(&mut self) -> Result<()> {
        self.applier.sync().map(|_| ()).map_err(|error| self.fail(error))
    }

    fn apply(&mut self, written: sluice_broker::Written) -> Result<()> {
        let mut effects = Vec::new();
        self.applier.apply(&written, &mut effects).map_err(|error| self.fail(error))?;
        // A full queue of buffers means enough are about; this one goes.
        let _ = self.buffers.try_send(written.bytes);
        effects.into_iter().for_each(|effect| (self.effects)(effect));
        Ok(())
    }

    fn fail(&self, error: sluice_broker::Error) -> Failure {
        if !self.failed.swap(true, Ordering::AcqRel) {
            tracing::error!(%error, "the log failed: it takes nothing more until the broker is started again");
        }
        error.into()
    }

    fn checkpoint(&mut self) {
        self.report("writing a checkpoint", |disk| disk.applier.checkpoint());
    }

    fn report(&mut self, doing: &str, act: impl FnOnce(&mut Self) -> sluice_broker::Result<()>) {
        if self.failed.load(Ordering::Acquire) {
            return;
        }
        if let Err(error) = act(self) {
            tracing::warn!(%error, "{doing} failed; it will be tried again");
        }
    }
}

/// The batches to be brought to the disk together: all that are there, once somebody waits or a moment has passed.
fn gather(first: Batch, batches: &Receiver<Batch>) -> Vec<Batch> {
    let until = Instant::now() + GATHER;
    let mut taken = vec![first];
    while taken.len() < SYNC_BATCHES && taken.last().is_some_and(|newest| newest.acks.is_empty()) {
        match batches.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(batch) => taken.push(batch),
            Err(_) => break,
        }
    }
    let room = SYNC_BATCHES - taken.len();
    taken.extend(batches.try_iter().take(room));
    taken
}
