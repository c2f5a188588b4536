//! The REST door of a running server, as a client sees it.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

mod changes;
mod dead_letters;
mod filters;
mod grants;
mod groups;
mod guards;
mod ingress;
mod kit;
mod messages;
mod pipelines;
mod plugins;
mod problems;
mod remoting;
mod revisions;
mod secrets;
mod topics;
mod trace;
