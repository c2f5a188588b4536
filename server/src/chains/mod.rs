//! Chains of plugins that judge messages one by one, outside any pipeline: the ingress of a topic and the filter of a group.
//!
//! A chain runs on threads of its own behind bounded queues ([`lanes`]), each with instances of its own ([`judge`]). What is
//! bound where is a document in the log ([`bindings`]).

mod bindings;
mod judge;
mod lanes;
mod plan;
mod record;

pub use bindings::{Bindings, Description, Pinned, Place};
pub use judge::Outcome;
pub use lanes::{Counts, Given, Work};
pub use plan::{Plan, Step, check_limits, check_steps};
pub use record::{of_message, with_changes};
