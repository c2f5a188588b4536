//! The commands that run something until they are told to stop.

pub mod broker;
pub mod dev;
pub mod namesrv;
mod ports;
pub mod signals;

use std::future::Future;

use anyhow::Context;

/// Runs `work` on as many threads as there are cores.
pub fn block_on<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.context("threads could not be started")?.block_on(work)
}
