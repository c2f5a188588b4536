//! Runs users' WebAssembly plugins: the upload gate, instances under limits, and the stage loop over three small ports.
//!
//! The contract with the plugin is `sdk-wasm/wit`. This crate knows nothing of brokers, sockets or async: a host gives it bytes of a
//! component, records, and implementations of [`ports`].

mod batch;
mod bindings;
mod bisect;
mod bounds;
mod engine;
mod error;
mod gate;
mod host;
mod instance;
mod keep;
mod limits;
mod manifest;
mod output;
mod packages;
mod plugin;
pub mod ports;
mod schema;
mod stage;
pub mod state;
mod step;
mod ticker;
mod wasi;
mod watch;

pub use batch::{Batch, Record};
pub use bindings::{Action, Columns};
pub use engine::Runtime;
pub use error::{Error, Failure, Kind, Refusal, RefusalCode};
pub use host::{Context, Grants, Level, LogLine, MetricKind, Observation, Observer, Silent};
pub use instance::{Decision, HalfMessage, Instance};
pub use limits::{Config, Limits};
pub use manifest::{Manifest, Outputs, Param, Port, Report, Role, StoreDeclared};
pub use output::{Output, Produced, RecordFailure, Verdict};
pub use plugin::{Plugin, Setup};
pub use stage::{Counters, Plan, Policy, Stage, StatePlan, Then, Turn};
pub use step::Step;
