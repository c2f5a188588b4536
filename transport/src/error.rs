use std::{net::SocketAddr, time::Duration};

use sluice_model::Kind;

/// Why a request of ours got no answer.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    #[error("{address} is not an address of the form host:port, or its host is unknown: {problem}")]
    Address { address: String, problem: String },
    #[error("cannot connect to {address}: {problem}")]
    Connect { address: String, problem: String },
    #[error("the connection to {peer} is closed")]
    Closed { peer: SocketAddr },
    #[error("no answer from {peer} within {after:?}")]
    Timeout { peer: String, after: Duration },
    #[error("too many requests to {peer} wait for an answer, or too many bytes to be sent")]
    Busy { peer: SocketAddr },
}

impl Error {
    pub fn kind(&self) -> Kind {
        match self {
            Self::Address { .. } => Kind::Invalid,
            Self::Connect { .. } | Self::Closed { .. } => Kind::Unavailable,
            Self::Timeout { .. } => Kind::Timeout,
            Self::Busy { .. } => Kind::Busy,
        }
    }
}
