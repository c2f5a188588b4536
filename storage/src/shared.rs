//! What the appender, the syncer, the applier and the readers of one log have in common.

use std::{
    collections::VecDeque,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

use parking_lot::{Mutex, RwLock};
use sluice_model::LogOffset;

use crate::{
    Config, Disk, Error, handles::Handles, keys::Keys, queues::Queues, segment::Segment, watermarks::Watermarks,
};

pub(crate) struct Shared {
    pub disk: Arc<dyn Disk>,
    pub config: Config,
    pub marks: Watermarks,
    pub segments: RwLock<VecDeque<Arc<Segment>>>,
    pub queues: Queues,
    pub keys: Keys,
    pub handles: Arc<Handles>,
    /// Why the log takes nothing any more.
    poison: OnceLock<String>,
    /// Whether queues or index could not be written; the log refuses records until they can.
    stuck: AtomicBool,
    stuck_reason: Mutex<String>,
    /// Held while the log is synced: whoever sees the error of a sync poisons the log before anyone else can see a
    /// success of the same file.
    syncing: Mutex<()>,
}

impl Shared {
    pub fn new(
        disk: Arc<dyn Disk>,
        config: Config,
        marks: Watermarks,
        segments: VecDeque<Arc<Segment>>,
        (queues, keys, handles): (Queues, Keys, Arc<Handles>),
    ) -> Self {
        Self {
            disk,
            config,
            marks,
            segments: RwLock::new(segments),
            queues,
            keys,
            handles,
            poison: OnceLock::new(),
            stuck: AtomicBool::new(false),
            stuck_reason: Mutex::default(),
            syncing: Mutex::new(()),
        }
    }

    /// The segment that holds the byte at `at`.
    pub fn segment(&self, at: LogOffset) -> Option<Arc<Segment>> {
        let segments = self.segments.read();
        let after = segments.partition_point(|segment| segment.base <= at.0);
        segments.get(after.checked_sub(1)?).filter(|segment| segment.holds(at)).cloned()
    }

    /// Fails when the log is poisoned.
    pub fn sound(&self) -> Result<(), Error> {
        self.poison.get().map_or(Ok(()), |why| Err(Error::Poisoned(why.clone())))
    }

    pub fn poisoned(&self) -> Option<&str> {
        self.poison.get().map(String::as_str)
    }

    /// Poisons the log for ever because of `error`, and returns it.
    pub fn poison(&self, error: Error) -> Error {
        // Only the first reason is kept.
        let _ = self.poison.set(error.to_string());
        error
    }

    /// Fails while queues or index cannot be written.
    pub fn room(&self) -> Result<(), Error> {
        if self.stuck.load(Ordering::Acquire) {
            return Err(Error::Full(self.stuck_reason.lock().clone()));
        }
        Ok(())
    }

    /// Notes whether queues and index can be written.
    pub fn note(&self, failure: Option<&Error>) {
        if let Some(error) = failure {
            *self.stuck_reason.lock() = error.to_string();
        }
        self.stuck.store(failure.is_some(), Ordering::Release);
    }

    /// Makes these segments durable. The first failure poisons the log: a page whose write-back failed counts as clean
    /// afterwards, so a second sync would report success for bytes that are gone.
    pub fn sync(&self, segments: &[Arc<Segment>]) -> Result<(), Error> {
        let _syncing = self.syncing.lock();
        self.sound()?;
        for segment in segments {
            segment.file.sync().map_err(|error| self.poison(segment.failed("sync", error)))?;
        }
        Ok(())
    }
}
