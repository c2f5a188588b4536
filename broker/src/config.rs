use sluice_model::Host;

use crate::topics::Durability;

/// How a broker behaves. Times in milliseconds.
#[derive(Clone, Debug)]
pub struct Config {
    /// Name of the broker, as routes carry it.
    pub name: String,
    /// Name of the cluster it belongs to.
    pub cluster: String,
    /// The address that clients reach it under; part of every message id.
    pub advertised: Host,
    /// A send to an unknown topic makes it.
    pub auto_create_topics: bool,
    /// Queues of a topic that a send makes, unless the client asks for fewer.
    pub default_queues: u32,
    /// When a message counts as acknowledged, for topics that do not say.
    pub durability: Durability,
    /// Largest body of a client's message, bytes.
    pub max_body: usize,
    /// Age of a half message before its producer is asked for the first time.
    pub transaction_timeout_ms: i64,
    /// Time between two questions about one half message.
    pub transaction_interval_ms: i64,
    /// Questions about one half message before it is given up to `TRANS_CHECK_MAX_TIME_TOPIC`.
    pub transaction_checks: u32,
    /// A member that sent no heartbeat for this long is out of its group.
    pub member_timeout_ms: i64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            name: "broker-a".to_owned(),
            cluster: "DefaultCluster".to_owned(),
            advertised: Host::LOCAL,
            auto_create_topics: true,
            default_queues: 4,
            durability: Durability::Sync,
            max_body: sluice_model::limits::BODY_LEN,
            transaction_timeout_ms: 6_000,
            transaction_interval_ms: 30_000,
            transaction_checks: 15,
            member_timeout_ms: 120_000,
        }
    }
}
