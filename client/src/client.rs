use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{
        Arc, Weak,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use sluice_model::{GroupName, TopicName};
use sluice_protocol::{
    Frame, ResponseCode,
    body::{HeartbeatBody, HeartbeatConsumer, HeartbeatProducer, QueueRef, RouteBody},
    request::{Heartbeat, Route, UnregisterClient},
};
use sluice_transport::Connection;
use tracing::{debug, warn};

use crate::{
    Admin, ClientConfig, Error, Producer, PullConsumer, PushConsumerBuilder, callbacks::Callbacks, push::Options,
};

/// The topic whose route is used for a topic that does not exist yet.
const TEMPLATE: &str = "TBW102";
const READ: u32 = 4;
const WRITE: u32 = 2;
/// Most routes that are remembered.
const ROUTES: usize = 10_000;

/// Connections, routes and heartbeats, shared by all producers and consumers made from it. Cheap to clone.
#[derive(Clone)]
pub struct Client(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub config: ClientConfig,
    pub id: String,
    pub callbacks: Arc<Callbacks>,
    connections: Mutex<HashMap<String, Connection<Callbacks>>>,
    routes: Mutex<HashMap<String, (Instant, Arc<RouteBody>)>>,
    producers: Mutex<BTreeMap<GroupName, usize>>,
    consumers: Mutex<BTreeMap<GroupName, HeartbeatConsumer>>,
    next_namesrv: AtomicUsize,
}

impl Client {
    /// A client; nothing is connected before it is needed. Must be called within a tokio runtime.
    ///
    /// Fails when there is no name server's address.
    pub fn new(config: ClientConfig) -> Result<Self, Error> {
        if config.namesrv_addrs.is_empty() {
            return Err(Error::Invalid { field: "namesrv_addrs", problem: "expected an address, got none".into() });
        }
        let id = format!("{}@{}", local_address(&config.namesrv_addrs[0]), config.instance_name);
        let inner = Arc::new(Inner {
            config,
            id,
            callbacks: Arc::default(),
            connections: Mutex::default(),
            routes: Mutex::default(),
            producers: Mutex::default(),
            consumers: Mutex::default(),
            next_namesrv: AtomicUsize::new(0),
        });
        tokio::spawn(beat(Arc::downgrade(&inner), inner.callbacks.clone(), inner.config.heartbeat));
        Ok(Self(inner))
    }

    /// The name under which brokers know this client: `address@instance`.
    pub fn id(&self) -> &str {
        &self.0.id
    }

    /// A producer of a group. Fails when the group's name is malformed.
    pub fn producer(&self, group: &str) -> Result<Producer, Error> {
        Ok(Producer::new(self.clone(), GroupName::parse(group)?))
    }

    /// A consumer that asks for what it wants, queue by queue. Fails when the group's name is malformed.
    pub fn pull_consumer(&self, group: &str) -> Result<PullConsumer, Error> {
        Ok(PullConsumer::new(self.clone(), GroupName::parse(group)?))
    }

    /// A consumer that is given messages as they come; see [`PushConsumerBuilder`].
    pub fn push_consumer(&self, group: &str) -> PushConsumerBuilder {
        PushConsumerBuilder::new(self.clone(), Options::new(group))
    }

    /// Topics, offsets and queries.
    pub fn admin(&self) -> Admin {
        Admin::new(self.clone())
    }

    pub(crate) fn connection(&self, address: &str) -> Connection<Callbacks> {
        let mut connections = self.0.connections.lock();
        let connect = || Connection::new(address, self.0.callbacks.clone(), self.0.config.connection.clone());
        connections.entry(address.to_owned()).or_insert_with(connect).clone()
    }

    /// The answer to a request; an answer other than success is an error.
    pub(crate) async fn call(&self, address: &str, request: Frame) -> Result<Frame, Error> {
        let answer = self.connection(address).invoke(request, self.0.config.timeout).await?;
        succeeded(address, answer)
    }

    /// Asks the name servers in turn until one answers.
    pub(crate) async fn call_names(&self, request: Frame) -> Result<Frame, Error> {
        let addresses = &self.0.config.namesrv_addrs;
        let first = self.0.next_namesrv.load(Ordering::Relaxed);
        let mut last = None;
        for at in 0..addresses.len() {
            let index = (first + at) % addresses.len();
            match self.call(&addresses[index], request.clone()).await {
                Err(Error::Transport(problem)) => last = Some(Error::Transport(problem)),
                other => {
                    self.0.next_namesrv.store(index, Ordering::Relaxed);
                    return other;
                }
            }
        }
        Err(last.unwrap_or_else(|| Error::Invalid { field: "namesrv_addrs", problem: "expected an address".into() }))
    }

    /// Where a topic's queues are, as of at most `route_age` ago.
    pub(crate) async fn route(&self, topic: &str) -> Result<Arc<RouteBody>, Error> {
        if let Some((at, route)) = self.0.routes.lock().get(topic)
            && at.elapsed() < self.0.config.route_age
        {
            return Ok(route.clone());
        }
        let request = Route { topic: TopicName::parse(topic)? }.encode();
        let answer = self.call_names(request).await?;
        let route = Arc::new(RouteBody::from_json(&answer.body)?);
        let known = self.0.brokers();
        {
            let mut routes = self.0.routes.lock();
            if routes.len() >= ROUTES {
                routes.clear();
            }
            routes.insert(topic.to_owned(), (Instant::now(), route.clone()));
        }
        // A connection may be older than the groups that its broker is to know of.
        if !self.0.brokers().is_subset(&known) {
            self.0.callbacks.heartbeat.notify_one();
        }
        Ok(route)
    }

    /// Asks the name server again the next time.
    pub(crate) fn forget_route(&self, topic: &str) {
        self.0.routes.lock().remove(topic);
    }

    /// Queues to which a topic's messages can be sent. For a topic that does not exist, those that it would have.
    pub(crate) async fn write_queues(&self, topic: &str) -> Result<Vec<QueueRef>, Error> {
        let (route, most) = match self.route(topic).await {
            Err(Error::Refused { code: ResponseCode::TopicNotExist, .. }) => (self.route(TEMPLATE).await, 4),
            other => (other, u32::MAX),
        };
        let route =
            route.map_err(|problem| Error::NoRoute { topic: topic.to_owned(), problem: problem.to_string() })?;
        let has_master = |name: &str| route.brokers.iter().any(|b| b.broker_name == name && b.master().is_some());
        let writable = route.queues.iter().filter(|q| q.perm & WRITE != 0 && has_master(&q.broker_name));
        let queues: Vec<QueueRef> = writable
            .flat_map(|q| (0..q.write_queue_nums.min(most)).map(|id| queue(topic, &q.broker_name, id)))
            .collect();
        if queues.is_empty() {
            let problem = "no queue can be written to".to_owned();
            return Err(Error::NoRoute { topic: topic.to_owned(), problem });
        }
        Ok(queues)
    }

    /// Queues from which a topic's messages can be read, in the order in which all clients see them.
    pub(crate) async fn read_queues(&self, topic: &str) -> Result<Vec<QueueRef>, Error> {
        let route = self.route(topic).await?;
        let readable = route.queues.iter().filter(|q| q.perm & READ != 0);
        let mut queues: Vec<QueueRef> =
            readable.flat_map(|q| (0..q.read_queue_nums).map(|id| queue(topic, &q.broker_name, id))).collect();
        queues.sort_by(|a, b| (&a.broker_name, a.queue_id).cmp(&(&b.broker_name, b.queue_id)));
        Ok(queues)
    }

    /// The address of a broker's master, or of its first replica when messages are only to be read.
    pub(crate) async fn broker(&self, topic: &str, broker: &str, write: bool) -> Result<String, Error> {
        let route = match self.route(topic).await {
            Err(Error::Refused { code: ResponseCode::TopicNotExist, .. }) => self.route(TEMPLATE).await?,
            other => other?,
        };
        let found = route.brokers.iter().find(|b| b.broker_name == broker);
        let address = found.and_then(|b| {
            b.master().or_else(|| if write { None } else { b.broker_addrs.values().next().map(String::as_str) })
        });
        address
            .map(str::to_owned)
            .ok_or_else(|| Error::NoRoute { topic: topic.to_owned(), problem: format!("broker {broker} is not there") })
    }

    pub(crate) fn join_producers(&self, group: &GroupName) {
        *self.0.producers.lock().entry(group.clone()).or_default() += 1;
        self.0.callbacks.heartbeat.notify_one();
    }

    pub(crate) fn leave_producers(&self, group: &GroupName) {
        let mut producers = self.0.producers.lock();
        if let Some(count) = producers.get_mut(group) {
            *count -= 1;
            if *count == 0 {
                producers.remove(group);
            }
        }
    }

    pub(crate) async fn join_consumers(&self, group: &GroupName, consumer: HeartbeatConsumer) {
        self.0.consumers.lock().insert(group.clone(), consumer);
        self.0.heartbeat().await;
    }

    pub(crate) async fn leave_consumers(&self, group: &GroupName) {
        self.0.consumers.lock().remove(group);
        let request = UnregisterClient {
            client_id: self.0.id.clone(),
            producer_group: None,
            consumer_group: Some(group.clone()),
        };
        for address in self.0.brokers() {
            if let Err(problem) = self.call(&address, request.encode()).await {
                debug!(%problem, "the broker was not told that the consumer leaves");
            }
        }
    }
}

impl Inner {
    /// The addresses of all brokers in the routes known.
    fn brokers(&self) -> BTreeSet<String> {
        let routes = self.routes.lock();
        let brokers = routes.values().flat_map(|(_, route)| &route.brokers);
        brokers.flat_map(|broker| broker.broker_addrs.values().cloned()).collect()
    }

    async fn heartbeat(self: &Arc<Self>) {
        let producers: Vec<_> =
            self.producers.lock().keys().map(|g| HeartbeatProducer { group_name: g.to_string() }).collect();
        let consumers: Vec<_> = self.consumers.lock().values().cloned().collect();
        if producers.is_empty() && consumers.is_empty() {
            return;
        }
        let body = HeartbeatBody {
            client_id: self.id.clone(),
            consumers,
            heartbeat_fingerprint: 0,
            producers,
            without_sub: false,
        };
        let request = Heartbeat { body }.encode();
        for address in self.brokers() {
            if let Err(problem) = Client(self.clone()).call(&address, request.clone()).await {
                warn!(%address, %problem, "no heartbeat");
            }
        }
    }
}

/// Sends heartbeats when they are due, until the client is gone.
async fn beat(inner: Weak<Inner>, callbacks: Arc<Callbacks>, every: Duration) {
    loop {
        // Woken or not: a heartbeat is due.
        let _ = tokio::time::timeout(every, callbacks.heartbeat.notified()).await;
        let Some(inner) = inner.upgrade() else { return };
        inner.heartbeat().await;
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.callbacks.heartbeat.notify_one();
    }
}

/// An answer other than success is an error.
pub(crate) fn succeeded(address: &str, answer: Frame) -> Result<Frame, Error> {
    match ResponseCode::from(answer.header.code) {
        ResponseCode::Success => Ok(answer),
        code => Err(refusal(address, code, answer)),
    }
}

pub(crate) fn refusal(address: &str, code: ResponseCode, answer: Frame) -> Error {
    let remark = answer.header.remark.unwrap_or_else(|| format!("{code:?}"));
    Error::Refused { address: address.to_owned(), code, remark }
}

fn queue(topic: &str, broker: &str, id: u32) -> QueueRef {
    QueueRef { broker_name: broker.to_owned(), queue_id: id, topic: topic.to_owned() }
}

/// The address of ours from which `peer` would be reached.
fn local_address(peer: &str) -> String {
    let ask = || {
        let socket = std::net::UdpSocket::bind("0.0.0.0:0").ok()?;
        socket.connect(peer).ok()?;
        Some(socket.local_addr().ok()?.ip().to_string())
    };
    ask().unwrap_or_else(|| "127.0.0.1".to_owned())
}
