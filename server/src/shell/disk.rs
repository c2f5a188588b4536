//! The thread that owns the disk's side of the broker.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::SyncSender,
    },
    time::{Duration, Instant},
};

use sluice_broker::{Applier, Checkpointer, Retention};

use super::{
    Effects, FEW,
    backlog::{Backlog, Batch},
    checkpoints::Checkpoints,
};
use crate::{
    clock,
    failure::{Failure, Result},
};

/// Time between two tries to write what had no room.
const RETRY: Duration = Duration::from_secs(1);
/// Time between two looks for segments to delete.
const RETAIN: Duration = Duration::from_secs(60);
/// Time between two looks for messages that their topics keep no longer.
const EXPIRE: Duration = Duration::from_secs(5);

pub(super) struct Disk {
    applier: Applier,
    retention: Retention,
    buffers: SyncSender<Vec<u8>>,
    /// None once the last one is to be written here.
    checkpoints: Option<Checkpoints>,
    backlog: Arc<Backlog>,
    effects: Effects,
    failed: Arc<AtomicBool>,
}

impl Disk {
    pub fn new(
        applier: Applier,
        retention: Retention,
        (buffers, checkpoints): (SyncSender<Vec<u8>>, Checkpoints),
        backlog: Arc<Backlog>,
        effects: Effects,
        failed: Arc<AtomicBool>,
    ) -> Self {
        let mut disk = Self { applier, retention, buffers, checkpoints: Some(checkpoints), backlog, effects, failed };
        // Before anybody reads: after a crash there is what was gone before it.
        disk.expire();
        disk
    }

    pub fn run(mut self) {
        let (mut retry, mut retain) = (Instant::now() + RETRY, Instant::now() + RETAIN);
        let mut expire = Instant::now() + EXPIRE;
        let mut batches = Vec::new();
        while self.backlog.take(&mut batches, RETRY) {
            if !batches.is_empty() {
                self.settle(&mut batches);
                if let Some(checkpoints) = &mut self.checkpoints {
                    checkpoints.applied(self.applier.applied());
                }
            }
            if self.applier.checkpoint_due() {
                self.checkpoint();
            }
            if Instant::now() >= retry {
                retry = Instant::now() + RETRY;
                self.report("writing what had no room", |disk| disk.applier.retry());
            }
            if Instant::now() >= expire {
                expire = Instant::now() + EXPIRE;
                self.expire();
            }
            if Instant::now() >= retain && !self.applier.is_drafted() {
                retain = Instant::now() + RETAIN;
                self.report("deleting old segments", |disk| {
                    let start = disk.applier.retain(clock::now(), &disk.retention)?;
                    tracing::debug!(%start, "looked for old segments");
                    Ok(())
                });
            }
        }
        if let Some(checkpointer) = self.checkpoints.take().and_then(Checkpoints::end) {
            self.last_checkpoint(checkpointer);
        }
    }

    fn expire(&mut self) {
        self.report("looking for messages that are too old", |disk| disk.applier.expire(clock::now()));
    }

    /// Makes batches durable, then visible, then answers those who waited for it.
    fn settle(&mut self, batches: &mut Vec<Batch>) {
        let mut outcome = self.sync();
        let few = batches.iter().map(|batch| batch.acks.len()).sum::<usize>() <= FEW;
        for batch in batches.drain(..) {
            if let Some(written) = batch.written {
                self.backlog.shrink(written.bytes.len());
                if outcome.is_ok() {
                    outcome = self.apply(written);
                }
            }
            for ack in batch.acks {
                ack.give(outcome.clone(), few);
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
        self.report("drafting a checkpoint", |disk| {
            if let (Some(draft), Some(checkpoints)) = (disk.applier.draft()?, &disk.checkpoints) {
                checkpoints.write(draft);
            }
            Ok(())
        });
    }

    fn last_checkpoint(&mut self, mut checkpointer: Checkpointer) {
        self.report("writing the last checkpoint", |disk| {
            disk.applier.draft()?.map_or(Ok(()), |draft| checkpointer.write(draft))?;
            Ok(())
        });
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

impl Drop for Disk {
    /// After a panic nobody may wait for this thread.
    fn drop(&mut self) {
        if std::thread::panicking() {
            tracing::error!("the disk's thread panicked: the log takes nothing more until the broker is started again");
            self.failed.store(true, Ordering::Release);
            self.backlog.abandon();
        }
    }
}
