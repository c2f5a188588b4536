//! Runs users' WebAssembly plugins: the upload gate, instances under limits, and the stage loop over three small ports.
//!
//! The contract with the plugin is `sdk-wasm/wit`. This crate knows nothing of brokers, sockets or async: a host gives it bytes of a
//! component, records, and implementations of [`ports`].

mod batch;
mod bindings;
mod bisect;
mod bounds;
mod chained;
mod counters;
mod engine;
mod error;
mod gate;
mod given;
mod grants;
mod host;
mod instance;
mod keep;
mod limits;
mod manifest;
mod output;
mod pace;
mod packages;
mod plan;
mod plugin;
pub mod ports;
mod rewrite;
mod schema;
mod shadow;
mod stage;
pub mod state;
mod step;
mod ticker;
mod urls;
mod wasi;
mod watch;

pub use batch::{Batch, Record};
pub use bindings::{Action, Columns};
pub use counters::{Counters, Latency, StepCounters, StepStatus};
pub use engine::Runtime;
pub use error::{Error, Failure, Refusal, RefusalCode};
pub use given::{Begin, Given};
pub use grants::Grants;
pub use host::{Context, Level, LogLine, MetricKind, Observation, Observer, Silent};
pub use instance::{Decision, HalfMessage, Instance};
pub use limits::{Compilers, Config, Limits};
pub use manifest::{Manifest, Outputs, Param, Port, Report, Role, StoreDeclared};
pub use output::{Output, Produced, RecordFailure, Verdict};
pub use plan::{Plan, Policy, StatePlan, Then};
pub use plugin::{Plugin, Setup};
pub use shadow::{Compared, Difference, Fate, Shadow, Sinks};
pub use stage::{Stage, Turn};
pub use step::Step;
pub use urls::UrlGrant;
pub use watch::processor_time;
