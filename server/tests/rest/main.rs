//! The REST door of a running server, as a client sees it.

mod groups;
mod kit;
mod messages;
mod pipelines;
mod plugins;
mod problems;
mod topics;
