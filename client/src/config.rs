use std::time::Duration;

use sluice_transport::ConnectionConfig;

/// How a client finds and talks to its brokers.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// Addresses of the name servers, `host:port`; each is tried in turn.
    pub namesrv_addrs: Vec<String>,
    /// Tells this client from others on the same host; the process id by default.
    pub instance_name: String,
    /// How long an answer may take.
    pub timeout: Duration,
    /// How often a failed send is tried again, each time with another queue.
    pub send_retries: u32,
    /// How long a route is used before the name server is asked again.
    pub route_age: Duration,
    /// How often brokers hear that the client lives.
    pub heartbeat: Duration,
    /// How often a consumer looks whether it has the right queues; it is told of most changes.
    pub rebalance: Duration,
    /// How often a push consumer stores its offsets.
    pub commit: Duration,
    /// How long a broker may wait for messages before it answers a pull without any.
    pub poll: Duration,
    /// Bodies of more bytes are compressed.
    pub compress_above: usize,
    pub connection: ConnectionConfig,
}

impl ClientConfig {
    /// The defaults of Apache's clients, with these name servers.
    pub fn new<A: Into<String>>(namesrv_addrs: impl IntoIterator<Item = A>) -> Self {
        Self {
            namesrv_addrs: namesrv_addrs.into_iter().map(Into::into).collect(),
            instance_name: std::process::id().to_string(),
            timeout: Duration::from_secs(3),
            send_retries: 2,
            route_age: Duration::from_secs(30),
            heartbeat: Duration::from_secs(30),
            rebalance: Duration::from_secs(20),
            commit: Duration::from_secs(5),
            poll: Duration::from_secs(15),
            compress_above: 4 * 1024,
            connection: ConnectionConfig::default(),
        }
    }
}
