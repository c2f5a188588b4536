use std::fmt;
use std::time::Duration;

use crate::bindings::Action;

/// Why a plugin cannot be started or a stage cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the WebAssembly engine does not start: {0}")]
    Engine(String),
    #[error("config `{param}`: {problem}")]
    Param { param: String, problem: String },
    #[error("plugin {plugin} refuses its config: {reason}")]
    Configure { plugin: String, reason: String },
    #[error("plugin {plugin} has no role {role}; it has {has}")]
    Role { plugin: String, role: &'static str, has: String },
    #[error("limit `{limit}`: {problem}")]
    Limit { limit: &'static str, problem: String },
    #[error("{0}")]
    Plan(String),
    #[error("all {0} plugin instances are in use; raise the runtime's `instances` or run fewer queues")]
    Full(u32),
    #[error("plugin {plugin} does not start: {failure}")]
    Start { plugin: String, failure: Failure },
    #[error("{0}")]
    State(#[from] crate::state::StateError),
    #[error("{0}")]
    Port(#[from] crate::ports::PortError),
}

/// Longest message of a refusal: what an upload says of itself may be megabytes.
const MAX_MESSAGE: usize = 4096;

/// Stable codes of [`Refusal`], as users and scripts see them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusalCode {
    TooLarge,
    NotWasm,
    CoreModule,
    NotAComponent,
    Invalid,
    CompileTimeout,
    UnknownImport,
    ImportType,
    NoRole,
    ExportType,
    ContractVersion,
    Instantiate,
    Describe,
    Manifest,
}

impl RefusalCode {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            RefusalCode::TooLarge => "too-large",
            RefusalCode::NotWasm => "not-wasm",
            RefusalCode::CoreModule => "core-module",
            RefusalCode::NotAComponent => "not-a-component",
            RefusalCode::Invalid => "invalid",
            RefusalCode::CompileTimeout => "compile-timeout",
            RefusalCode::UnknownImport => "unknown-import",
            RefusalCode::ImportType => "import-type",
            RefusalCode::NoRole => "no-role",
            RefusalCode::ExportType => "export-type",
            RefusalCode::ContractVersion => "contract-version",
            RefusalCode::Instantiate => "does-not-instantiate",
            RefusalCode::Describe => "describe-failed",
            RefusalCode::Manifest => "bad-manifest",
        }
    }
}

impl fmt::Display for RefusalCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why an upload is not accepted, in words its author can act on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    pub code: RefusalCode,
    pub message: String,
}

impl Refusal {
    pub(crate) fn new(code: RefusalCode, message: impl Into<String>) -> Refusal {
        Refusal { code, message: crate::output::short(message.into(), MAX_MESSAGE) }
    }
}

/// How a call into a plugin went wrong. After a [`Failure::Fault`], a [`Failure::Nonsense`], a [`Failure::Check`], and an answer that was
/// [`Failure::TooMuch`], the instance goes on; [`crate::Instance::is_dead`] says so.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// `stack` names the plugin's functions, innermost first, where the component carries names; those of Rust are symbols still.
    #[error("the plugin trapped: {message}")]
    Trap { message: String, stack: Vec<String> },
    #[error("the plugin ran longer than its deadline of {} ms", .limit.as_millis())]
    Deadline { limit: Duration },
    #[error("the plugin asked for more than its {} KiB of memory", .limit / 1024)]
    Memory { limit: u64 },
    #[error("the plugin returned more than its limit of {limit} bytes in one answer")]
    TooMuch { limit: u64 },
    #[error("the plugin failed the whole batch: {code}: {reason}")]
    Fault { action: Action, code: String, reason: String },
    /// The answer breaks the contract; the text says where.
    #[error("the plugin's answer makes no sense: {0}")]
    Nonsense(String),
    #[error("the plugin failed: {0}")]
    Check(String),
    /// The processor's state could not be read or written; no fault of the plugin.
    #[error("the state: {0}")]
    State(String),
    /// What was granted to the plugin is not to be had now; no fault of the plugin. The call is to be made again later.
    #[error("what it was granted is not to be had now: {0}")]
    Unavailable(String),
    #[error("this instance ended with an earlier failure")]
    Dead,
}

impl Failure {
    /// Stable code, as it stands in a dead letter.
    #[must_use]
    pub fn code(&self) -> &str {
        match self {
            Failure::Trap { .. } => "trap",
            Failure::Deadline { .. } => "deadline",
            Failure::Memory { .. } => "memory",
            Failure::TooMuch { .. } => "too-much-output",
            Failure::Fault { code, .. } => code,
            Failure::Nonsense(_) => "nonsense",
            Failure::Check(_) => "check-failed",
            Failure::State(_) => "state",
            Failure::Unavailable(_) => "unavailable",
            Failure::Dead => "dead",
        }
    }
}
