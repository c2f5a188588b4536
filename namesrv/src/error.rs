use std::path::PathBuf;

use sluice_model::Kind;

/// Why the name server cannot do something.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{path}: {problem}")]
    File { path: PathBuf, problem: std::io::Error },
    #[error("{path}: not the name server's configuration values: {problem}")]
    Content { path: PathBuf, problem: serde_json::Error },
    #[error("broker {broker} is not registered and sent one topic only")]
    UnknownBroker { broker: String },
    #[error("{field}: expected {expected}")]
    Field { field: &'static str, expected: String },
}

impl Error {
    pub fn kind(&self) -> Kind {
        match self {
            Self::File { .. } => Kind::Unavailable,
            Self::Content { .. } => Kind::Corrupt,
            Self::UnknownBroker { .. } => Kind::NotFound,
            Self::Field { .. } => Kind::Invalid,
        }
    }
}
