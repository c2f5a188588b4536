use sluice_model::Kind;

/// What a broker call can fail with. The text names what was wrong and what was expected.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Model(#[from] sluice_model::Error),
    #[error(transparent)]
    Store(#[from] sluice_storage::Error),
    #[error("{field}: {expected}")]
    Invalid { field: &'static str, expected: String },
    #[error("{what} {name:?} does not exist")]
    NotFound { what: &'static str, name: String },
    #[error("{what} {name:?} exists already")]
    Exists { what: &'static str, name: String },
    #[error("{0}")]
    Denied(String),
    #[error("{0}")]
    Conflict(String),
    #[error("{0}")]
    Busy(String),
}

impl Error {
    pub fn invalid(field: &'static str, expected: impl Into<String>) -> Self {
        Self::Invalid { field, expected: expected.into() }
    }

    pub fn not_found(what: &'static str, name: impl ToString) -> Self {
        Self::NotFound { what, name: name.to_string() }
    }

    pub fn kind(&self) -> Kind {
        match self {
            Self::Model(e) => e.kind(),
            Self::Store(e) => e.kind(),
            Self::Invalid { .. } => Kind::Invalid,
            Self::NotFound { .. } => Kind::NotFound,
            Self::Exists { .. } | Self::Conflict(_) => Kind::Conflict,
            Self::Denied(_) => Kind::Denied,
            Self::Busy(_) => Kind::Busy,
        }
    }
}

pub type Result<T> = std::result::Result<T, Error>;
