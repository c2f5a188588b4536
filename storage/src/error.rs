use std::io;

use sluice_model::Kind;

/// Why storage could not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{field}: {expected}")]
    Invalid { field: &'static str, expected: String },
    #[error("{0} is not in the log")]
    NotFound(String),
    /// No room on the disk. Nothing was changed; the call may be repeated when there is room again.
    #[error("no room: {0}")]
    Full(String),
    /// Too much is staged and not yet written.
    #[error("{0} bytes are staged and not written yet")]
    Busy(usize),
    /// A write or sync of this log failed once. It takes nothing any more until it is opened again; reads go on.
    #[error("the log takes no more records: {0}")]
    Poisoned(String),
    /// Another process has the directory open.
    #[error("{0} is in use by another process")]
    InUse(String),
    /// Stored bytes are not what they must be.
    #[error("{file} at byte {offset}: {what}")]
    Corrupt { file: String, offset: u64, what: String },
    /// Part of the log that was durable once is gone. Opening it would lose acknowledged messages.
    #[error(
        "hole in the log: {file} at byte {offset}: {what}; the log was durable up to offset {durable}; \
         restore the file from a copy"
    )]
    Hole { file: String, offset: u64, what: String, durable: u64 },
    /// A view refused a record of the log.
    #[error("record at {at} cannot be applied: {what}")]
    View { at: u64, what: String },
    #[error("{action} {path}: {source}")]
    Io { action: &'static str, path: String, source: io::Error },
}

impl Error {
    pub fn kind(&self) -> Kind {
        match self {
            Self::Invalid { .. } => Kind::Invalid,
            Self::NotFound(_) => Kind::NotFound,
            Self::Full(_) => Kind::Full,
            Self::Busy(_) => Kind::Busy,
            Self::Poisoned(_) => Kind::Unavailable,
            Self::InUse(_) => Kind::Conflict,
            Self::Corrupt { .. } | Self::Hole { .. } => Kind::Corrupt,
            Self::View { .. } => Kind::Internal,
            Self::Io { .. } => Kind::Unavailable,
        }
    }

    /// Names what was done to which file; a full disk becomes [`Error::Full`].
    pub(crate) fn io(action: &'static str, path: &str, source: io::Error) -> Self {
        if is_full(&source) {
            return Self::Full(format!("{action} {path}: {source}"));
        }
        Self::Io { action, path: path.to_owned(), source }
    }
}

pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
