//! The server: doors on the broker, plugins between its topics, and the order in which all of it starts and stops.

mod audit;
mod breaker;
mod chains;
mod checkers;
mod clock;
mod documents;
mod failure;
mod filters;
mod flow;
mod grants;
mod ingress;
mod log_topic;
mod measures;
mod metrics;
mod observer;
mod pipelines;
mod plugins;
mod priority;
mod record;
mod register;
mod remoting;
mod rest;
mod ring;
mod secrets;
mod server;
mod shell;
mod steps;
pub mod units;
mod uses;

pub use failure::Failure;
pub use flow::Rates;
pub use server::{Config, Server, StartError};
/// Settings of the rooms below, for whoever composes a server.
pub use sluice_broker::{Config as BrokerConfig, Durability, LONGEST_DELAY_MS, Retention, StoreConfig};
pub use sluice_runtime::Config as RuntimeConfig;
pub use sluice_transport::Limits as RemotingLimits;
