/// What kind of failure an error is. Every crate's error maps to one of these, and every door maps these to its own codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The caller's input is wrong; the same call will fail again.
    Invalid,
    /// What was named does not exist.
    NotFound,
    /// The state of the world contradicts the request (exists already, version mismatch).
    Conflict,
    /// The caller may not do this.
    Denied,
    /// No room: disk, quota or size.
    Full,
    /// A limit on work in progress is reached; try again soon.
    Busy,
    /// The part that would serve this is not running.
    Unavailable,
    /// Stored bytes are not what they must be.
    Corrupt,
    /// The time allowed ran out.
    Timeout,
    /// A defect of ours.
    Internal,
}

/// A value that breaks a rule of the model. The text names the field and what was expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("{field}: {expected}")]
    Invalid { field: &'static str, expected: String },
    #[error("record at {at}: {what}")]
    Corrupt { at: u64, what: String },
}

impl Error {
    pub(crate) fn invalid(field: &'static str, expected: impl Into<String>) -> Self {
        Self::Invalid { field, expected: expected.into() }
    }

    pub fn kind(&self) -> Kind {
        match self {
            Self::Invalid { .. } => Kind::Invalid,
            Self::Corrupt { .. } => Kind::Corrupt,
        }
    }
}
