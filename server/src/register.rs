//! Keeping the name servers told which topics this broker has.

use std::{sync::Arc, time::Duration};

use sluice_model::TopicName;
use sluice_protocol::{
    Frame, ResponseCode,
    body::{RegisterBrokerBody, RouteBody, TopicTableBody},
    request::{RegisterBroker, Route, UnregisterBroker},
};
use sluice_transport::{Connection, ConnectionConfig, Handler, Responder, Session};
use tokio::sync::{Notify, watch};

use crate::{remoting, shell::Shell};

/// Time between two registrations when nothing changes (Apache RocketMQ `registerNameServerPeriod`).
const PERIOD: Duration = Duration::from_secs(30);
/// Time before the next try when no name server answered.
const RETRY: Duration = Duration::from_secs(1);
const TIMEOUT: Duration = Duration::from_secs(3);
/// Time that a client's question leaves for a question to a name server.
const ROUTE_TIMEOUT: Duration = Duration::from_millis(800);
/// How long a change waits at most until the name servers know it.
const SETTLE: Duration = Duration::from_secs(2);

/// Registers the broker with every name server: regularly, and whenever its topics change.
pub struct Registrar {
    shell: Shell,
    /// Addresses of the name servers.
    pub addresses: Vec<String>,
    servers: Vec<Connection<Nobody>>,
    changed: Notify,
    /// Version of the topics that the name servers know; none before they heard of the broker.
    known: watch::Sender<Option<u64>>,
}

/// Name servers ask nothing of brokers.
struct Nobody;

impl Handler for Nobody {
    fn request(&self, _: &Session, _: Frame, _: Responder) {}
}

impl Registrar {
    pub fn new(shell: Shell, addresses: Vec<String>) -> Arc<Self> {
        let nobody = Arc::new(Nobody);
        let connect = |address: &String| Connection::new(address, nobody.clone(), ConnectionConfig::default());
        let servers = addresses.iter().map(connect).collect();
        Arc::new(Self { shell, addresses, servers, changed: Notify::new(), known: watch::Sender::new(None) })
    }

    /// The topics changed: the name servers are told soon.
    pub fn topics_changed(&self) {
        self.changed.notify_one();
    }

    /// Waits until the name servers know the topics as they are now, for a short while at most.
    pub async fn settled(&self) {
        if self.servers.is_empty() {
            return;
        }
        let (wanted, _) = self.shell.reader.topics();
        self.changed.notify_one();
        let mut known = self.known.subscribe();
        let reached = known.wait_for(|known| known.is_some_and(|known| known >= wanted));
        if tokio::time::timeout(SETTLE, reached).await.is_err() {
            tracing::warn!("no name server took the change of topics in time; it will be told again");
        }
    }

    /// Registers until it is dropped.
    pub async fn run(&self) {
        loop {
            let answered = self.register().await;
            let wait = if answered || self.servers.is_empty() { PERIOD } else { RETRY };
            let _ = tokio::time::timeout(wait, self.changed.notified()).await;
        }
    }

    /// Whether any name server took the registration.
    async fn register(&self) -> bool {
        let (version, topics) = self.shell.reader.topics();
        let config = self.shell.reader.config();
        let table = TopicTableBody {
            data_version: remoting::version(version),
            topics: topics.iter().map(|topic| (topic.name.to_string(), remoting::of_topic(topic))).collect(),
            ..TopicTableBody::default()
        };
        let request = RegisterBroker {
            cluster: config.cluster.clone(),
            broker: config.name.clone(),
            address: config.advertised.to_string(),
            broker_id: 0,
            ha_address: config.advertised.to_string(),
            heartbeat_timeout_ms: None,
            acting_master: false,
            zone: None,
            body: RegisterBrokerBody { filter_servers: Vec::new(), topics: table },
        };
        let answered = self.tell_all(&request.encode()).await;
        if answered {
            self.known.send_replace(Some(version));
        }
        answered
    }

    /// Takes the broker out of the routes, so that clients turn elsewhere before it stops.
    pub async fn unregister(&self) {
        let config = self.shell.reader.config();
        let request = UnregisterBroker {
            cluster: config.cluster.clone(),
            broker: config.name.clone(),
            address: config.advertised.to_string(),
            broker_id: 0,
        };
        self.tell_all(&request.encode()).await;
    }

    /// Where the queues of a topic are, as the first name server says that answers; `None` when none does.
    pub async fn route(&self, topic: &TopicName) -> Option<RouteBody> {
        let request = Route { topic: topic.clone() }.encode();
        for server in &self.servers {
            match server.invoke(request.clone(), ROUTE_TIMEOUT).await {
                Ok(answer) if answer.header.code == i32::from(ResponseCode::Success) => {
                    return RouteBody::from_json(&answer.body).ok();
                }
                Ok(_) => return None,
                Err(error) => tracing::debug!(server = server.address(), %error, "a name server does not answer"),
            }
        }
        None
    }

    async fn tell_all(&self, request: &Frame) -> bool {
        let mut answered = false;
        for server in &self.servers {
            match server.invoke(request.clone(), TIMEOUT).await {
                Ok(answer) if answer.header.code == i32::from(ResponseCode::Success) => answered = true,
                Ok(answer) => {
                    let remark = answer.header.remark.unwrap_or_default();
                    tracing::warn!(server = server.address(), remark, "a name server refused the registration");
                }
                Err(error) => tracing::debug!(server = server.address(), %error, "a name server does not answer"),
            }
        }
        answered
    }
}
