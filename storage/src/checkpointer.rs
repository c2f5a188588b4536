use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use crate::{
    Disk, Error,
    checkpoint::Checkpoint,
    mark::Mark,
    queue::{QUEUE_DIR, Queue},
    shared::Shared,
};

/// More written queues than this are synced by one sync of the whole disk.
const SINGLE_SYNCS: usize = 16;

/// Writes keys, and makes queues, keys and checkpoints durable, on a thread of its own: nobody who waits for a record waits
/// for that.
pub struct Checkpointer {
    shared: Arc<Shared>,
    mark: Mark,
    sequence: u64,
}

/// What queues, keys and views were at an offset of the log: written, but not durable. One is out at a time.
pub struct Draft {
    pub(crate) checkpoint: Checkpoint,
    _out: Out,
}

/// Says that a draft is out, for as long as this value lives.
struct Out(Arc<AtomicBool>);

impl Draft {
    pub(crate) fn new(checkpoint: Checkpoint, out: &Arc<AtomicBool>) -> Self {
        assert!(!out.swap(true, Ordering::AcqRel), "one draft of a checkpoint at a time");
        Self { checkpoint, _out: Out(out.clone()) }
    }
}

impl Drop for Out {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

impl Checkpointer {
    pub(crate) fn new(shared: Arc<Shared>, mark: Mark, sequence: u64) -> Self {
        Self { shared, mark, sequence }
    }

    /// Makes a draft the newest checkpoint, so that the next start begins there.
    ///
    /// [`Error::Full`] leaves the checkpoint before in force; a new draft may be tried. A failed sync poisons the log.
    pub fn write(&mut self, draft: Draft) -> Result<(), Error> {
        self.shared.sound()?;
        self.sync().map_err(|error| self.shared.poison(error))?;
        let checkpoint = Checkpoint { sequence: self.sequence + 1, ..draft.checkpoint };
        let stored = self.mark.store(self.shared.marks.durable()).and_then(|()| checkpoint.store(&*self.shared.disk));
        stored.map_err(|error| if matches!(error, Error::Full(_)) { error } else { self.shared.poison(error) })?;
        self.sequence = checkpoint.sequence;
        self.shared.marks.publish_checkpoint(checkpoint.offset.0);
        Ok(())
    }

    /// Does beforehand what the next checkpoint needs: each sync of the log waits for what the file system has to bring to
    /// the disk with it, and that is to be little.
    ///
    /// To be called now and then, each few megabytes of log. [`Error::Full`] is of no consequence; a failed sync poisons
    /// the log.
    pub fn work_ahead(&mut self) -> Result<(), Error> {
        self.shared.sound()?;
        while self.shared.keys.write_run(&*self.shared.disk)? {}
        if self.dirty().len() <= SINGLE_SYNCS { self.sync().map_err(|error| self.shared.poison(error)) } else { Ok(()) }
    }

    fn dirty(&self) -> Vec<Arc<Queue>> {
        self.shared.queues.all().into_iter().filter(|queue| queue.is_dirty()).collect()
    }

    /// Everything that is written by now, which is all that the draft names and maybe more.
    fn sync(&self) -> Result<(), Error> {
        let disk: &dyn Disk = &*self.shared.disk;
        let dirty = self.dirty();
        if dirty.len() > SINGLE_SYNCS {
            dirty.iter().for_each(|queue| drop(queue.take_dirty()));
            disk.sync_all().map_err(|error| Error::io("sync", QUEUE_DIR, error))?;
        } else {
            dirty.iter().try_for_each(|queue| queue.sync(disk))?;
        }
        self.shared.keys.sync(disk)
    }

    /// Notes durably how far the log is durable, so that the next start can tell lost messages from a torn end.
    ///
    /// To be called about once a second while the log moves. A failure poisons the log.
    pub fn mark_durable(&mut self) -> Result<(), Error> {
        self.shared.sound()?;
        self.mark.store(self.shared.marks.durable()).map_err(|error| self.shared.poison(error))
    }
}
