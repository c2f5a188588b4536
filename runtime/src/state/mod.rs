//! What processors keep by key: a view of the changes that stand in the log, in memory as far as it is hot, on disk as a whole.
//!
//! Each queue of a pipeline has a [`Partition`] of its own. A turn writes into it under a journal; once the turn's changes stand in the
//! log, together with its outputs and its position, the journal is dropped, otherwise it is played back. Now and then the partition
//! writes what changed to its [`Engine`], with the number of the last change that it holds; what came after is read from the log when
//! the partition is opened again.

mod change;
mod engine;
mod journal;
mod partition;
mod places;
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests;
mod wheel;

pub use engine::Engine;
pub(crate) use partition::TIMERS_AT_ONCE;
pub use partition::{KeyValue, Page, Partition, Shared};

pub(crate) use places::{clock_name, store_name, timers_name};
pub use wheel::{Domain, Timer};

/// Why a state cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    #[error("the state's file: {0}")]
    File(String),
    /// A change in the log is malformed.
    #[error("the state's changes: {0}")]
    Change(String),
    /// The call on whose behalf it was read has used up its time.
    #[error("the time is up")]
    TimeIsUp,
    #[error("{0}")]
    Port(#[from] crate::ports::PortError),
    /// The file is lost or older than the log reaches back.
    #[error(
        "the state stands at change {stands}, and the log holds changes {first} to {end} only; reset the pipeline to begin anew"
    )]
    Gap { stands: u64, first: u64, end: u64 },
}
