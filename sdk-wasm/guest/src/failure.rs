use crate::wit::imports::types::Action;

/// A record that the plugin cannot handle. The other records of the batch stand.
///
/// Any `std::error::Error` becomes a [`Failure::retry`] with the code `failed` through `?`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub(crate) action: Action,
    pub(crate) code: String,
    pub(crate) reason: String,
}

impl Failure {
    fn new(action: Action, code: &str, reason: impl Into<String>) -> Failure {
        Failure { action, code: code.to_owned(), reason: reason.into() }
    }

    /// Try again as the pipeline's own policy says; for what may pass.
    pub fn retry(code: &str, reason: impl Into<String>) -> Failure {
        Failure::new(Action::Retry, code, reason)
    }

    /// To the dead letters at once; for what will never work.
    pub fn dead_letter(code: &str, reason: impl Into<String>) -> Failure {
        Failure::new(Action::DeadLetter, code, reason)
    }

    /// Drop the record and count it as failed.
    pub fn skip(code: &str, reason: impl Into<String>) -> Failure {
        Failure::new(Action::Skip, code, reason)
    }

    /// Stop the pipeline's stage before this record.
    pub fn stop(code: &str, reason: impl Into<String>) -> Failure {
        Failure::new(Action::Stop, code, reason)
    }
}

impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Failure {
        Failure::retry("failed", error.to_string())
    }
}

/// What a filter function may return.
pub trait IntoVerdict {
    /// # Errors
    /// The record failed.
    fn into_verdict(self) -> Result<bool, Failure>;
}

impl IntoVerdict for bool {
    fn into_verdict(self) -> Result<bool, Failure> {
        Ok(self)
    }
}

impl IntoVerdict for Result<bool, Failure> {
    fn into_verdict(self) -> Result<bool, Failure> {
        self
    }
}
