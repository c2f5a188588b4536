//! The commands that ask a running server over REST.

pub mod dlq;
pub mod group;
pub mod pipeline;
pub mod plugin;
pub mod topic;
