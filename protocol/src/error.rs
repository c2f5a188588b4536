use std::borrow::Cow;

use sluice_model::Kind;

/// Longest part of a bad value that an error quotes, characters.
const QUOTED: usize = 80;

/// A frame that is not one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The length makes no sense, so the next frame cannot be found: the connection must be closed.
    #[error("frame length: expected 4 to {limit} bytes, got {got}")]
    Length { got: i32, limit: usize },
    /// The header cannot be read, but the frame was skipped whole: the connection lives on.
    #[error("frame header: {what}")]
    Header {
        /// The request's number, when it could be read: who asked can be told.
        opaque: Option<i32>,
        /// The frame is known to want no answer.
        oneway: bool,
        what: String,
    },
}

impl FrameError {
    /// Whether the connection must be closed.
    pub fn is_fatal(&self) -> bool {
        matches!(self, Self::Length { .. })
    }

    pub fn kind(&self) -> Kind {
        Kind::Invalid
    }
}

/// A field of a request, answer or body that is missing or malformed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct FieldError {
    /// The field as the wire calls it.
    pub field: Cow<'static, str>,
    /// What was expected and what came.
    pub problem: String,
}

impl FieldError {
    pub fn new(field: impl Into<Cow<'static, str>>, problem: impl Into<String>) -> Self {
        Self { field: field.into(), problem: problem.into() }
    }

    pub(crate) fn missing(field: &'static str, expected: &str) -> Self {
        Self::new(field, format!("expected {expected}, got nothing"))
    }

    pub(crate) fn malformed(field: &'static str, expected: &str, got: &str) -> Self {
        let got: String = got.chars().take(QUOTED).collect();
        Self::new(field, format!("expected {expected}, got {got:?}"))
    }

    pub fn kind(&self) -> Kind {
        Kind::Invalid
    }
}
