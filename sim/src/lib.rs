//! The broker in a seeded world: a disk that loses and tears, a script of what clients do, an oracle of what they know,
//! and checks of what must hold whatever happened. Tests only.
//!
//! Everything runs on one thread and takes time as an argument, so a seed says it all. [`run::crash_run`] plays a script
//! until the process dies at a given call to the disk, brings the broker up from what is left, checks, lets it go on,
//! checks, and brings it up once more.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may stop where it fails")]

pub mod check;
pub mod dice;
pub mod oracle;
pub mod pipeline;
pub mod run;
pub mod script;
pub mod world;
