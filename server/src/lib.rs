//! The server: doors on the broker, plugins between its topics, and the order in which all of it starts and stops.

mod checkers;
mod clock;
mod failure;
mod metrics;
mod observer;
mod pipelines;
mod plugins;
mod register;
mod remoting;
mod rest;
mod server;
mod shell;
pub mod units;

pub use failure::Failure;
pub use server::{Config, Server, StartError};
