//! A load generator for any broker that speaks RocketMQ's remoting protocol.
//!
//! [`produce`] and [`consume`] carry out a plan and answer with a [`Report`]; [`relay`] looks at single messages on their way.

mod consume;
mod histogram;
mod process;
mod produce;
mod relay;
mod report;
mod stop;

pub use consume::{Consume, consume};
pub use process::Process;
pub use produce::{Fate, Produce, produce};
pub use relay::{Relay, RelayReport, relay};
pub use report::{Latency, Report};
pub use sluice_client::Filter;
pub use stop::Stop;

/// Why a plan could not be carried out.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Client(#[from] sluice_client::Error),
    #[error("{field}: {problem}")]
    Invalid { field: &'static str, problem: String },
    #[error("{failures} requests in a row failed, the last with: {last}")]
    Failing { failures: u32, last: sluice_client::Error },
    #[error("{queue} is locked by another client")]
    Locked { queue: sluice_client::QueueRef },
    #[error("{queue} is out of order: expected an offset from {least} on, got {got}")]
    Order { queue: sluice_client::QueueRef, least: i64, got: i64 },
    #[error("process {pid} cannot be watched: {source}")]
    Process { pid: u32, source: std::io::Error },
    #[error("a worker ended: {0}")]
    Worker(#[from] tokio::task::JoinError),
}

impl Error {
    pub fn kind(&self) -> sluice_model::Kind {
        match self {
            Self::Client(error) => error.kind(),
            Self::Failing { last, .. } => last.kind(),
            Self::Invalid { .. } => sluice_model::Kind::Invalid,
            Self::Process { .. } => sluice_model::Kind::NotFound,
            Self::Locked { .. } => sluice_model::Kind::Busy,
            Self::Order { .. } => sluice_model::Kind::Corrupt,
            Self::Worker(_) => sluice_model::Kind::Internal,
        }
    }
}
