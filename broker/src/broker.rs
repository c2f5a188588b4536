//! The writer: the one owner of the log's end. Every verb that changes something is here or in a file of its own.

use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use sluice_model::{
    LogOffset, Message, RecordView, Timestamp, TopicName,
    record::{self, Placement},
};
use sluice_storage::{Appender, Written};

use crate::{
    config::Config,
    error::Result,
    locks::Locks,
    members::Members,
    reader::Reader,
    schedule::Schedule,
    state::State,
    system::SYSTEM,
    timers::Wheel,
    topics::{Durability, Topic},
    transaction::FreshHalves,
    unique::UniqueIds,
    waiters::{Token, Waiters},
};

/// What the broker asks its shell to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Ask again for the fetch that waits under this token.
    Wake(Token),
    /// A half message is undecided and its time has come: ask its producer group, or the group's checker. It comes again until
    /// [`Broker::asked`] says that somebody was asked.
    CheckHalf(crate::transaction::HalfCheck),
    /// The set of topics changed: tell the name servers.
    TopicsChanged,
}

/// What the writer, the applier and all readers share.
pub(crate) struct Shared {
    pub config: Config,
    /// Bytes of a segment of the log.
    pub segment_len: u64,
    pub state: RwLock<State>,
    pub members: Mutex<Members>,
    pub waiters: Mutex<Waiters>,
    pub locks: Mutex<Locks>,
}

/// The owner of the log and its views. Not `Clone`: there is one.
///
/// A verb stages records; [`Broker::write`] brings what is staged into the log with one write. The shell hands what was
/// written to the [`crate::Applier`], which makes it durable and visible, and only then answers whoever asked for
/// [`Durability::Sync`].
pub struct Broker {
    pub(crate) appender: Appender,
    pub(crate) shared: Arc<Shared>,
    pub(crate) reader: Reader,
    pub(crate) effects: Vec<Effect>,
    pub(crate) unique: UniqueIds,
    pub(crate) schedule: Schedule,
    pub(crate) wheel: Wheel,
    /// Half messages that were acknowledged before readers can see them.
    pub(crate) fresh_halves: FreshHalves,
    pub(crate) next_queue: u32,
    /// Pops so far: each begins at another queue.
    pub(crate) pops: u32,
    scratch: Vec<u8>,
}

impl Broker {
    pub(crate) fn new(appender: Appender, shared: Arc<Shared>, reader: Reader) -> Self {
        let unique = UniqueIds::new(shared.config.advertised);
        Self {
            appender,
            shared,
            reader,
            effects: Vec::new(),
            unique,
            schedule: Schedule::default(),
            wheel: Wheel::default(),
            fresh_halves: FreshHalves::default(),
            next_queue: 0,
            pops: 0,
            scratch: Vec::new(),
        }
    }

    pub fn config(&self) -> &Config {
        &self.shared.config
    }

    pub fn reader(&self) -> &Reader {
        &self.reader
    }

    /// Bytes staged and not yet written.
    pub fn staged_bytes(&self) -> usize {
        self.appender.pending_bytes()
    }

    /// Writes everything staged since the last call. `None` when nothing is.
    ///
    /// After an error the log takes nothing more, and nothing staged may be acknowledged.
    pub fn write(&mut self) -> Result<Option<Written>> {
        Ok(self.appender.write()?)
    }

    /// Gives back a buffer that the applier is done with.
    pub fn recycle(&mut self, buffer: Vec<u8>) {
        self.appender.recycle(buffer);
    }

    /// What the verbs asked for since the last call.
    pub fn take_effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }

    pub(crate) fn topic(&self, name: &TopicName) -> Option<Arc<Topic>> {
        self.shared.state.read().topics.get(name.as_str()).cloned()
    }

    pub(crate) fn durability(&self, topic: &Topic) -> Durability {
        topic.durability.unwrap_or(self.shared.config.durability)
    }

    /// Stages a unit, and applies those of its records that hold the broker's own state at once, so that the next verb
    /// sees them.
    pub(crate) fn stage(&mut self, unit: &[Message], now: Timestamp) -> Result<Vec<Placement>> {
        let placements = self.appender.stage(unit, now, self.shared.config.advertised)?;
        for (message, place) in unit.iter().zip(&placements) {
            if SYSTEM.holds_state(&message.topic) {
                self.scratch.clear();
                record::encode(&mut self.scratch, message, place);
                let record = RecordView::parse(&self.scratch)?;
                self.shared.state.write().apply(&record)?;
            }
        }
        Ok(placements.to_vec())
    }

    pub(crate) fn stage_one(&mut self, message: Message, now: Timestamp) -> Result<LogOffset> {
        let placements = self.stage(std::slice::from_ref(&message), now)?;
        Ok(placements.first().map_or(LogOffset(0), |place| place.log_offset))
    }
}
