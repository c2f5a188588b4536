//! The name server's requests.

use std::{sync::Arc, time::Instant};

use parking_lot::{Mutex, RwLock};
use sluice_model::{Kind, Timestamp};
use sluice_protocol::{
    FieldError, Frame, Request, Response, ResponseCode,
    body::{ConfigText, KvTableBody, MemberGroupBody, TopicListBody},
    reply::{AddWriteReply, DataVersionReply, KvReply, RegisterReply, WipeWriteReply},
    request::{QueryDataVersion, RegisterBroker},
};
use sluice_transport::{Handler, Responder, Session};
use tracing::{info, warn};

use crate::{Config, Error, Kv, RouteTable};

/// Values under which ordered topics are fixed to their queues.
const ORDER_NAMESPACE: &str = "ORDER_TOPIC_CONFIG";
/// Settings that no request may change. Source: Apache RocketMQ `NamesrvConfig`.
const FIXED: [&str; 3] = ["configBlackList", "configStorePath", "kvConfigPath"];

pub(crate) struct Door {
    table: RwLock<RouteTable>,
    kv: Arc<Mutex<Kv>>,
    config: RwLock<Config>,
    start: Instant,
}

impl Door {
    pub fn open(config: Config) -> Result<Self, Error> {
        let kv = config.data_dir.as_deref().map_or_else(|| Ok(Kv::default()), Kv::open)?;
        let kv = Arc::new(Mutex::new(kv));
        Ok(Self { table: RwLock::default(), kv, config: RwLock::new(config), start: Instant::now() })
    }

    /// Takes out brokers that gave no sign of life; returns their addresses.
    pub fn expire(&self) -> Vec<String> {
        self.table.write().expire(self.now())
    }

    fn now(&self) -> Timestamp {
        Timestamp(self.start.elapsed().as_millis() as i64)
    }

    fn answer(&self, session: &Session, code: i32, request: Request) -> Response {
        match request {
            Request::RegisterBroker(request) => self.register(session, &request),
            Request::UnregisterBroker(request) => {
                self.table.write().unregister(&request.cluster, &request.address);
                Response::ok()
            }
            Request::BrokerHeartbeat(request) => {
                self.table.write().heartbeat(&request.cluster, &request.address, self.now());
                Response::ok()
            }
            Request::QueryDataVersion(request) => self.data_version(&request),
            Request::Route(request) => self.route(request.topic.as_str()),
            Request::Cluster(_) => Response::ok().with_body(self.table.read().cluster().to_json()),
            Request::MemberGroup(request) => {
                let members = self.table.read().members(&request.cluster, &request.broker);
                Response::ok().with_body(MemberGroupBody { members }.to_json())
            }
            Request::AllTopics(_) => self.topics(RouteTable::topics),
            Request::TopicsOfCluster(request) => self.topics(|table| table.topics_of(&request.cluster)),
            Request::SystemTopicsOfNames(_) => self.system_topics(),
            Request::DeleteTopicRoute(request) => {
                self.table.write().delete_topic(request.topic.as_str(), request.cluster.as_deref());
                Response::ok()
            }
            Request::RegisterTopicRoute(request) => {
                self.table.write().put_topic(request.topic.as_str(), &request.route.queues);
                Response::ok()
            }
            Request::WipeWrite(request) => {
                let count = self.table.write().wipe_write(&request.broker) as i32;
                Response::ok().with_ext(WipeWriteReply { count }.encode())
            }
            Request::AddWrite(request) => {
                let count = self.table.write().add_write(&request.broker) as i32;
                Response::ok().with_ext(AddWriteReply { count }.encode())
            }
            Request::GetKv(request) => match self.kv.lock().get(&request.namespace, &request.key) {
                Some(value) => Response::ok().with_ext(KvReply { value: Some(value.to_owned()) }.encode()),
                None => not_found(format!("no value {} in namespace {}", request.key, request.namespace)),
            },
            Request::KvList(request) => match self.kv.lock().list(&request.namespace) {
                Some(values) => Response::ok().with_body(KvTableBody { table: values.clone() }.to_json()),
                None => not_found(format!("no namespace {}", request.namespace)),
            },
            Request::NamesConfig(_) => Response::ok().with_body(self.config.read().to_text()),
            Request::UpdateNamesConfig(request) => self.update_config(&request.body),
            _ => unsupported(code),
        }
    }

    fn register(&self, session: &Session, request: &RegisterBroker) -> Response {
        let timeout = self.config.read().broker_timeout.as_millis() as i64;
        let registered = self.table.write().register(request, session.id(), timeout, self.now());
        match registered {
            Ok(registered) => {
                let reply =
                    RegisterReply { ha_address: registered.ha_address, master_address: registered.master_address };
                let table = self.kv.lock().list(ORDER_NAMESPACE).cloned().unwrap_or_default();
                Response::ok().with_ext(reply.encode()).with_body(KvTableBody { table }.to_json())
            }
            Err(problem) => failed(&problem),
        }
    }

