//! What a stage needs of its host: a source, a place to commit to, and where it stood. All of them may block their thread.

use bytes::Bytes;

use crate::batch::Record;

/// Why a port could not do its work.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PortError {
    /// Try again soon: nothing was done.
    #[error("busy: {0}")]
    Busy(String),
    /// Trying again does not help.
    #[error("{0}")]
    Failed(String),
}

/// Reads one queue.
pub trait Source {
    /// Appends up to `max_records` records from offset `position` on to `into`, in offset order, and stops early after `max_bytes`. Gives the
    /// position to read from next, which may pass over records that the pipeline does not want. Never waits for new records.
    ///
    /// # Errors
    /// [`PortError`].
    fn read(
        &mut self,
        position: u64,
        max_records: usize,
        max_bytes: usize,
        into: &mut Vec<Record>,
    ) -> Result<u64, PortError>;
}

/// The changes of one queue's state, as they stand in the log, numbered from 0.
pub trait Changelog {
    /// Number of the first change that the log still holds, and the number behind the last one that is on its disk.
    ///
    /// # Errors
    /// [`PortError`].
    fn bounds(&self) -> Result<(u64, u64), PortError>;

    /// Some changes from this number on, in order; at least one when it is within the bounds.
    ///
    /// # Errors
    /// [`PortError`].
    fn read(&mut self, from: u64) -> Result<Vec<Bytes>, PortError>;
}

/// Where the stage stood.
pub trait Progress {
    /// The position of the last committed unit, or where a new stage starts.
    ///
    /// # Errors
    /// [`PortError`].
    fn load(&mut self) -> Result<u64, PortError>;
}

/// Takes what a turn made.
pub trait Sink {
    /// Makes the outputs, the dead letters, the change of the state and the new position real together, or none of them.
    ///
    /// # Errors
    /// [`PortError`]; then nothing of the unit was committed and the stage will make it again.
    fn commit(&mut self, unit: Unit) -> Result<(), PortError>;

    /// How many changes of the state are on the log's disk; the file of a state must never be ahead of them. 0 where there is no state.
    fn durable_changes(&self) -> u64;
}

/// What stands or falls together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unit {
    pub outputs: Vec<Outgoing>,
    pub dead_letters: Vec<DeadLetter>,
    /// Where the source is read next.
    pub position: u64,
    /// The next change of the queue's state, if there is one.
    pub state: Option<Bytes>,
}

/// A record on its way to a sink. Its offset, times and, unless the plugins changed them, all of its bytes are the source record's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    pub record: Record,
    /// Which of the pipeline's sinks.
    pub sink: usize,
}

/// A source record that a plugin failed on for good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// As it was read, with its offset in the source queue.
    pub record: Record,
    pub queue: u32,
    pub code: String,
    pub reason: String,
    pub step: String,
    /// Lower-case hexadecimal SHA-256 of the plugin.
    pub digest: String,
    /// Times it was tried.
    pub tries: u32,
}

/// A plugin's prefilter, evaluated outside of it.
pub trait Prefilter: Send + Sync {
    /// Whether the record is to enter the plugin.
    fn wants(&self, record: &Record) -> bool;
}

/// Reads messages of a topic by key, for checkers.
pub trait Lookup: Send + Sync {
    /// The newest messages with this key, newest first, at most `limit` (1 to 100). The runtime has already checked that the topic is
    /// granted.
    ///
    /// # Errors
    /// [`PortError`], whose text the plugin gets.
    fn by_key(&self, topic: &str, key: &str, limit: u32) -> Result<Vec<Hit>, PortError>;
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hit {
    pub queue: u32,
    pub offset: u64,
    /// Broker's time, milliseconds since 1970.
    pub stored_at: u64,
    pub headers: Vec<(String, String)>,
    pub body: Bytes,
}
