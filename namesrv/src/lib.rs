//! The name server: brokers register their topics, clients ask where a topic's queues are.
//!
//! [`RouteTable`] is the state, without a clock or a socket; [`run`] serves it over remoting.

mod config;
mod door;
mod error;
mod kv;
mod route_table;

use std::{future::Future, sync::Arc, time::Duration};

pub use config::Config;
pub use error::Error;
pub use kv::Kv;
pub use route_table::{Registered, RouteTable};
use tokio::net::TcpListener;
use tracing::info;

use crate::door::Door;

/// How often brokers that gave no sign of life are looked for.
const SCAN: Duration = Duration::from_secs(5);

/// Serves the name server's requests on `listener` until `shutdown`.
///
/// Fails when the stored configuration values cannot be read.
pub async fn run(listener: TcpListener, config: Config, shutdown: impl Future<Output = ()>) -> Result<(), Error> {
    let limits = config.limits.clone();
    let scan = SCAN.min(config.broker_timeout / 2).max(Duration::from_millis(10));
    let door = Arc::new(Door::open(config)?);
    let expiring = async {
        loop {
            tokio::time::sleep(scan).await;
            for broker in door.expire() {
                info!(%broker, "the broker gave no sign of life in time and is taken out");
            }
        }
    };
    tokio::select! {
        () = sluice_transport::serve(listener, door.clone(), limits, shutdown) => Ok(()),
        () = expiring => Ok(()),
    }
}