    fn data_version(&self, request: &QueryDataVersion) -> Response {
        let known = self.table.write().version(&request.cluster, &request.address, self.now());
        let changed = known.as_ref() != Some(&request.version);
        let answer = Response::ok().with_ext(DataVersionReply { changed }.encode());
        match known {
            Some(known) => answer.with_body(known.to_json()),
            None => answer,
        }
    }

    fn route(&self, topic: &str) -> Response {
        let Some(mut route) = self.table.read().route(topic) else {
            let remark = format!("topic {topic} is on no broker that this name server knows");
            return Response::error(ResponseCode::TopicNotExist, remark);
        };
        route.order_topic_conf = self.kv.lock().get(ORDER_NAMESPACE, topic).map(str::to_owned);
        Response::ok().with_body(route.to_json())
    }

    fn topics(&self, list: impl Fn(&RouteTable) -> std::collections::BTreeSet<String>) -> Response {
        if !self.config.read().list_topics {
            return Response::error(ResponseCode::SystemError, "listing topics is disabled: enableAllTopicList=false");
        }
        Response::ok().with_body(TopicListBody { broker_addr: None, topics: list(&self.table.read()) }.to_json())
    }

    fn system_topics(&self) -> Response {
        let cluster = self.table.read().cluster();
        let broker_addr = cluster.brokers.values().flat_map(|broker| broker.broker_addrs.values()).next().cloned();
        let topics = cluster.clusters.into_keys().chain(cluster.brokers.into_keys()).collect();
        Response::ok().with_body(TopicListBody { broker_addr, topics }.to_json())
    }

    fn update_config(&self, text: &str) -> Response {
        let changes = match ConfigText::parse(text) {
            Ok(changes) => changes.0,
            Err(problem) => return malformed(&problem),
        };
        if let Some(key) = changes.keys().find(|key| FIXED.contains(&key.as_str())) {
            return Response::error(ResponseCode::NoPermission, format!("{key} cannot be changed"));
        }
        let mut changed = self.config.read().clone();
        for (key, value) in &changes {
            let bad = |expected: &str| {
                Response::error(ResponseCode::InvalidParameter, format!("{key}: {expected}, got {value:?}"))
            };
            match key.as_str() {
                "enableAllTopicList" | "enableTopicList" => match value.parse() {
                    Ok(list) => changed.list_topics = list,
                    Err(_) => return bad("expected true or false"),
                },
                "brokerTimeoutMillis" => match value.parse() {
                    Ok(ms) if (1000..=86_400_000).contains(&ms) => {
                        changed.broker_timeout = std::time::Duration::from_millis(ms);
                    }
                    _ => return bad("expected 1000 to 86400000"),
                },
                _ => return bad("no such setting"),
            }
        }
        *self.config.write() = changed;
        Response::ok()
    }

    /// Changes that are stored: on a thread that may wait for the disk.
    fn store(&self, responder: Responder, change: impl FnOnce(&mut Kv) -> Result<(), Error> + Send + 'static) {
        let kv = self.kv.clone();
        tokio::task::spawn_blocking(move || {
            let changed = change(&mut kv.lock());
            responder.send(changed.map_or_else(|problem| failed(&problem), |()| Response::ok()));
        });
    }
}

impl Handler for Door {
    fn request(&self, session: &Session, frame: Frame, responder: Responder) {
        match Request::decode(&frame) {
            Err(problem) => responder.send(malformed(&problem)),
            Ok(Request::PutKv(put)) => self.store(responder, move |kv| kv.put(&put.namespace, &put.key, &put.value)),
            Ok(Request::DeleteKv(delete)) => self.store(responder, move |kv| kv.delete(&delete.namespace, &delete.key)),
            Ok(request) => responder.send(self.answer(session, frame.header.code, request)),
        }
    }

    fn closed(&self, session: &Session) {
        for broker in self.table.write().disconnect(session.id()) {
            info!(%broker, "the broker's connection is gone and it is taken out");
        }
    }
}

fn not_found(remark: String) -> Response {
    Response::error(ResponseCode::QueryNotFound, remark)
}

fn unsupported(code: i32) -> Response {
    Response::error(ResponseCode::RequestCodeNotSupported, format!("the name server does not know request code {code}"))
}

fn malformed(problem: &FieldError) -> Response {
    // Apache's brokers know a damaged registration by this code.
    let code = if problem.field == "bodyCrc32" { ResponseCode::SystemError } else { ResponseCode::InvalidParameter };
    Response::error(code, problem.to_string())
}

fn failed(problem: &Error) -> Response {
    let code = match problem.kind() {
        Kind::Invalid => ResponseCode::InvalidParameter,
        _ => ResponseCode::SystemError,
    };
    if code == ResponseCode::SystemError {
        warn!(%problem, "a request failed");
    }
    Response::error(code, problem.to_string())
}
