//! Write a plugin for Sluice: one function, one attribute.
//!
//! ```
//! use sluice_sdk::{Config, Record, filter};
//!
//! #[derive(Config)]
//! struct Limits {
//!     /// Smaller amounts are dropped.
//!     min: u64,
//! }
//!
//! #[filter(needs(headers))]
//! fn big(r: Record<'_>, cfg: &Limits) -> bool {
//!     r.header_u64("amount").is_some_and(|amount| amount > cfg.min)
//! }
//! ```
//!
//! A crate holds one plugin with one role, and has `crate-type = ["cdylib"]`. The name, version and description of the package become the
//! plugin's own.

mod check;
mod config;
mod failure;
mod pending;
mod process;
mod record;
mod transform;

#[doc(hidden)]
pub mod run;
#[doc(hidden)]
#[allow(unsafe_code, clippy::all, reason = "generated from the contract")]
pub mod wit;

pub mod context;
pub mod field;
pub mod http;
pub mod join;
pub mod log;
pub mod lookup;
pub mod metrics;
pub mod secrets;
pub mod state;
pub mod window;

pub use check::{Decision, HalfMessage};
pub use config::{Config, ConfigValue, NoConfig, Values};
pub use failure::{Failure, IntoVerdict};
pub use process::{Context, Domain, Timer};
pub use record::Record;
pub use serde_json as json;
pub use sluice_sdk_macros::{Config, check_transaction, filter, process, transform};
pub use transform::{Emit, IntoDone, Out};
